//! What an operation on jobs needs: the view, the processes that use it, progress, limits and options.

use std::path::PathBuf;
use std::time::Duration;

use crate::archive::job::opt_out::OptOuts;
use crate::transfer::{Bandwidth, Options, Progress, Selector};
use crate::view::View;
use crate::workspace::jobs::JobId;

/// Whether a file of a job is open for writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writing {
    /// No file is, through any mount that replied.
    No,
    /// At least one file is.
    Yes,
    /// The mount at this path does not reply, and may have one open.
    Unknown(PathBuf),
}

/// What archiving asks of the mounts of the primary, and reports to them.
pub trait Hooks: Send + Sync {
    /// Whether a file of the job in the primary is open for writing, or a program waits for the recovery of the job.
    fn writing(&self, job: &JobId) -> Writing;

    /// As [`Hooks::writing`], but programs that wait for the recovery do not count: the recovery itself asks.
    fn open_for_writing(&self, job: &JobId) -> Writing;

    /// Where the primary is mounted, as far as that is known.
    fn mountpoints(&self) -> Vec<PathBuf>;

    /// The path of the job in the primary leads to another directory, or to a symlink, from now on.
    fn moved(&self, job: &JobId);
}

/// For a workspace without mounts.
impl Hooks for () {
    fn writing(&self, _: &JobId) -> Writing {
        Writing::No
    }

    fn open_for_writing(&self, _: &JobId) -> Writing {
        Writing::No
    }

    fn mountpoints(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn moved(&self, _: &JobId) {}
}

/// The context in which jobs are archived and recovered.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    /// The workspace and its folders.
    pub view: &'a View,
    /// The mounts of the primary.
    pub hooks: &'a dyn Hooks,
    /// Counts files and bytes, and carries the request to cancel.
    pub progress: &'a Progress,
    /// The limit that all copies share.
    pub bandwidth: Option<&'a Bandwidth>,
    /// Which jobs are opted out: a move does not wait for a backup in a folder that excludes the job.
    pub out: Option<&'a OptOuts>,
    /// How long a job must be unchanged before it is archived.
    pub settle: Duration,
    /// How many jobs are worked on at the same time, and how many threads copy the files of a large one.
    pub threads: usize,
    /// Whether a copy in a folder is also replaced by one that holds less, or is older.
    pub force: bool,
}

impl Env<'_> {
    /// The options for reading or copying the selected entries of a tree, with the progress and the limits of this context.
    pub(super) fn options<'a>(&'a self, select: &'a Selector<'a>) -> Options<'a> {
        Options {
            select: Some(select),
            progress: Some(self.progress),
            bandwidth: self.bandwidth,
            threads: self.threads,
            ..Options::default()
        }
    }
}
