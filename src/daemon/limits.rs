//! Raises the limits of the process (`ulimit`), and refuses to mount where they are below what a mount needs.
//!
//! Below them a mount starts, and then fails every request, ends, or waits for memory that it never gets.

use std::thread::Builder;

use parking_lot::RwLock;
use rustix::process::{Resource, getrlimit, setrlimit};

/// The stack of a thread that only waits.
const STACK: usize = 64 << 10;

/// The descriptors of a mount without folders: for its own threads and sockets, the cache of directories at its smallest, and
/// as many open files.
const DESCRIPTORS: u64 = 256;

/// The descriptors that each folder adds.
const DESCRIPTORS_OF_FOLDER: u64 = 8;

/// The address space of a mount that archives: 1.1 GiB were measured with 31 threads, most of it never touched (stacks,
/// and what the allocator reserves for each thread).
const ADDRESS_SPACE: u64 = 2 << 30;

/// The part of it that is allocated.
const DATA: u64 = 512 << 20;

/// The threads and processes of a mount without folders: 29 threads were measured in a mount with one folder that archives, some more on a busy
/// machine, and `fusermount3` and the process that waits for the mount are to start as well.
const THREADS: usize = 44;

/// The threads that each folder adds: two that watch it, and one each that records its jobs, scans it, compares its markers, copies jobs
/// or runs to it, looks for moved jobs that it lacks, and keeps its trash in order.
const THREADS_OF_FOLDER: usize = 8;

/// Raises the soft limit of open files to the hard one: every file that is open in the mount is open here.
pub fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// A limit that is too low.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLow {
    /// Of open files.
    #[error(
        "at most {limit} files may be open (`ulimit -Hn`), and this mount needs {needed}: ask the administrator to raise `nofile` in \
         /etc/security/limits.conf, or set LimitNOFILE={needed} in the service that mounts"
    )]
    Descriptors {
        /// The hard limit.
        limit: u64,
        /// What is needed.
        needed: u64,
    },
    /// Of processes and threads.
    #[error(
        "only {possible} threads can be started, and this mount needs {needed}: end other processes of this user, or raise the limit \
         (`ulimit -u`; `nproc` in /etc/security/limits.conf, TasksMax in a service)"
    )]
    Threads {
        /// How many can be started now.
        possible: usize,
        /// What is needed.
        needed: usize,
    },
    /// Of memory.
    #[error(
        "{what} is limited to {} MiB (`ulimit {option}`), and a mount needs {} MiB: mount from a shell without this limit \
         (`ulimit {option} unlimited`), or ask the administrator to raise it", limit >> 20, needed >> 20
    )]
    Memory {
        /// What is limited.
        what: &'static str,
        /// The option of `ulimit`.
        option: &'static str,
        /// The limit in bytes.
        limit: u64,
        /// What is needed in bytes.
        needed: u64,
    },
}

/// Makes sure that the limits let a mount with so many folders work.
///
/// # Errors
///
/// The first limit that does not.
pub fn check(folders: usize) -> Result<(), TooLow> {
    let needed = DESCRIPTORS.saturating_add(DESCRIPTORS_OF_FOLDER.saturating_mul(folders as u64));
    // The soft limit is raised to the hard one.
    match getrlimit(Resource::Nofile).maximum {
        Some(limit) if limit < needed => return Err(TooLow::Descriptors { limit, needed }),
        _ => {}
    }
    check_memory()?;
    check_threads(threads(folders))
}

/// How many threads and processes a mount with so many folders needs.
#[must_use]
pub fn threads(folders: usize) -> usize {
    THREADS.saturating_add(THREADS_OF_FOLDER.saturating_mul(folders))
}

/// Makes sure that the limits let the settings be read. How many descriptors a mount needs is known only after that.
///
/// # Errors
///
/// The first limit that does not.
pub fn check_start() -> Result<(), TooLow> {
    check_memory()?;
    check_threads(THREADS)
}

fn check_memory() -> Result<(), TooLow> {
    let memory = [
        (Resource::As, "the address space", "-v", ADDRESS_SPACE),
        (Resource::Data, "the memory for data", "-d", DATA),
    ];
    for (resource, what, option, needed) in memory {
        match getrlimit(resource).current {
            Some(limit) if limit < needed => {
                return Err(TooLow::Memory {
                    what,
                    option,
                    limit,
                    needed,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes sure that `needed` threads can be started now, by starting them: the limits (of the user's processes, of the control
/// group) also count other processes, so their values are not enough.
fn check_threads(needed: usize) -> Result<(), TooLow> {
    let gate = RwLock::new(());
    let closed = gate.write();
    let possible = std::thread::scope(|scope| {
        let start = |_: &usize| {
            let thread = Builder::new().stack_size(STACK);
            thread.spawn_scoped(scope, || drop(gate.read())).is_ok()
        };
        let possible = (0..needed).take_while(start).count();
        drop(closed);
        possible
    });
    match possible < needed {
        true => Err(TooLow::Threads { possible, needed }),
        false => Ok(()),
    }
}
