//! What went wrong with one file or directory of a workspace.

use std::io;
use std::path::{Path, PathBuf};

/// A result about one file of a workspace.
pub type Result<T> = std::result::Result<T, Error>;

/// One file, directory or line that could not be used: where, what was tried, and why not.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}{}: {cause}", path.display(), line_suffix(*line))]
pub struct Error {
    path: PathBuf,
    line: Option<u64>,
    operation: &'static str,
    // Told in the message, and so no `source`: whoever prints a chain would print it twice.
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

impl Error {
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

    /// The file or directory that this is about.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line of the file, counted from 1, where one line is to blame.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        self.line
    }

    /// What was tried: `read`, `list`, `parse` …
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The system's error, where it was the system that refused; `None` if the content was bad.
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

/// What a directory held: all that could be read, and an error for each thing that could not.
#[derive(Debug)]
pub struct Listing<T> {
    /// What was found, sorted.
    pub found: Vec<T>,
    /// What could not be read; the listing went on past it.
    pub errors: Vec<Error>,
}

impl<T> Default for Listing<T> {
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
    fn an_error_says_each_thing_once_even_as_a_chain() {
        let io = io::Error::from_raw_os_error(libc::EACCES);
        let error = Error::new("read", Path::new("/w/jobs.jsonl"), io).at_line(3);
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
