//! What a tab asks of the dashboard.

use super::act::RemoteAct;
use crate::cli::tui::request::Part;
use crate::workspace::jobs::JobId;

/// A request.
#[derive(Debug)]
pub(super) enum RemoteRequest {
    /// Show this part of a job.
    Open(JobId, Part),
    /// Do something with a job, after a confirmation.
    Act(RemoteAct, JobId),
    /// Show the jobs of a run.
    Run(String, String),
    /// Copy a text to the clipboard.
    Copy(String),
    /// Show a sentence.
    Say(String),
}
