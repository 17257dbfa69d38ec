//! The error of one job, and which jobs it affects.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::archive::obstacle::Obstacle;
use crate::transfer::{self, staging};
use crate::view::COVERED;
use crate::view::location::{OTHER_DISK, explain};
use crate::workspace::jobs::JobId;

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
    #[error("{}: {error}", place.display())]
    Transfer {
        /// The directory that was written to, or read if nothing was written.
        place: PathBuf,
        /// What failed.
        error: transfer::Error,
    },
    /// The lock on a job's name could not be taken, or was lost.
    #[error("{}: {error}", place.display())]
    Staging {
        /// The job's directory.
        place: PathBuf,
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
    #[error("{}: {why}", place.display())]
    NoSpace {
        /// The location.
        place: PathBuf,
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

/// A kind of access to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading a file, or listing a directory.
    Read,
    /// Creating, writing or removing an entry.
    Write,
}

/// Which jobs an error affects, and what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All jobs of the folder: it is full, read-only or missing.
    Folder,
    /// This job and larger ones, as long as the folder has too little space for it.
    Space,
    /// This job.
    Job,
    /// This job, as long as another process uses it, or it changes.
    Soon,
    /// This job, which must go to earlier folders first: they have an older state of it, or lost it.
    Again,
    /// None: the operation was cancelled.
    Cancelled,
}

impl JobError {
    pub(super) fn new(job: &JobId, cause: Cause) -> JobError {
        JobError {
            job: job.clone(),
            cause: Box::new(cause),
        }
    }

    /// Whether the operation was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.scope() == Scope::Cancelled
    }

    /// Whether the job changed during the operation.
    pub(super) fn is_changed(&self) -> bool {
        matches!(&*self.cause, Cause::Changed(_))
    }

    /// As [`Cause::advice`].
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        self.cause.advice()
    }

    /// Whether writing failed for want of a permission, or since the file system is read-only.
    pub(super) fn is_denied_writing(&self) -> bool {
        let denied = [Errno::ROFS, Errno::ACCESS, Errno::PERM];
        self.errno().is_some_and(|errno| denied.contains(&errno))
    }

    /// What can be done about it, for a daemon: it must not find out which permission is missing, since the path may lead into its own mount.
    pub(super) fn advice_of_daemon(&self) -> Option<String> {
        match self.errno()? {
            Errno::ACCESS | Errno::PERM => Some(format!(
                "`xpmfs jobs archive {}` shows which permission is missing, and who can grant it",
                self.job
            )),
            _ => self.advice().map(ToOwned::to_owned),
        }
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

    /// As [`Cause::denied`].
    #[must_use]
    pub fn denied(&self) -> Option<(PathBuf, Access)> {
        self.cause.denied()
    }

    /// As [`Cause::scope`].
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.cause.scope()
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

    /// A copy failed; `place` is the directory that was read or written.
    pub(super) fn transfer(place: &Path, error: transfer::Error) -> Cause {
        match error {
            transfer::Error::Cancelled => Cause::Cancelled,
            error => Cause::Transfer {
                place: place.to_owned(),
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

    /// A staging failed; `place` is the entry that it is for.
    pub(super) fn staging(place: &Path, error: staging::StagingError) -> Cause {
        Cause::Staging {
            place: place.to_owned(),
            error,
        }
    }

    /// The path and the kind of access that failed for want of a permission, if so.
    #[must_use]
    pub fn denied(&self) -> Option<(PathBuf, Access)> {
        let denied = matches!(self.errno()?, Errno::ACCESS | Errno::PERM);
        self.access().filter(|_| denied && self.advice().is_none())
    }

    /// The path and the kind of access of the system call that failed.
    fn access(&self) -> Option<(PathBuf, Access)> {
        const READ: [&str; 6] = [
            "open",
            "look at",
            "look into",
            "look up",
            "lock",
            "look at the lock of",
        ];
        Some(match self {
            Cause::Io {
                operation, path, ..
            } if READ.contains(operation) => (path.clone(), Access::Read),
            Cause::Io { path, .. } => (path.clone(), Access::Write),
            Cause::FolderIo { folder, .. } => (folder.clone(), Access::Read),
            Cause::Transfer { place, error } => {
                let path = match error.path()? {
                    top if top.as_os_str().is_empty() => place.clone(),
                    path => place.join(path),
                };
                match error {
                    transfer::Error::Io {
                        side: transfer::Side::Source,
                        ..
                    } => (path, Access::Read),
                    _ => (path, Access::Write),
                }
            }
            // Staging makes its entries beside the job.
            Cause::Staging { place, .. } => (place.clone(), Access::Write),
            _ => return None,
        })
    }

    /// What can be done about it, as a clause, unless a permission is missing or the message says it.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        Some(match self.errno()? {
            Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS if self.tried(transfer::SYMLINK) => {
                "its file system has no symlinks, it seems (vfat): use another"
            }
            Errno::NOSPC => "make room there and try again",
            Errno::DQUOT => "remove something there, or ask for a larger quota, and try again",
            Errno::ROFS => "mount it to be written, and try again",
            Errno::NOTDIR => {
                "a file is in the place of a directory on its path: move it away, and try again"
            }
            Errno::ISDIR => "a directory is in the place of a file: move it away, and try again",
            Errno::IO => "see the kernel's log (dmesg): the disk may be failing",
            Errno::STALE | Errno::NOTCONN | Errno::NODEV | Errno::NXIO => {
                "see whether its disk is mounted, and try again"
            }
            Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL if self.tried("lock") => {
                "its file system cannot lock files, without which nothing is archived there: mount it with locks, or use another"
            }
            _ => return None,
        })
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

    /// Whether this operation failed.
    fn tried(&self, what: &str) -> bool {
        match self {
            Cause::Io { operation, .. }
            | Cause::Transfer {
                error: transfer::Error::Io { operation, .. },
                ..
            }
            | Cause::Staging {
                error: staging::StagingError::Io { operation, .. },
                ..
            } => *operation == what,
            _ => false,
        }
    }

    /// Which jobs the error affects.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self {
            Cause::Io { cause, .. } => of_folder(cause),
            Cause::Transfer { error, .. } => match error {
                transfer::Error::Changed { .. } => Scope::Soon,
                transfer::Error::Cancelled => Scope::Cancelled,
                transfer::Error::Io {
                    side: transfer::Side::Copy,
                    cause,
                    ..
                } => of_folder(cause),
                _ => Scope::Job,
            },
            Cause::Staging {
                error:
                    staging::StagingError::Io {
                        operation: "lock", ..
                    },
                ..
            } => Scope::Folder,
            Cause::Staging { error, .. } => of_staging(error),
            Cause::Busy(_) | Cause::Changed(_) => Scope::Soon,
            Cause::NoBackup { .. } => Scope::Again,
            Cause::Folder { .. } | Cause::FolderIo { .. } => Scope::Folder,
            Cause::NoSpace { .. } => Scope::Space,
            Cause::Obstacle(obstacle) if obstacle.of_all => Scope::Folder,
            Cause::Absent(_) | Cause::Unsafe(_) | Cause::Obstacle(_) => Scope::Job,
            Cause::Cancelled => Scope::Cancelled,
        }
    }
}

