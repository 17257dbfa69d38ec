//! What the engine's coordinator is told.

use std::sync::Arc;

use super::core::{Failure, Look, Outcome};
use super::scan::Found;
use crate::workspace::JobId;

/// Something that happened.
#[derive(Debug)]
pub(super) enum Event {
    /// Something happened in a job, through the mount.
    Touched(JobId),
    /// A job was looked at.
    Looked(Arc<JobId>, Result<Look, Failure>),
    /// Jobs were stored in a folder, or not; all that it was given.
    Stored {
        folder: u8,
        results: Vec<(Arc<JobId>, Outcome)>,
    },
    /// The primary was compared with a folder.
    Scanned { folder: u8, found: Found },
    /// Jobs to look at again, though nothing says that they have changed.
    Routine(Vec<JobId>),
    /// Jobs that have been run again, or that a folder has without their marker. It is counted in `unheard`.
    Again(Vec<JobId>),
    /// The markers of all jobs have been compared with a folder's, after so many full looks had been asked for; what was found has
    /// been told of.
    Compared { folder: u8, wanted: u64 },
    /// All that waits is to be tried at once.
    Retry,
    /// The end.
    Stop,
}
