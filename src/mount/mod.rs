//! Serves a view to the kernel: receives FUSE requests and answers them from the view.
//!
//! A request comes in at the top of this list, and calls downwards; the result returns to `deferred`, which sends it:
//!
//! - [`serve`]: starts the threads and the loop
//! - [`fuse`]: implements fuser's trait, and does nothing else; [`capabilities`]: what is agreed with the kernel
//! - [`deferred`]: runs each operation, at once or in another thread, and sends its reply; [`threads`]: the threads for
//!   operations that wait; [`timeouts`]: how long they wait for a folder
//! - [`replies`]: sends results to the kernel; [`list_replies`]: those of listings
//! - [`lock_waiter`]: requests that wait for locks; [`interrupts`]: signals of the callers of waiting requests;
//!   [`open_limit`]: opens that wait for other files to be closed
//! - [`ops`]: the operations, one file per group
//! - [`recovery`]: requests that wait until an archived job is recovered
//! - [`copy_up`]: where a change to an archived job is made, and whether it is permitted
//! - [`find`]: finds a name in a directory of the view; [`locate`]: from a node to the directory and the name where it lies; [`renamed_dirs`]: directories that other
//!   processes rename
//! - [`caller`]: umask, ownership and rights of the calling process
//! - [`attributes`]: from `statx` and `errno` to what the kernel expects
//! - [`handover`]: what a mount leaves to the process that serves it next; each change is made within `handover::intents`, so that the next
//!   process does not make it again
//! - [`state`]: all that a mount consists of; [`tables`]: what it keeps in memory
//!
//! StagingContext the requests:
//!
//! - [`handle`]: what others may ask of a mount and report to it; [`moved_jobs`]: jobs that other processes move;
//!   [`recovered_jobs`]: makes the nodes of an archived job stand for the recovered one
//! - [`activity`]: reports of altered jobs to the archiver
//! - [`mapped_files`]: open files that other processes change
//! - [`readahead`]: reads jobs before they are requested
//!
//! Called by `daemon` and, for what `status` shows of recoveries, by `cli`; calls `archive` and the rooms below it. What the daemon does
//! for a mount (receive reports, recover jobs) it gives to the mount as traits: [`recovery::Recover`] is implemented in `daemon::archiving`.
//! Many files extend `Mount` by methods, whose calls name no file: the order of the list above is kept by hand.
//!
//! # Invariants
//!
//! - A node is the identity of its file: device, inode and time of birth. Hard links are one node, a job that is served
//!   from another location gets new nodes by itself (but the directories of a recovered job keep theirs), and an inode number that the disk reuses is distinguished by its
//!   generation.
//! - A node knows its parent and its name and holds no descriptor. It is found by opening its directory (from a
//!   bounded cache) and looking the name up; the file found there is compared with the identity. If they differ, the
//!   request fails with `ESTALE`, and the kernel looks the path up again. No concurrent renaming by other processes can
//!   lead out of a location.
//! - No lock is held over a system call that can block on a disk.

mod activity;
mod attributes;
mod caller;
mod capabilities;
mod copy_up;
mod deferred;
mod find;
mod fuse;
mod handle;
mod handover;
mod interrupts;
mod list_replies;
mod locate;
mod lock_waiter;
mod mapped_files;
mod moved_jobs;
mod open_limit;
mod ops;
mod readahead;
mod recovered_jobs;
mod recovery;
mod renamed_dirs;
mod replies;
mod serve;
mod state;
mod tables;
#[cfg(test)]
mod testing;
mod threads;
mod timeouts;

pub use activity::Activity;
pub use handle::{Counts, Handle};
pub use handover::connection::{Agreed, Connection};
pub use handover::recorder::{Keeper, KeptFile};
pub use handover::restore::Inheritance;
pub use recovery::{Recover, RunningRecovery};
pub use serve::Serving;
pub use state::{Mount, MountOptions};
