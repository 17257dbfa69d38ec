//! Errors about a file or directory of a workspace, and listings that continue after them.

use std::io;
use std::path::{Path, PathBuf};

/// A result about one file of a workspace.
pub(super) type Result<T> = std::result::Result<T, WorkspaceError>;

/// A file, directory or line that cannot be used: its path, the operation, and the cause.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}{}: {cause}", path.display(), line_suffix(*line))]
pub struct WorkspaceError {
    path: PathBuf,
    line: Option<u64>,
    operation: &'static str,
    // A part of the message, and so not a `source`: a printed chain would repeat it.
    cause: Cause,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Content(String),
}

impl From<rustix::io::Errno> for Cause {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl WorkspaceError {
    pub(super) fn new(operation: &'static str, path: &Path, cause: impl Into<Cause>) -> Self {
        Self {
            path: path.to_path_buf(),
            line: None,
            operation,
            cause: cause.into(),
        }
    }

    pub(super) fn at_line(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }

    /// The file or directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line of the file, from 1, if the error is about one line.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        self.line
    }

    /// The operation that failed: `read`, `list`, `parse` …
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The error of the system; `None` if the content is not valid.
    #[must_use]
    pub fn io(&self) -> Option<&io::Error> {
        match &self.cause {
            Cause::Io(error) => Some(error),
            Cause::Json(_) | Cause::Content(_) => None,
        }
    }
}

fn line_suffix(line: Option<u64>) -> String {
    line.map(|n| format!(":{n}")).unwrap_or_default()
}

/// The content of a directory: all that could be read, and an error for each entry that could not.
#[derive(Debug)]
pub struct PartialList<T> {
    /// The entries, sorted.
    pub found: Vec<T>,
    /// The entries that could not be read.
    pub errors: Vec<WorkspaceError>,
}

impl<T> Default for PartialList<T> {
    fn default() -> Self {
        Self {
            found: Vec::new(),
            errors: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_chain_has_each_part_once() {
        let io = io::Error::from_raw_os_error(libc::EACCES);
        let error = WorkspaceError::new("read", Path::new("/w/jobs.jsonl"), io).at_line(3);
        assert_eq!(
            error.io().map(io::Error::kind),
            Some(io::ErrorKind::PermissionDenied)
        );
        assert_eq!(
            format!("{:#}", anyhow::Error::new(error)),
            "cannot read /w/jobs.jsonl:3: Permission denied (os error 13)"
        );
    }
}
