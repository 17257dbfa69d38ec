//! Which jobs an error affects, and when they are tried again.

use std::io;

use rustix::io::Errno;

use super::{Cause, JobError};
use crate::transfer::{self, staging};
use crate::view::COVERED;
use crate::view::location::OTHER_DISK;

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
    /// As [`Cause::scope`].
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.cause.scope()
    }

    /// Whether the operation was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.scope() == Scope::Cancelled
    }
}

impl Cause {
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::workspace::jobs::JobId;

    #[test]
    fn a_file_system_without_locks_affects_all_jobs() {
        let job = JobId::new("my.module.train", "a").unwrap();
        for errno in [Errno::NOLCK, Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL] {
            let error = staging::StagingError::Io {
                operation: "lock",
                name: ".tmp.a.lock".into(),
                cause: errno.into(),
            };
            let path = PathBuf::from("/folder/jobs/my.module.train/a");
            let error = JobError::new(&job, Cause::Staging { path, error });
            assert_eq!(error.scope(), Scope::Folder);
            assert!(error.advice().unwrap().contains("cannot lock files"));
        }
    }
}
