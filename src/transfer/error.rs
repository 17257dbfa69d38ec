//! What stopped a copy, and where.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// A result of copying or verifying.
pub type Result<T> = std::result::Result<T, Error>;

/// Which tree an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The tree that is read.
    Source,
    /// The tree that is written.
    Copy,
    /// The tree that is removed.
    Removed,
}

/// What stopped a copy. Paths are relative to the top of the tree, which is the empty path; those of what is removed begin
/// with its name.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused: a full disk, missing rights, a medium that fails.
    #[error("cannot {operation} {}: {cause}", Shown(path, *side))]
    Io {
        /// Which tree.
        side: Side,
        /// What was tried.
        operation: &'static str,
        /// The entry.
        path: PathBuf,
        // Told in the message, and so no `source`: whoever prints a chain would print it twice.
        /// The system's error.
        cause: io::Error,
    },
    /// The source did not hold still: the copy is of no use, and may be made anew.
    #[error("{} changed while it was copied: {how}", Shown(path, Side::Source))]
    Changed {
        /// The entry that changed.
        path: PathBuf,
        /// What is different.
        how: &'static str,
    },
    /// Somebody called [`Progress::cancel`](super::Progress::cancel).
    #[error("it was cancelled")]
    Cancelled,
}

impl Error {
    /// The entry that it is about, if it is about one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Io { path, .. } | Self::Changed { path, .. } => Some(path),
            Self::Cancelled => None,
        }
    }

    /// The system's error, where it was the system that refused.
    #[must_use]
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io { cause, .. } => Some(cause),
            Self::Changed { .. } | Self::Cancelled => None,
        }
    }

    /// Whether the source changed, so that another try may succeed at once.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        matches!(self, Self::Changed { .. })
    }
}

/// A failed call, before it is known by which path its entry is told of.
#[derive(Debug)]
pub(super) enum Failure {
    /// A call on one of the trees.
    Io(Side, &'static str, Errno),
    /// The source did not hold still.
    Changed(&'static str),
    Cancelled,
}

impl Failure {
    /// The error, about an entry.
    pub(super) fn at(self, path: PathBuf) -> Error {
        match self {
            Self::Io(side, operation, errno) => Error::Io {
                side,
                operation,
                path,
                cause: errno.into(),
            },
            Self::Changed(how) => Error::Changed { path, how },
            Self::Cancelled => Error::Cancelled,
        }
    }
}

/// Says which call failed, and on which tree.
pub(super) trait Context<T> {
    /// Of the source.
    fn source(self, operation: &'static str) -> std::result::Result<T, Failure>;
    /// Of the source, where what has been listed before is opened or read by its name: that it is
    /// not there, or something else, means that it changed.
    fn listed(self, operation: &'static str) -> std::result::Result<T, Failure>;
    /// Of the copy.
    fn copy(self, operation: &'static str) -> std::result::Result<T, Failure>;
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn source(self, operation: &'static str) -> std::result::Result<T, Failure> {
        self.map_err(|errno| Failure::Io(Side::Source, operation, errno))
    }

    fn listed(self, operation: &'static str) -> std::result::Result<T, Failure> {
        self.map_err(|errno| match errno {
            Errno::NOENT | Errno::STALE => Failure::Changed("it is gone"),
            Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::NODEV => Failure::Changed(OTHER),
            errno => Failure::Io(Side::Source, operation, errno),
        })
    }

    fn copy(self, operation: &'static str) -> std::result::Result<T, Failure> {
        self.map_err(|errno| Failure::Io(Side::Copy, operation, errno))
    }
}

/// What is tried where a symlink is made; not every disk has symlinks.
pub(crate) const SYMLINK: &str = "create the symlink";

/// What is said of a name that leads to another file than before.
pub(super) const OTHER: &str = "something else is in its place";

/// An entry, in a message.
struct Shown<'a>(&'a Path, Side);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.as_os_str().is_empty(), self.1) {
            (true, Side::Source | Side::Removed) => write!(f, "the directory"),
            (true, Side::Copy) => write!(f, "the copy"),
            (false, Side::Source | Side::Removed) => write!(f, "{}", self.0.display()),
            (false, Side::Copy) => write!(f, "{} in the copy", self.0.display()),
        }
    }
}
