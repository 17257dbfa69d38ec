//! Why an experiment could not be copied at all. What prevents the copy of one job is a text in the result.

use std::io;
use std::path::{Path, PathBuf};

use super::ssh::SshError;

/// Why an experiment could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Both workspaces are on other machines.
    #[error(
        "cannot copy from {from} to {to}: both are remote workspaces (`ssh.host`); run the command on one of the two machines"
    )]
    BothRemote {
        /// The id of the source.
        from: String,
        /// The id of the destination.
        to: String,
    },
    /// Source and destination are one directory.
    #[error("cannot copy {} to itself: name another workspace with --to-workspace", path.display())]
    Same {
        /// The directory.
        path: PathBuf,
    },
    /// The name of an experiment or a run is not one file name.
    #[error("{name:?} is not the name of {what}")]
    Name {
        /// What it should name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The source does not have the run.
    #[error("{} does not exist: `xpmfs experiments runs` lists the runs of a workspace", path.display())]
    NoRun {
        /// Where it should be.
        path: PathBuf,
    },
    /// The jobs of the run are unknown.
    #[error("cannot read the jobs of the run: {why}")]
    NoJobs {
        /// Why.
        why: String,
    },
    /// A system call failed.
    #[error("cannot {operation} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The path.
        path: PathBuf,
        // Part of the message, and therefore not a `source`: a caller that prints the chain would print it twice.
        /// The system's error.
        cause: io::Error,
    },
    /// Another machine could not be reached, or a script failed there.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// A run could not be read or written.
    #[error("{0}")]
    Run(String),
}

impl CopyError {
    /// A system call on a path failed.
    pub(super) fn io(operation: &'static str, path: &Path, cause: impl Into<io::Error>) -> Self {
        CopyError::Io {
            operation,
            path: path.to_owned(),
            cause: cause.into(),
        }
    }
}
