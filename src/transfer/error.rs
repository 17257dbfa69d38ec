//! The error that stopped a copy, and its path.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// The result of copying or verifying.
pub type Result<T> = std::result::Result<T, Error>;

/// The tree that an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The tree that is read.
    Source,
    /// The tree that is written.
    Copy,
    /// The tree that is removed.
    Removed,
}

/// Why a copy stopped. Paths are relative to the top of the tree, whose path is empty; paths in a tree that is removed
/// begin with the tree's name.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed: a full disk, missing rights, a defective disk.
    #[error("cannot {operation} {}: {cause}", Shown(path, *side))]
    Io {
        /// The tree.
        side: Side,
        /// The operation that failed.
        operation: &'static str,
        /// The entry.
        path: PathBuf,
        // The message contains this error. It is not the `source`, because a printed chain would repeat it.
        /// The system's error.
        cause: io::Error,
    },
    /// The source changed meanwhile: the copy is unusable, and may be repeated.
    #[error("{} changed while it was copied: {how}", Shown(path, Side::Source))]
    Changed {
        /// The entry that changed.
        path: PathBuf,
        /// The difference.
        how: &'static str,
    },
    /// The caller, or another thread, called [`Progress::cancel`](super::Progress::cancel).
    #[error("it was cancelled")]
    Cancelled,
}

impl Error {
    /// The entry that the error is about, if any.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Io { path, .. } | Self::Changed { path, .. } => Some(path),
            Self::Cancelled => None,
        }
    }

    /// The system's error, if a system call failed.
    #[must_use]
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io { cause, .. } => Some(cause),
            Self::Changed { .. } | Self::Cancelled => None,
        }
    }

    /// Whether the source changed, so that another attempt may succeed at once.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        matches!(self, Self::Changed { .. })
    }
}

/// A failed call, before the path of its entry is known.
#[derive(Debug)]
pub(super) enum Failure {
    /// A call on one of the trees.
    Io(Side, &'static str, Errno),
    /// The source changed meanwhile.
    Changed(&'static str),
    Cancelled,
}

impl Failure {
    /// Converts to the error about the entry with this path.
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

/// Adds the failed operation, and the tree, to an error.
pub(super) trait Context<T> {
    /// For a call on the source.
    fn source(self, operation: &'static str) -> std::result::Result<T, Failure>;
    /// For a call on the source that opens or reads a listed entry by its name. If the entry is missing or has another
    /// type, the source has changed.
    fn listed(self, operation: &'static str) -> std::result::Result<T, Failure>;
    /// For a call on the copy.
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

/// The operation of making a symlink. Other code compares with this, because some disks lack symlinks.
pub(crate) const SYMLINK: &str = "create the symlink";

/// The message for a name that leads to another file than before.
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
