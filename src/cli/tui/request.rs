//! What a tab asks of the dashboard.

use std::ffi::OsString;

use super::order::Order;
use crate::workspace::jobs::JobId;

/// A request.
#[derive(Debug)]
pub(super) enum Request {
    /// Show this part of a job.
    Open(JobId, Part),
    /// Find out what an action would do, and ask for a confirmation.
    Plan(Order),
    /// Show the jobs of an experiment.
    Experiment(OsString),
    /// Let a workspace be chosen to copy a run to.
    CopyRun(OsString, OsString),
    /// Copy a text to the clipboard.
    Copy(String),
    /// Show a sentence.
    Say(String),
    /// Look at everything again.
    Refresh,
    /// Measure all jobs.
    Measure,
}

/// A part of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The state, tags and process of a job of another machine.
    Job,
    Copies,
    Files,
    Parameters,
    Log,
}

impl Part {
    /// Those of a job of this machine.
    pub(super) const HERE: [Part; 4] = [Part::Copies, Part::Files, Part::Parameters, Part::Log];

    /// Those of a job of another machine.
    pub(super) const THERE: [Part; 2] = [Part::Job, Part::Log];

    pub(super) fn title(self) -> &'static str {
        match self {
            Part::Job => "Job",
            Part::Copies => "Copies",
            Part::Files => "Files",
            Part::Parameters => "Parameters",
            Part::Log => "Log",
        }
    }
}
