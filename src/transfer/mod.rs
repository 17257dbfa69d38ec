//! How bytes move: a directory tree is copied, hashed on the way, made durable, put in its place, and removed.
//!
//! - [`copy`]: one copy from its beginning to its end, and what it gives back
//! - [`verify`]: reading a tree again, and comparing it
//! - [`staging`]: where a copy grows, who may make one, and how it gets to its place
//! - [`remove_tree`]: taking a tree away
//! - [`writers`]: who has files of a tree open, and whether it can be removed
//! - [`manifest`]: what a tree holds, in memory and in a file
//! - [`background`]: giving way to others
//! - [`select`], [`bandwidth`], [`progress`], [`durable`]: what the caller decides, and asks
//! - [`error`], [`loss`]: what ends a copy, and what it goes on without
//!
//! How it is done:
//!
//! - [`walk`]: through the source; [`trail`]: up and down with few descriptors; [`crew`]: the threads
//! - [`work`]: what these share
//! - [`entry`]: one file, symlink or fifo; [`data`]: a file's bytes; [`holes`]: where they are; [`digest`]: their hash; [`attributes`]: all else about it;
//!   `access`: who may do what with it where not all of that can be kept; [`originals`]: times of what comes back
//! - [`finish`]: hard links and directories; [`recheck`], [`stamp`]: whether the source has changed
//! - [`cache`]: the page cache; [`windows`]: what is done for it with each part of a large file; [`sys`]: a system call
//!
//! `archive` calls this room, and whatever else copies a tree; it calls the system, and `workspace` for the names of jobs. A
//! copy knows nothing of stagings: which directory it is made in is the caller's affair.
//!
//! # Invariants
//!
//! - Everything is relative to descriptors that the caller gives, one name at a time, and no symlink is followed.
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

/// How many threads a copy has unless it is told.
const THREADS: usize = 4;

/// How a tree is copied or read.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Which entries are copied; all of them if there is nothing here.
    pub select: Option<&'a Select<'a>>,
    /// The name of an entry at the top, no directory, that is written when all other files are: the marker that says
    /// that all is there.
    pub last: Option<&'a OsStr>,
    /// Where the copy counts how far it is, and looks whether it is to end.
    pub progress: Option<&'a Progress>,
    /// How many bytes a second it may read, together with all others that share the limit.
    pub bandwidth: Option<&'a Bandwidth>,
    /// When the copy is durable.
    pub durability: Durability<'a>,
    /// Of a copy that comes back from an archive: what the originals were. Entries that are the same get their times of change, and have been accessed
    /// now; of any other copy, both times are those of what is copied.
    pub originals: Option<&'a Originals>,
    /// How many threads read and write at most. A tree of few files is copied by the caller's alone.
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