/// An error of the system in words ([`explain`]).
pub(super) fn in_words(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(errno) => explain(errno),
        None => error.to_string(),
    }
}

/// Whether an error of a write affects the whole file system, and not only one file.
fn of_folder(error: &io::Error) -> Scope {
    match Errno::from_io_error(error) {
        Some(
            Errno::NOSPC
            | Errno::DQUOT
            | Errno::ROFS
            | Errno::IO
            | Errno::STALE
            | Errno::NODEV
            | Errno::NXIO
            | Errno::NOTCONN
            | Errno::TIMEDOUT
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NOMEM
            | Errno::MFILE
            | Errno::NFILE
            // The file system has no locks.
            | Errno::NOLCK
            | Errno::NOSYS
            | OTHER_DISK
            | COVERED,
        ) => Scope::Folder,
        _ => Scope::Job,
    }
}

fn of_staging(error: &staging::StagingError) -> Scope {
    match error {
        staging::StagingError::Lost { .. }
        | staging::StagingError::Exists { .. }
        | staging::StagingError::Replaced { .. } => Scope::Soon,
        error => error.io().map_or(Scope::Job, of_folder),
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
pub(super) trait InPlace<T> {
    fn copying(self, job: &JobId, place: &Path) -> Result<T>;

    /// For a copy from one directory to another: adds the one that the error is about.
    fn copying_between(self, job: &JobId, from: &Path, to: &Path) -> Result<T>;
}

impl<T> InPlace<T> for transfer::Result<T> {
    fn copying_between(self, job: &JobId, from: &Path, to: &Path) -> Result<T> {
        self.map_err(|error| JobError::new(job, Cause::transfer_between(from, to, error)))
    }

    fn copying(self, job: &JobId, place: &Path) -> Result<T> {
        self.map_err(|error| JobError::new(job, Cause::transfer(place, error)))
    }
}

/// Adds the job's directory to an error of `staging`.
pub(super) trait Beside<T> {
    fn beside(self, job: &JobId, place: &Path) -> Result<T>;
}

impl<T> Beside<T> for staging::Result<T> {
    fn beside(self, job: &JobId, place: &Path) -> Result<T> {
        self.map_err(|error| JobError::new(job, Cause::staging(place, error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_for_a_daemon_does_not_walk_the_path() {
        let job = JobId::new("my.module.train", "a").unwrap();
        for (errno, expected) in [
            (Errno::ROFS, "mount it to be written, and try again"),
            (
                Errno::ACCESS,
                "`xpmfs jobs archive my.module.train/a` shows which permission is missing, and who can grant it",
            ),
        ] {
            let cause = Cause::Io {
                operation: "open",
                path: "/folder/jobs/my.module.train/a".into(),
                cause: errno.into(),
            };
            let error = JobError::new(&job, cause);
            assert_eq!(error.advice_of_daemon().as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_file_system_without_locks_affects_all_jobs() {
        let job = JobId::new("my.module.train", "a").unwrap();
        for errno in [Errno::NOLCK, Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL] {
            let error = staging::StagingError::Io {
                operation: "lock",
                name: ".tmp.a.lock".into(),
                cause: errno.into(),
            };
            let place = PathBuf::from("/folder/jobs/my.module.train/a");
            let error = JobError::new(&job, Cause::Staging { place, error });
            assert_eq!(error.scope(), Scope::Folder);
            assert!(error.advice().unwrap().contains("cannot lock files"));
        }
    }
}
