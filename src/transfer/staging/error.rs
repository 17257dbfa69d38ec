//! The errors of a staging.

use std::ffi::{OsStr, OsString};
use std::io;

use crate::transfer;

/// The result of a call of this module.
pub type Result<T> = std::result::Result<T, StagingError>;

/// Why a staging failed. Names are names in the task's directory.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// A system call failed.
    #[error("cannot {operation} {}: {cause}", name.display())]
    Io {
        /// The operation that failed.
        operation: &'static str,
        /// The name that the operation was for.
        name: OsString,
        // The message contains this error. It is not the `source`, because a printed chain would repeat it.
        /// The system's error.
        cause: io::Error,
    },
    /// This name cannot be staged.
    #[error("{} {why}", name.display())]
    Name {
        /// The job's name.
        name: OsString,
        /// Why not.
        why: &'static str,
    },
    /// The entry at the lock file's name is not a regular file.
    #[error("{} is {what}, and should be a lock file: look who has put it there, and remove it", name.display())]
    NotALock {
        /// The lock file's name.
        name: OsString,
        /// The type of that entry.
        what: &'static str,
    },
    /// The new name is in use.
    #[error("{} is there already", name.display())]
    Exists {
        /// The name.
        name: OsString,
    },
    /// The entry to be replaced is missing; nothing was changed.
    #[error("{} was replaced by another process meanwhile", name.display())]
    Replaced {
        /// The job's name.
        name: OsString,
    },
    /// The exchange needs a name under which other data exists.
    #[error(
        "{} holds what was there before {hash}, from an exchange that was broken off: see which of the two is right, and remove or rename the other",
        name.display(), hash = hash.display()
    )]
    Occupied {
        /// The name that is needed.
        name: OsString,
        /// The job's name.
        hash: OsString,
    },
    /// Another process removed this lock, or the data that the lock guards.
    #[error("{}", lost(name, *placed))]
    Lost {
        /// The job's name.
        name: OsString,
        /// Whether the loss was detected after the job's place had been changed. The caller must then verify the job:
        /// another process may have removed files of it, or may have put another entry there.
        placed: bool,
    },
    /// An entry could not be removed.
    #[error(transparent)]
    Remove(#[from] transfer::Error),
}

fn lost(name: &OsStr, placed: bool) -> String {
    let name = name.display();
    match placed {
        false => format!("the lock of {name} was lost to another process, and nothing was changed"),
        true => format!(
            "the lock of {name} was lost to another process while it was put in its place: it must be verified"
        ),
    }
}

impl StagingError {
    /// The system's error, if a system call failed.
    #[must_use]
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io { cause, .. } => Some(cause),
            Self::Remove(error) => error.io(),
            _ => None,
        }
    }
}

/// Adds the failed operation and its name to an error.
pub(super) trait NameContext<T> {
    fn at_name(self, operation: &'static str, name: &OsStr) -> Result<T>;
}

impl<T> NameContext<T> for rustix::io::Result<T> {
    fn at_name(self, operation: &'static str, name: &OsStr) -> Result<T> {
        self.map_err(|errno| StagingError::Io {
            operation,
            name: name.to_owned(),
            cause: errno.into(),
        })
    }
}
