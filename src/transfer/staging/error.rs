//! What stops a staging.

use std::ffi::{OsStr, OsString};
use std::io;

use crate::transfer;

/// A result of a call of this room.
pub type Result<T> = std::result::Result<T, Error>;

/// What stopped a staging. Names are names in the task's directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot {operation} {}: {cause}", name.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With what.
        name: OsString,
        // Told in the message, and so no `source`: whoever prints a chain would print it twice.
        /// The system's error.
        cause: io::Error,
    },
    /// This cannot be staged under its name.
    #[error("{} {why}", name.display())]
    Name {
        /// The job's name.
        name: OsString,
        /// Why not.
        why: &'static str,
    },
    /// Something that is no plain file is in the place of the lock file.
    #[error("{} is {what}, and should be a lock file: look who has put it there, and remove it", name.display())]
    NotALock {
        /// The lock file's name.
        name: OsString,
        /// What it is.
        what: &'static str,
    },
    /// Something has the name that was to be given.
    #[error("{} is there already", name.display())]
    Exists {
        /// The name.
        name: OsString,
    },
    /// What was to be replaced is not there any more; nothing was changed.
    #[error("{} was replaced by somebody else meanwhile", name.display())]
    Replaced {
        /// The job's name.
        name: OsString,
    },
    /// An exchange needs a name under which somebody's data lie.
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
    /// Somebody has removed our lock, or what it guards.
    #[error("{}", lost(name, *placed))]
    Lost {
        /// The job's name.
        name: OsString,
        /// Whether it was noticed after the job's place was changed, so that what stands there is to be verified: somebody may
        /// have been removing files of it, or have put something else there.
        placed: bool,
    },
    /// Something could not be removed.
    #[error(transparent)]
    Remove(#[from] transfer::Error),
}

fn lost(name: &OsStr, placed: bool) -> String {
    let name = name.display();
    match placed {
        false => format!("the lock of {name} was lost to somebody else, and nothing was changed"),
        true => format!(
            "the lock of {name} was lost to somebody else while it was put in its place: it must be verified"
        ),
    }
}

impl Error {
    /// The system's error, where it was the system that refused.
    #[must_use]
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io { cause, .. } => Some(cause),
            Self::Remove(error) => error.io(),
            _ => None,
        }
    }
}

/// Says which call failed, and with which name.
pub(super) trait Context<T> {
    fn told(self, operation: &'static str, name: &OsStr) -> Result<T>;
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn told(self, operation: &'static str, name: &OsStr) -> Result<T> {
        self.map_err(|errno| Error::Io {
            operation,
            name: name.to_owned(),
            cause: errno.into(),
        })
    }
}
