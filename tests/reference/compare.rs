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
            worker.join().unwrap_or_else(|_| Err("panicked".to_owned()))
        })
    });
    let result = result.and_then(|()| match stage.differences_beneath() {
        Some(difference) => Err(format!("at the end there is {difference}")),
        None => Ok(()),
    });
    result.map_err(|error| format!("{error}\n{}", stage.log()))
}

/// Nothing, or what was not the same.
pub(crate) type Outcome = std::result::Result<(), String>;

fn compare(sequence: &[Operation], mount: &Path, plain: &Path, who: Who) -> Outcome {
    thread::own_umask().map_err(|error| error.to_string())?;
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
        Some(difference) => Err(format!("at the end there is in the mount {difference}")),
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
        let here = mount.perform(operation);
        let there = plain.perform(operation);
        if !same(&here, &there) {
            return Err(format!(
                "operation {number} differs, {operation:?}:\nthe mount gives {here:?}\nthe disk gives  {there:?}"
            ));
        }
    }
    Ok(())
}

/// Whether two results are the same, as far as a mount of several disks can be like one.
fn same(mount: &Result<String>, plain: &Result<String>) -> bool {
    match (mount, plain) {
        // A bind mount is another device, and read-only, before anything is looked up in it.
        (Err(_), Err(Errno::XDEV | Errno::ROFS)) => true,
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
