//! An action that a person asked for.

use std::ffi::OsString;

use crate::archive::job::trash::batch::Batch;
use crate::workspace::jobs::JobId;

/// An action, and on what.
#[derive(Debug, Clone)]
pub(super) enum Order {
    /// On jobs.
    Jobs(Verb, Vec<JobId>),
    /// Removes orphans: these, or all; and whether that includes those that a folder has.
    Clean {
        jobs: Option<Vec<JobId>>,
        ignore_folders: bool,
    },
    /// Brings deleted jobs back.
    Undelete(Vec<(JobId, Batch)>),
    /// Copies a run to another workspace.
    CopyRun {
        experiment: OsString,
        run: OsString,
        to: String,
    },
    /// Releases every job that may be.
    ReleaseAll(Vec<JobId>),
}

/// What is done with jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Archive,
    Recover,
    Release,
    Verify,
    Pin(bool),
    OptOut(bool),
    Delete,
}

impl Order {
    /// In words, as in `archiving 3 jobs`.
    pub(super) fn under_way(&self) -> String {
        let (what, count) = match self {
            Order::Jobs(verb, jobs) => {
                let what = match verb {
                    Verb::Archive => "archiving",
                    Verb::Recover => "recovering",
                    Verb::Release => "releasing",
                    Verb::Verify => "verifying",
                    Verb::Pin(true) => "pinning",
                    Verb::Pin(false) => "unpinning",
                    Verb::OptOut(true) => "opting out",
                    Verb::OptOut(false) => "opting in",
                    Verb::Delete => "deleting",
                };
                (what, jobs.len())
            }
            Order::Clean { jobs: None, .. } => return "removing all orphans".to_owned(),
            Order::Clean {
                jobs: Some(jobs), ..
            } => ("removing", jobs.len()),
            Order::Undelete(jobs) => ("bringing back", jobs.len()),
            Order::ReleaseAll(jobs) => ("releasing", jobs.len()),
            Order::CopyRun {
                experiment,
                run,
                to,
            } => {
                return format!("copying {}/{} to {to}", experiment.display(), run.display());
            }
        };
        format!("{what} {}", counted(count))
    }
}

/// `1 job`, `3 jobs`
pub(super) fn counted(count: usize) -> String {
    match count {
        1 => "1 job".to_owned(),
        count => format!("{count} jobs"),
    }
}
