//! Copies a directory tree, hashes it, makes it durable, puts it in its place, and removes trees.
//!
//! - `copy`: one copy from its beginning to its end ([`copy()`]); reads a tree again and compares it ([`verify()`])
//! - [`options`]: what the caller chooses for a copy: which entries, how durable, how fast
//! - [`attributes`]: owner, mode, times and extended attributes, and those that a copy could not keep
//! - [`manifest`]: the content of a tree, in memory and in a file
//! - [`staging`]: the place of a growing copy, its lock, and the move to the final place
//! - `remove`: removes a tree ([`remove_tree`])
//! - [`writers`]: finds open files of a tree, and checks whether the tree can be removed
//! - [`bandwidth`], [`progress`], [`durable`]: limits, counts and syncs
//! - [`stamp`]: detects changes of an entry; [`error`]: why a copy stops
//!
//! What a caller may learn of a tree without a copy of it:
//!
//! | function | reads files | returns | fails if the tree changes meanwhile |
//! | --- | --- | --- | --- |
//! | [`measure()`] | no | size, newest time | no |
//! | [`outline`] | no | the manifest, without hashes | no |
//! | [`observe`] | no | as `outline`, and what a later check for changes needs ([`Copied::unchanged`]) | no |
//! | [`scan`] | yes | the manifest | no |
//! | [`read`] | yes | as `observe`, with hashes | yes |
//! | [`verify()`] | from the disk | the differences from a manifest | no |
//!
//! Called by `archive`, `mount`, `remote`, `daemon` and `cli`; calls `sys`, and `workspace` for the names of jobs. A copy does not depend on stagings: the caller chooses its directory.
//!
//! # Invariants
//!
//! - Every path is relative to descriptors from the caller, one name at a time, and no symlink is followed.
//! - Neither the depth of a tree nor the length of its paths is bounded by the stack, by descriptors, or by `PATH_MAX`.
//! - No mutex is held over a system call.

pub mod bandwidth;
pub mod durable;
pub mod manifest;
pub mod progress;
pub mod staging;
pub mod writers;

mod attributes;
mod copy;
mod error;
mod options;
mod remove;
mod stamp;

pub use attributes::{Loss, Lost, first_difference};
pub use bandwidth::Bandwidth;
pub use copy::verify::{Measured, measure, outline, scan, verify};
pub use copy::{Copied, copy, observe, read};
pub use durable::{Durability, Writeback};
pub(crate) use error::SYMLINK;
pub use error::{Error, Result, Side};
pub use manifest::{Difference, Entry, Hash, Kind, Manifest, ReadError, Time, What};
pub use options::{Candidate, Options, Originals, Selector};
pub use progress::{Progress, Size};
pub use remove::remove_tree;
