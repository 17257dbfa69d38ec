//! The engine's interface to the disks: checks whether a job may be archived, and archives it.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use crate::archive::store::Due;
use crate::transfer::{Progress, Size};
use crate::workspace::JobId;

/// The operations on jobs and folders. They wait for disks, unless noted otherwise.
pub(super) trait Core: Send + Sync + 'static {
    /// Whether a folder's directory is there, by the cached state: this waits for no disk.
    fn is_there(&self, folder: u8) -> bool;
    /// Whether a job may be archived now.
    fn look(&self, job: &JobId, progress: &Progress) -> Result<Look, Failure>;
    /// Copies jobs to a folder; returns one outcome per job, in order.
    fn store(&self, folder: u8, jobs: &[Due], progress: &Progress) -> Vec<Outcome>;
    /// Removes from a task's directory in the primary the leftovers of processes that died.
    fn clear(&self, task: &OsStr);
    /// Cleans up the leftovers of dead processes in a folder; returns the jobs whose copies are damaged and must be
    /// made anew.
    fn clear_folder(&self, folder: u8, progress: &Progress) -> Vec<JobId>;
    /// Removes the old directories of moved jobs that are due, and returns when the next is due; with `last`, waits for
    /// all.
    fn tidy(&self, last: bool) -> Option<Instant>;
    /// Whether no such directory is left, and no job that came back from one is still to be reported.
    fn is_tidy(&self) -> bool;
    /// Calls `tell` for each job that came back since the last call: the data that was written into its old directory
    /// is not archived yet.
    fn tell_back(&self, tell: &mut dyn FnMut(JobId));
}

/// The result of storing one job in one folder.
pub(super) type Outcome = Result<Done, Failure>;

/// The result of a look at a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// It may be archived; there is so much to copy.
    Ready(Size),
    /// It changed a moment ago: look again after this time.
    Settling(Duration),
    /// It is finished, but still in use; the text states how.
    Busy(String),
    /// Nothing to do until the job changes: it is unfinished, failed, missing, moved, or not to be archived.
    Nothing,
}

/// How a job was handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// It has been copied.
    Stored {
        /// The number of its files.
        files: u64,
        /// The bytes of these files.
        bytes: u64,
    },
    /// The folder already has the same copy.
    Already,
    /// It must not be archived now, after all.
    Left,
}

/// Why a job could not be looked at or archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Which jobs it concerns.
    pub(super) whom: Whom,
    /// Why, for a person.
    pub(super) why: String,
}

/// Which jobs a failure concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// All jobs of the folder.
    Folder,
    /// This job.
    Job,
    /// This job, as long as a process uses it.
    Passing,
    /// This job, which must go to other folders first: they have an older state of it, or lost it.
    Again,
    /// None: the engine is stopping.
    Cancelled,
}
