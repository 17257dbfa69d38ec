//! What the engine has others do: to see whether a job may be archived, and to archive it.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use crate::archive::store::Due;
use crate::transfer::{Progress, Size};
use crate::workspace::JobId;

/// What one look at a job, or one copy of it, takes. All of it waits for disks.
pub(super) trait Core: Send + Sync + 'static {
    /// Whether a folder's directory is there, as far as is known: this waits for no disk.
    fn is_there(&self, folder: u8) -> bool;
    /// Whether a job may be archived now.
    fn look(&self, job: &JobId, progress: &Progress) -> Result<Look, Failure>;
    /// Brings jobs to a folder; one outcome per job, in order.
    fn store(&self, folder: u8, jobs: &[Due], progress: &Progress) -> Vec<Outcome>;
    /// Clears a task's directory in the primary of what the dead have left there.
    fn clear(&self, task: &OsStr);
    /// Puts in order what the dead have left in a folder; returns the jobs whose copies were found damaged, and are to be made anew.
    fn clear_folder(&self, folder: u8, progress: &Progress) -> Vec<JobId>;
    /// Removes old directories of moved jobs that are due, and gives when the next is; with `last`, waits for all.
    fn tidy(&self, last: bool) -> Option<Instant>;
    /// Whether there are no such directories, and nobody is to be told of a job that came back from one.
    fn is_tidy(&self) -> bool;
    /// Tells of the jobs that came back since this was called last: what was written into their old directories is not
    /// archived yet.
    fn tell_back(&self, tell: &mut dyn FnMut(JobId));
}

/// What became of one job in one folder.
pub(super) type Outcome = Result<Done, Failure>;

/// What a look at a job says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// It may be archived; there is so much to copy.
    Ready(Size),
    /// It changed a moment ago: look again after this.
    Settling(Duration),
    /// It is finished, but somebody is at it: who.
    Busy(String),
    /// There is nothing to do, until something changes: it is not finished, has failed, is not there, has been moved, or
    /// is not to be archived.
    Nothing,
}

/// What was done with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// It has been copied.
    Stored {
        /// Files of it.
        files: u64,
        /// Bytes of them.
        bytes: u64,
    },
    /// The folder has it, and it is the same.
    Already,
    /// It is not to be archived now, after all.
    Left,
}

/// Why a job could not be looked at or archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Whom it concerns.
    pub(super) whom: Whom,
    /// Why, for a person.
    pub(super) why: String,
}

/// Whom a failure concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// All jobs of the folder.
    Folder,
    /// This job.
    Job,
    /// This job, as long as somebody is at it.
    Passing,
    /// This job, which other folders have to be given first: they have an older state of it, or lost it.
    Again,
    /// Nobody: we are to end.
    Cancelled,
}
