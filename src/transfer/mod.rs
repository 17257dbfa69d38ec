//! Copies a directory tree, hashes it, makes it durable, puts it in its place, and removes trees.
//!
//! - [`copy`]: one copy from its beginning to its end, and its result
//! - [`verify`]: reads a tree again, and compares it
//! - [`staging`]: the place of a growing copy, its lock, and the move to the final place
//! - [`remove_tree`]: removes a tree
//! - [`writers`]: finds open files of a tree, and checks whether the tree can be removed
//! - [`manifest`]: the content of a tree, in memory and in a file
//! - [`background`]: lowers the priority of threads
//! - [`select`], [`bandwidth`], [`progress`], [`durable`]: the caller's choices and queries
//! - [`error`], [`loss`]: why a copy stops, and the attributes that it could not keep
//!
//! The parts of a copy:
//!
//! - [`walk`]: goes through the source, with [`dir_stack`](crate::sys::dir_stack); [`crew`]: the threads
//! - [`work`]: the state that these share
//! - [`entry`]: one file, symlink or fifo; [`data`]: a file's bytes; [`holes`]: where the data is; [`digest`]: the
//!   hash; [`attributes`]: owner, mode, times and extended attributes; `access`: the mode where not all of these can be
//!   kept; [`originals`]: the times of restored files
//! - [`finish`]: hard links and directories; [`recheck`], [`stamp`]: whether the source has changed
//! - [`cache`]: the page cache; [`windows`]: its handling for each part of a large file
//!
//! `archive` and all other code that copies a tree call this module. The module calls `sys`, and `workspace` for
//! the names of jobs. A copy does not depend on stagings: the caller chooses its directory.
//! # Invariants
//!
//! - Every path is relative to descriptors from the caller, one name at a time, and no symlink is followed.
//! - Neither the depth of a tree nor the length of its paths is bounded by the stack, by descriptors, or by `PATH_MAX`.
//! - No lock is held over a system call.

mod alike;
pub mod background;
pub mod bandwidth;
pub mod durable;
pub mod manifest;
pub mod progress;
pub mod staging;

mod access;
mod attributes;
mod cache;
mod copy;
mod crew;
mod data;
mod digest;
mod entry;
mod error;
mod finish;
mod holes;
mod loss;
mod originals;
mod recheck;
mod remove;
mod select;
mod stamp;
mod verify;
mod walk;
mod windows;
mod work;
pub mod writers;

use std::ffi::OsStr;

pub use alike::unlike;
pub use bandwidth::Bandwidth;
pub use copy::{Copied, copy, read};
pub use durable::{Durability, Writeback};
pub(crate) use error::SYMLINK;
pub use error::{Error, Result, Side};
pub use loss::{Loss, Lost};
pub use manifest::{Difference, Entry, Hash, Kind, Manifest, ReadError, Time, What};
pub use originals::Originals;
pub use progress::{Progress, Size};
pub use remove::remove_tree;
pub use select::{Candidate, Select};
pub use verify::{Survey, outline, scan, survey, verify};

/// The default number of threads of a copy.
const THREADS: usize = 4;

/// The options for copying or reading a tree.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Which entries are copied; `None` means all.
    pub select: Option<&'a Select<'a>>,
    /// The name of an entry at the top, not a directory, that is written after all other files: the marker that the
    /// copy is complete.
    pub last: Option<&'a OsStr>,
    /// Where the copy counts its progress, and checks whether it was cancelled.
    pub progress: Option<&'a Progress>,
    /// The limit on the bytes per second, shared by all copies with the same limit.
    pub bandwidth: Option<&'a Bandwidth>,
    /// When the copy is durable.
    pub durability: Durability<'a>,
    /// For a copy that is restored from an archive: the original times. Entries that are the same as their original get
    /// its time of change, and are marked as accessed now. Any other copy gets both times from its source.
    pub originals: Option<&'a Originals>,
    /// The maximum number of threads that read and write. The caller's thread copies a tree of few files alone.
    pub threads: usize,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            select: None,
            last: None,
            progress: None,
            bandwidth: None,
            durability: Durability::Now,
            originals: None,
            threads: THREADS,
        }
    }
}
