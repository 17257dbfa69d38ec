//! What a copy asks of the two workspaces, wherever they are.

use std::path::{Path, PathBuf};

use crate::archive::experiments::RunName;
use crate::remote::error::CopyError;
use crate::transfer::Size;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::JOBS;

/// Where a job or run is copied from, and its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The location: `primary`, or a folder as in `backup:/slow/nlp`.
    pub location: String,
    /// Its size.
    pub size: Size,
}

/// A run at the source.
pub(super) struct SourceRun {
    pub(super) found: Found,
    pub(super) jobs: Vec<JobId>,
    /// Lines of `jobs.jsonl` that could not be read.
    pub(super) unread: Vec<String>,
}

/// The workspace that is copied from.
pub(super) trait Source: Sync {
    /// Reads a run.
    fn run(&self, run: &RunName) -> Result<SourceRun, CopyError>;

    /// Where each job is, and its size.
    fn find(&self, jobs: &[JobId]) -> Vec<Result<Found, String>>;
}

/// The workspace that is copied to.
pub(super) trait Destination: Sync {
    /// Whether it has a run.
    fn has_run(&self, run: &RunName) -> Result<bool, CopyError>;

    /// Whether it has each job.
    fn has(&self, jobs: &[JobId]) -> Vec<Result<bool, String>>;
}

/// A copy in progress. Dropping it removes what is unfinished.
pub(super) trait Transfer: Sync {
    /// Copies a job and gives it its place; returns false if the destination has it by now.
    fn job(&self, job: &JobId) -> Result<bool, String>;

    /// Copies a run, without giving it its place.
    fn stage_run(&self, run: &RunName) -> Result<(), String>;

    /// Gives a run its place; returns false if the destination has it by now.
    fn place_run(&self, run: &RunName) -> Result<bool, String>;

    /// Makes `current` name a run, unless it names one already.
    fn set_current(&self, run: &RunName) -> Result<(), String>;
}

/// The path of a job in a workspace, for messages.
pub(super) fn job_path(workspace: &Path, job: &JobId) -> PathBuf {
    workspace.join(JOBS).join(job.path())
}
