//! Which jobs are to be stored, and what becomes of each.

use std::fmt;

use crate::transfer::Size;
use crate::workspace::jobs::JobId;

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It was copied.
    Copied {
        /// Files, symlinks among them.
        files: u64,
        /// Bytes of files.
        bytes: u64,
    },
    /// It was copied, in place of an older copy.
    Replaced {
        /// Files, symlinks among them.
        files: u64,
        /// Bytes of files.
        bytes: u64,
    },
    /// The folder has it already, the same.
    Already,
    /// It was left as it is.
    Left(Left),
}

/// Why a job was left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It is no directory of the primary any more: it has been moved, or removed.
    Gone,
    /// It has no marker of success any more.
    Unfinished,
    /// The folder's copy holds more, or is newer: the primary's was purged, or is an older state.
    Older,
    /// It has been recovered by hand, and stays in the primary until it changes.
    Kept,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Left::Gone => "it is not in the primary any more",
            Left::Unfinished => "it is not finished any more",
            Left::Older => "the folder's copy holds more, or is newer",
            Left::Kept => "it was recovered, and stays until it changes",
        })
    }
}

/// A job that is to be stored.
#[derive(Debug, Clone)]
pub struct Due {
    /// Which.
    pub job: JobId,
    /// How many bytes its files take on their disk, if that has been looked up.
    pub taken: Option<u64>,
    /// How much there is to copy, if that is known: for whoever watches.
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
