//! What went wrong with one job, and whom it concerns.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::archive::obstacle::Obstacle;
use crate::transfer::{self, staging};
use crate::workspace::jobs::JobId;

/// A result about one job.
pub type Result<T> = std::result::Result<T, JobError>;

/// What went wrong with one job.
#[derive(Debug, thiserror::Error)]
#[error("{job}: {cause}")]
pub struct JobError {
    /// The job.
    pub job: JobId,
    // Told in the message, and so no `source`: whoever prints a chain would print it twice.
    /// What went wrong.
    pub cause: Box<Cause>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The system refused something in a location.
    #[error("cannot {operation} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
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
    /// What guards a job's name could not be had, or was lost.
    #[error("{}: {error}", place.display())]
    Staging {
        /// The job's directory.
        place: PathBuf,
        /// What failed.
        error: staging::Error,
    },
    /// Somebody else is at it, and it may be tried again soon.
    #[error("{0}")]
    Busy(Cow<'static, str>),
    /// The source did not hold still.
    #[error("{0}")]
    Changed(String),
    /// Nothing of the kind is there.
    #[error("{0}")]
    Absent(String),
    /// It was refused, lest something be lost.
    #[error("{0}")]
    Unsafe(String),
    /// Something else is where a directory should be.
    #[error("{0}")]
    Obstacle(Obstacle),
    /// A folder cannot be used.
    #[error("{}: {why}", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why not.
        why: String,
    },
    /// A `backup` folder does not have it as it is now, and so it is not moved.
    #[error("it is not moved before {} has it as it is: {why}", folder.display())]
    NoBackup {
        /// Which.
        folder: PathBuf,
        /// Why not.
        why: String,
    },
    /// It was to end.
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

/// Whom an error concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The folder: it is full, read-only, gone, and no other job will do better.
    Folder,
    /// This job.
    Job,
    /// This job, which somebody else is at, or which changes.
    Soon,
    /// This job, in the folders that come before: it is to be archived there first.
    Again,
    /// Nobody: it was cancelled.
    Cancelled,
}

impl JobError {
    pub(super) fn new(job: &JobId, cause: Cause) -> JobError {
        JobError {
            job: job.clone(),
            cause: Box::new(cause),
        }
    }

    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.scope() == Scope::Cancelled
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
            Errno::IO => "the kernel's log (dmesg) tells more: the disk may be failing",
            Errno::STALE | Errno::NOTCONN | Errno::NODEV | Errno::NXIO => {
                "see whether its disk is mounted, and try again"
            }
            Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL if self.tried("lock") => {
                "its file system cannot lock files, without which nothing is archived there: mount it with locks, or use another"
            }
            _ => return None,
        })
    }

    /// Whether something cannot be written for want of a right, or since the file system is read-only.
    pub(super) fn is_denied_writing(&self) -> bool {
        let denied = [Errno::ROFS, Errno::ACCESS, Errno::PERM];
        self.errno().is_some_and(|errno| denied.contains(&errno))
    }

    /// What can be done about it, for a daemon: it must not find out which permission is missing, since the path may lead into its own mount.
    pub(super) fn advice_of_daemon(&self) -> Option<String> {
        match self.errno()? {
            Errno::ACCESS | Errno::PERM => Some(format!(
                "`xpmfs jobs archive {}` says which right is missing, and who can give it",
                self.job
            )),
            _ => self.advice().map(ToOwned::to_owned),
        }
    }

    /// The system's error, where it was the system that refused.
    pub(super) fn errno(&self) -> Option<Errno> {
        let error = match &*self.cause {
            Cause::Io { cause, .. } => cause,
            Cause::Transfer { error, .. } => error.io()?,
            Cause::Staging { error, .. } => error.io()?,
            _ => return None,
        };
        Errno::from_io_error(error)
    }

    /// Whether this is what failed.
    fn tried(&self, what: &str) -> bool {
        match &*self.cause {
            Cause::Io { operation, .. }
            | Cause::Transfer {
                error: transfer::Error::Io { operation, .. },
                ..
            }
            | Cause::Staging {
                error: staging::Error::Io { operation, .. },
                ..
            } => *operation == what,
            _ => false,
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
        Some(match &*self.cause {
            Cause::Io {
                operation, path, ..
            } if READ.contains(operation) => (path.clone(), Access::Read),
            Cause::Io { path, .. } => (path.clone(), Access::Write),
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
            // Beside the job.
            Cause::Staging { place, .. } => (place.clone(), Access::Write),
            _ => return None,
        })
    }

    /// Whom it concerns.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match &*self.cause {
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
                    staging::Error::Io {
                        operation: "lock", ..
                    },
                ..
            } => Scope::Folder,
            Cause::Staging { error, .. } => of_staging(error),
            Cause::Busy(_) | Cause::Changed(_) => Scope::Soon,
            Cause::NoBackup { .. } => Scope::Again,
            Cause::Folder { .. } => Scope::Folder,
            Cause::Obstacle(obstacle) if obstacle.of_all => Scope::Folder,
            Cause::Absent(_) | Cause::Unsafe(_) | Cause::Obstacle(_) => Scope::Job,
            Cause::Cancelled => Scope::Cancelled,
        }
    }
}

