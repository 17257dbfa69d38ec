//! Defines a job that is due to be stored, and the outcome of storing a job.

use std::fmt;

use crate::transfer::Size;
use crate::workspace::jobs::JobId;

/// The outcome of storing a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// The job was copied.
    Copied {
        /// Files, including symlinks.
        files: u64,
        /// Bytes of files.
        bytes: u64,
    },
    /// The job was copied, and replaced an older copy.
    Replaced {
        /// Files, including symlinks.
        files: u64,
        /// Bytes of files.
        bytes: u64,
    },
    /// The folder already has an identical copy.
    Already,
    /// The job was skipped.
    Skipped(Skipped),
}

/// Why a job was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// The job is not a directory of the primary any more: it was moved or removed.
    Gone,
    /// The job does not have a marker of success any more.
    Unfinished,
    /// The folder's copy holds more, or is newer: the primary's was purged, or is an older state.
    Older,
    /// The primary has only what a purge has left of the job, and a folder has all of it.
    Purged,
    /// The job was recovered on request, and stays in the primary until it changes.
    Kept,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Skipped::Gone => "it is not in the primary any more",
            Skipped::Unfinished => "it is not finished any more",
            Skipped::Older => "the folder's copy holds more, or is newer",
            Skipped::Purged => "a purge has removed files of it, and the copy is whole",
            Skipped::Kept => "it was recovered, and stays until it changes",
        })
    }
}

/// A job that is due to be stored.
#[derive(Debug, Clone)]
pub struct Due {
    /// The job.
    pub job: JobId,
    /// The bytes that its files occupy on their disk, if known.
    pub taken: Option<u64>,
    /// The amount to copy, if known: for progress reports.
    pub size: Option<Size>,
}

impl From<JobId> for Due {
    fn from(job: JobId) -> Due {
        Due {
            job,
            taken: None,
            size: None,
        }
    }
}
