//! Copy on complete: finished jobs are archived in folders, and brought back from them.
//!
//! - [`ready`]: whether a job is finished and settled; [`opt_out`]: whether it is to be archived at all
//!   (`run_tags`, `opt_out_records`: by its tag); `transient`: whether its plan may still remove it
//! - [`store`]: jobs are copied to a folder, durably, and appear there whole or not at all
//!   (`groups`: many of them, a group at a time)
//! - `backups`: whether the `backup` folders have what is to be moved
//! - [`swap`]: a job that has been moved gives way to a symlink; [`retire`]: what becomes of its old directory
//! - [`recover`]: a job is brought back from a folder; [`lost`]: which the primary has lost
//! - [`verify`]: an archived copy is read again, and compared; [`remedy`]: which command makes it anew; `renew`: does so for a moved job
//! - [`engine`]: all that by itself, in the background: what finishes is found, queued and tried again
//! - [`leftovers`]: what a crash left in the primary; [`folder_leftovers`]: and in a folder
//! - [`manifests`]: the record of each archived copy, in its folder
//! - [`compare`]: which of two copies of a job is to be kept; [`select`]: what of a job is copied
//! - [`places`]: the directories of jobs and tasks in locations; [`apart`]: whether they are a folder's own
//! - [`state_dir`]: what archiving remembers in the primary
//! - [`error`]: what went wrong, and whom it concerns; [`obstacle`]: what is in the way of a directory;
//!   `rights`: which are missing; `space`: whether there is enough
//!
//! `mount` and the commands call this room; it calls `view` and `transfer`, and what lies below.
//!
//! # Invariants
//!
//! - Every location is reached from descriptors, never by its path: in place, the primary's path leads into our own mount.
//! - Any number of processes, on any number of machines, may work on the same folders: what is made, replaced or taken away
//!   in a task's directory is guarded by the lock of its staging, as in experimaestro's `folders.py`.
//! - An archived copy is never edited in place, and never gives way to less than it holds.

pub mod apart;
mod backups;
pub mod by_hand;
pub mod compare;
pub mod engine;
pub mod error;
pub mod folder_leftovers;
mod groups;
pub mod leftovers;
pub mod lost;
pub mod manifests;
pub mod obstacle;
pub mod opt_out;
mod opt_out_records;
pub mod places;
pub mod ready;
pub mod recover;
pub mod remedy;
mod renew;
pub mod retire;
mod rights;
mod run_tags;
pub mod select;
mod space;
pub mod state_dir;
pub mod store;
mod swap;
mod transient;
pub mod verify;

use std::path::PathBuf;
use std::time::Duration;

pub use error::{Error, Result, Scope};
pub use opt_out::{OptOut, OptOuts};
pub use ready::Readiness;
pub use recover::Recovered;
pub use retire::Retired;
pub use store::{Left, Stored};

use crate::transfer::{Bandwidth, Progress};
use crate::view::View;
use crate::workspace::jobs::JobId;

/// Whether a file of a job is open for writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writing {
    /// None is, through any mount that was asked.
    No,
    /// One is.
    Yes,
    /// The mount at this path does not answer, and may have one open.
    Unknown(PathBuf),
}

/// What whoever serves the primary can tell, and wants to be told.
pub trait Hooks: Send + Sync {
    /// Whether a file of the job in the primary is open for writing.
    fn writing(&self, job: &JobId) -> Writing;

    /// What leads to the job in the primary is another directory, or a symlink, from now on.
    fn moved(&self, job: &JobId);
}

/// For who serves nothing.
impl Hooks for () {
    fn writing(&self, _: &JobId) -> Writing {
        Writing::No
    }

    fn moved(&self, _: &JobId) {}
}

/// With what jobs are archived and recovered.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    /// The workspace and its folders.
    pub view: &'a View,
    /// Who serves it.
    pub hooks: &'a dyn Hooks,
    /// Where files and bytes are counted, and whether to go on is asked.
    pub progress: &'a Progress,
    /// The limit that copies share.
    pub bandwidth: Option<&'a Bandwidth>,
    /// Directories of moved jobs, until they are removed.
    pub retired: &'a Retired,
    /// Which jobs are opted out, for whoever moves them: a folder that a job is excluded from need not have it.
    pub out: Option<&'a OptOuts>,
    /// How long nothing in a job may have changed before it is archived.
    pub settle: Duration,
    /// How many jobs are worked on at the same time, and how many threads copy the files of a large one.
    pub threads: usize,
    /// Whether a copy in a folder gives way also to one that holds less, or is older.
    pub force: bool,
}
