//! Killing and deleting jobs: what is asked before, and what was done.

use super::model::RemoteModel;
use crate::cli::tui::dialog::Dialog;
use crate::remote::monitor::model::RemoteQuestion;
use crate::workspace::job_files::JobState;
use crate::workspace::jobs::JobId;

/// What is done with a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RemoteAct {
    Kill,
    Delete,
}

impl RemoteAct {
    /// The question that does it.
    pub(super) fn question(self, job: JobId) -> RemoteQuestion {
        match self {
            RemoteAct::Kill => RemoteQuestion::Kill(job),
            RemoteAct::Delete => RemoteQuestion::Delete(job),
        }
    }

    /// In words, as in `killing my.train/0defac9f`.
    pub(super) fn under_way(self, job: &JobId) -> String {
        match self {
            RemoteAct::Kill => format!("killing {job}"),
            RemoteAct::Delete => format!("deleting {job}"),
        }
    }

    /// What was done, or was not.
    pub(super) fn outcome(self, job: &JobId, result: &Result<(bool, String), String>) -> String {
        let done = match self {
            RemoteAct::Kill => "killed",
            RemoteAct::Delete => "deleted",
        };
        match result {
            Ok((true, _)) => format!("{job}: {done}"),
            Ok((false, why)) if why.is_empty() => format!("{job}: not {done}"),
            Ok((false, why)) | Err(why) => format!("{job}: not {done}: {why}"),
        }
    }

    /// Asks whether to do it.
    pub(super) fn confirmation(self, job: &JobId, model: &RemoteModel) -> Dialog {
        let state = model.job(job).map(|(job, _)| job.state.clone());
        let mut reasons = Vec::new();
        let lines = match self {
            RemoteAct::Kill => {
                if let Some(state) = state.filter(|state| *state != JobState::Running) {
                    reasons.push(format!("the job is not running: its state is {state}"));
                }
                vec![
                    format!("Kill {job} on {}?", model.host),
                    String::new(),
                    "Its process ends at once, and the job fails.".to_owned(),
                ]
            }
            RemoteAct::Delete => {
                let path = model.path(job);
                reasons.push("there is no trash there: this cannot be undone".to_owned());
                vec![
                    format!("Delete {job} on {}?", model.host),
                    String::new(),
                    format!("This removes {} with all that is in it.", path.display()),
                ]
            }
        };
        Dialog::confirm(self.under_way(job), lines, &reasons)
    }
}