/// Whether an error of a write is the file system's, and not the one file's.
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
            // Its file system has no locks.
            | Errno::NOLCK
            | Errno::NOSYS,
        ) => Scope::Folder,
        _ => Scope::Job,
    }
}

fn of_staging(error: &staging::Error) -> Scope {
    match error {
        staging::Error::Lost { .. }
        | staging::Error::Exists { .. }
        | staging::Error::Replaced { .. } => Scope::Soon,
        error => error.io().map_or(Scope::Job, of_folder),
    }
}

/// Says what was tried, and with what.
pub(super) trait Context<T> {
    fn tried(self, job: &JobId, operation: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn tried(self, job: &JobId, operation: &'static str, path: &Path) -> Result<T> {
        self.map_err(|error| {
            let cause = Cause::Io {
                operation,
                path: path.to_owned(),
                cause: error.into(),
            };
            JobError::new(job, cause)
        })
    }
}

/// Says where something was copied to, or read.
pub(super) trait InPlace<T> {
    fn copying(self, job: &JobId, place: &Path) -> Result<T>;

    /// Of a copy from one directory to another: the error is about one of them.
    fn copying_between(self, job: &JobId, from: &Path, to: &Path) -> Result<T>;
}

impl<T> InPlace<T> for transfer::Result<T> {
    fn copying_between(self, job: &JobId, from: &Path, to: &Path) -> Result<T> {
        let of_copy = matches!(
            &self,
            Err(transfer::Error::Io {
                side: transfer::Side::Copy,
                ..
            })
        );
        self.copying(job, if of_copy { to } else { from })
    }

    fn copying(self, job: &JobId, place: &Path) -> Result<T> {
        self.map_err(|error| {
            let cause = match error {
                transfer::Error::Cancelled => Cause::Cancelled,
                error => Cause::Transfer {
                    place: place.to_owned(),
                    error,
                },
            };
            JobError::new(job, cause)
        })
    }
}

/// Says beside which job's directory something was staged.
pub(super) trait Beside<T> {
    fn beside(self, job: &JobId, place: &Path) -> Result<T>;
}

impl<T> Beside<T> for staging::Result<T> {
    fn beside(self, job: &JobId, place: &Path) -> Result<T> {
        self.map_err(|error| {
            let place = place.to_owned();
            JobError::new(job, Cause::Staging { place, error })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_says_what_to_do_without_walking_the_path() {
        let job = JobId::new("my.module.train", "a").unwrap();
        for (errno, expected) in [
            (Errno::ROFS, "mount it to be written, and try again"),
            (
                Errno::ACCESS,
                "`xpmfs jobs archive my.module.train/a` says which right is missing, and who can give it",
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
    fn a_file_system_without_locks_is_no_matter_of_one_job() {
        let job = JobId::new("my.module.train", "a").unwrap();
        for errno in [Errno::NOLCK, Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL] {
            let error = staging::Error::Io {
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
