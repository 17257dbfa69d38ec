//! Refuses to mount where the limits of the process (`ulimit`) are below what a mount needs.
//!
//! Below them a mount starts, and then fails every request, ends, or waits for memory that it never gets.

use rustix::process::{Resource, getrlimit};

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
