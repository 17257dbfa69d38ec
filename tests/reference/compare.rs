//! Doing the same in both places, and comparing.

use std::path::Path;

use rustix::io::{Errno, Result};

use crate::operation::Operation;
use crate::stage::{Stage, Who, difference};
use crate::world::{World, become_ordinary, become_user};
use crate::{thread, tree};

/// Runs a sequence in both places; says what was not the same.
pub(crate) fn run(sequence: &[Operation], who: Who) -> Outcome {
    let stage = Stage::new(who);
    let result = stage.with(|mount, plain| {
        // A thread of its own has a umask and an identity of its own.
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| compare(sequence, mount, plain, who));
            worker
                .join()
                .unwrap_or_else(|_| Err(at_the_end("panicked".to_owned())))
        })
    });
    let result = result.and_then(|()| match stage.differences_beneath() {
        Some(difference) => Err(at_the_end(format!("at the end there is {difference}"))),
        None => Ok(()),
    });
    result.map_err(|failure| Failure {
        what: format!("{}\n{}", failure.what, stage.log()),
        ..failure
    })
}

/// What was not the same.
#[derive(Debug)]
pub(crate) struct Failure {
    /// After which operation; far beyond the last one if it was seen at the end.
    pub(crate) at: usize,
    pub(crate) what: String,
}

/// Nothing, or what was not the same.
pub(crate) type Outcome = std::result::Result<(), Failure>;

fn at_the_end(what: String) -> Failure {
    let at = usize::MAX;
    Failure { at, what }
}

fn compare(sequence: &[Operation], mount: &Path, plain: &Path, who: Who) -> Outcome {
    thread::own_umask().map_err(|error| at_the_end(error.to_string()))?;
    if who == Who::Ordinary {
        become_ordinary();
    }
    perform(sequence, (World::new(mount), World::new(plain)), who)?;
    if who == Who::Root {
        become_user(0);
    }
    let everything = |_: &Path| false;
    let trees = (
        tree::walk(mount, &everything),
        tree::walk(plain, &everything),
    );
    match difference(&trees.0, &trees.1) {
        Some(difference) => {
            let what = format!("at the end there is in the mount {difference}");
            Err(at_the_end(what))
        }
        None => Ok(()),
    }
}

fn perform(sequence: &[Operation], (mut mount, mut plain): (World, World), who: Who) -> Outcome {
    for (number, operation) in sequence.iter().enumerate() {
        match operation {
            Operation::Umask(mask) => {
                rustix::process::umask(rustix::fs::Mode::from_raw_mode(*mask));
            }
            Operation::Become(user) if who == Who::Root => become_user(*user),
            _ => {}
        }
        let operation = &operation.clone().comparable(who);
        let here = mount.perform(operation);
        let there = plain.perform(operation);
        if !same(operation, &here, &there) {
            let what = format!(
                "operation {number} differs, {operation:?}:\nthe mount gives {here:?}\nthe disk gives  {there:?}"
            );
            return Err(Failure { at: number, what });
        }
    }
    Ok(())
}

/// Whether two results are the same, as far as a mount of several disks can be like one.
fn same(operation: &Operation, mount: &Result<String>, plain: &Result<String>) -> bool {
    match (mount, plain) {
        // An archived job is no read-only file system: whoever writes into it brings it back. A file
        // renamed to itself stays as it is.
        (Ok(_), Err(Errno::ROFS)) => {
            matches!(operation, Operation::Access(..) | Operation::Rename(..))
        }
        // A bind mount is another device, and read-only, before anything is looked up in it.
        (Err(_), Err(Errno::XDEV | Errno::ROFS)) => true,
        // The mount refuses the archived side before the other is looked at.
        (Err(Errno::ROFS), Err(Errno::ACCESS | Errno::PERM)) => operation.names_an_archived_job(),
        // Without `allow_other` the disk is asked when a file is opened, and by then it is a socket.
        (Err(Errno::NXIO), Err(Errno::ACCESS)) => matches!(
            operation,
            Operation::Open(..) | Operation::ReadAll(..) | Operation::Truncate(..)
        ),
        // It is busy, too; an archived job is a directory that is not empty, and read-only.
        (Err(here), Err(Errno::BUSY)) => matches!(
            *here,
            Errno::ROFS
                | Errno::BUSY
                | Errno::NOTEMPTY
                | Errno::ISDIR
                | Errno::NOTDIR
                | Errno::EXIST
        ),
        (here, there) => here == there,
    }
}
