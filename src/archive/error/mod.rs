//! The error of one job: which operation failed, on which path, and why.
//!
//! - `scope`: which jobs an error affects, and when they are tried again; `advice`: what a person can do about it
//!
//! Operations add the job, the operation and the path to the errors of the rooms below ([`Context`], [`CopyContext`], [`StagingContext`]).

mod advice;
mod scope;

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::archive::obstacle::Obstacle;
use crate::transfer::{self, staging};
use crate::view::location::explain;
use crate::workspace::jobs::JobId;

pub use self::advice::Access;
pub use self::scope::Scope;

/// A result about one job.
pub type Result<T> = std::result::Result<T, JobError>;

/// The error of one job.
#[derive(Debug, thiserror::Error)]
#[error("{job}: {cause}")]
pub struct JobError {
    /// The job.
    pub job: JobId,
    // Part of the message, and therefore not a `source`: a caller that prints the chain would print it twice.
    /// What went wrong.
    pub cause: Box<Cause>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// A system call in a location failed.
    #[error("cannot {operation} {}: {}", path.display(), in_words(cause))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
    /// Copying failed.
    #[error("{}: {error}", path.display())]
    Transfer {
        /// The directory that was written to, or read if nothing was written.
        path: PathBuf,
        /// What failed.
        error: transfer::Error,
    },
    /// The lock on a job's name could not be taken, or was lost.
    #[error("{}: {error}", path.display())]
    Staging {
        /// The job's directory.
        path: PathBuf,
        /// What failed.
        error: staging::StagingError,
    },
    /// Another process uses the job: try again soon.
    #[error("{0}")]
    Busy(Cow<'static, str>),
    /// The source changed meanwhile.
    #[error("{0}")]
    Changed(String),
    /// The job or the folder does not exist.
    #[error("{0}")]
    Absent(String),
    /// Refused, since data could be lost.
    #[error("{0}")]
    Unsafe(String),
    /// A file or symlink is in the place of a directory.
    #[error("{0}")]
    Obstacle(Obstacle),
    /// A folder cannot be used.
    #[error("{}: {why}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        why: String,
    },
    /// A folder cannot be opened.
    #[error("cannot open {}: {}", folder.display(), explain(*errno))]
    FolderIo {
        /// The folder.
        folder: PathBuf,
        /// The error of the system.
        errno: Errno,
    },
    /// A location has too little space.
    #[error("{}: {why}", path.display())]
    NoSpace {
        /// The location.
        path: PathBuf,
        /// How much is needed and free.
        why: String,
    },
    /// The job is not moved, since a `backup` folder does not have it in its current state.
    #[error("it is not moved before {} has it as it is: {why}", folder.display())]
    NoBackup {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        why: String,
    },
    /// The operation was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl JobError {
    pub(super) fn new(job: &JobId, cause: Cause) -> JobError {
        JobError {
            job: job.clone(),
            cause: Box::new(cause),
        }
    }

    /// Whether the job changed during the operation.
    pub(super) fn is_changed(&self) -> bool {
        matches!(&*self.cause, Cause::Changed(_))
    }

    /// The error number for a program that waits for the operation.
    #[must_use]
    pub fn for_program(&self) -> Errno {
        match &*self.cause {
            Cause::Cancelled => Errno::INTR,
            Cause::NoSpace { .. } => Errno::NOSPC,
            Cause::Busy(_) | Cause::Changed(_) => Errno::BUSY,
            _ => self.errno().unwrap_or(Errno::IO),
        }
    }

    /// The error number, if a system call failed.
    pub(super) fn errno(&self) -> Option<Errno> {
        self.cause.errno()
    }
}

impl Cause {
    /// A system call on a path failed.
    pub(super) fn io(operation: &'static str, path: &Path, error: impl Into<io::Error>) -> Cause {
        Cause::Io {
            operation,
            path: path.to_owned(),
            cause: error.into(),
        }
    }

    /// A copy failed; `path` is the directory that was read or written.
    pub(super) fn transfer(path: &Path, error: transfer::Error) -> Cause {
        match error {
            transfer::Error::Cancelled => Cause::Cancelled,
            error => Cause::Transfer {
                path: path.to_owned(),
                error,
            },
        }
    }

    /// A copy from one directory to another failed.
    pub(super) fn transfer_between(from: &Path, to: &Path, error: transfer::Error) -> Cause {
        let of_copy = matches!(
            &error,
            transfer::Error::Io {
                side: transfer::Side::Copy,
                ..
            }
        );
        Cause::transfer(if of_copy { to } else { from }, error)
    }

    /// A staging failed; `path` is the entry that it is for.
    pub(super) fn staging(path: &Path, error: staging::StagingError) -> Cause {
        Cause::Staging {
            path: path.to_owned(),
            error,
        }
    }

    /// The error number, if a system call failed.
    pub(super) fn errno(&self) -> Option<Errno> {
        let error = match self {
            Cause::FolderIo { errno, .. } => return Some(*errno),
            Cause::Io { cause, .. } => cause,
            Cause::Transfer { error, .. } => error.io()?,
            Cause::Staging { error, .. } => error.io()?,
            _ => return None,
        };
        Errno::from_io_error(error)
    }
}

/// An error of the system in words ([`explain`]).
pub(super) fn in_words(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(errno) => explain(errno),
        None => error.to_string(),
    }
}

/// Adds the operation and the path to an I/O error.
pub(super) trait Context<T> {
    fn tried(self, job: &JobId, operation: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn tried(self, job: &JobId, operation: &'static str, path: &Path) -> Result<T> {
        self.map_err(|error| JobError::new(job, Cause::io(operation, path, error)))
    }
}

/// Adds the directory that was read or written to an error of `transfer`.
pub(super) trait CopyContext<T> {
    fn copying(self, job: &JobId, path: &Path) -> Result<T>;

    /// For a copy from one directory to another: adds the one that the error is about.
    fn copying_between(self, job: &JobId, from: &Path, to: &Path) -> Result<T>;
}

impl<T> CopyContext<T> for transfer::Result<T> {
    fn copying_between(self, job: &JobId, from: &Path, to: &Path) -> Result<T> {
        self.map_err(|error| JobError::new(job, Cause::transfer_between(from, to, error)))
    }

    fn copying(self, job: &JobId, path: &Path) -> Result<T> {
        self.map_err(|error| JobError::new(job, Cause::transfer(path, error)))
    }
}

/// Adds the job's directory to an error of `staging`.
pub(super) trait StagingContext<T> {
    fn beside(self, job: &JobId, path: &Path) -> Result<T>;
}

impl<T> StagingContext<T> for staging::Result<T> {
    fn beside(self, job: &JobId, path: &Path) -> Result<T> {
        self.map_err(|error| JobError::new(job, Cause::staging(path, error)))
    }
}
