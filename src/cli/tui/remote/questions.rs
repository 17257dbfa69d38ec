//! What each tab asks the server for.

use super::model::RemoteModel;
use super::tab::RemoteTab;
use crate::remote::monitor::model::RemoteQuestion;

/// Of how many experiments all runs are asked for.
const EXPERIMENTS_MAX: usize = 50;

/// The questions whose answers a tab shows.
pub(super) fn questions(tab: RemoteTab, model: &RemoteModel) -> Vec<RemoteQuestion> {
    match tab {
        // The experiments have the tags of the jobs.
        RemoteTab::Jobs => vec![model.jobs_question(), RemoteQuestion::Experiments],
        RemoteTab::Experiments => {
            let newest = model.newest.iter().flatten();
            let several = newest.filter(|run| run.runs > 1).take(EXPERIMENTS_MAX);
            let runs = several.map(|run| RemoteQuestion::Runs(run.experiment.clone()));
            std::iter::once(RemoteQuestion::Experiments)
                .chain(runs)
                .collect()
        }
        RemoteTab::Services => vec![RemoteQuestion::Services],
        RemoteTab::Orphans => vec![RemoteQuestion::Orphans],
        RemoteTab::Strays => vec![RemoteQuestion::Strays],
        // `xpmfs` there is asked.
        RemoteTab::Folders | RemoteTab::Archive => Vec::new(),
    }
}
