//! What a person can do about an error.

use std::path::PathBuf;

use rustix::io::Errno;

use super::{Cause, JobError};
use crate::transfer::{self, staging};

/// A kind of access to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading a file, or listing a directory.
    Read,
    /// Creating, writing or removing an entry.
    Write,
}

impl JobError {
    /// As [`Cause::advice`].
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        self.cause.advice()
    }

    /// What can be done about it, for a daemon: it must not find out which permission is missing, since the path may lead into its own mount.
    pub(in crate::archive) fn advice_of_daemon(&self) -> Option<String> {
        match self.errno()? {
            Errno::ACCESS | Errno::PERM => Some(format!(
                "`xpmfs jobs archive {}` shows which permission is missing, and who can grant it",
                self.job
            )),
            _ => self.advice().map(ToOwned::to_owned),
        }
    }

    /// As [`Cause::denied`].
    #[must_use]
    pub fn denied(&self) -> Option<(PathBuf, Access)> {
        self.cause.denied()
    }

    /// Whether writing failed for want of a permission, or since the file system is read-only.
    pub(in crate::archive) fn is_denied_writing(&self) -> bool {
        let denied = [Errno::ROFS, Errno::ACCESS, Errno::PERM];
        self.errno().is_some_and(|errno| denied.contains(&errno))
    }
}

impl Cause {
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
            Cause::Transfer { path, error } => {
                let path = match error.path()? {
                    top if top.as_os_str().is_empty() => path.clone(),
                    entry => path.join(entry),
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
            Cause::Staging { path, .. } => (path.clone(), Access::Write),
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::jobs::JobId;

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
}
