//! Waits until a mount has archived all that is finished, and says what is left.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::ProgressBar;

use super::Global;
use crate::archive::engine::{ExperimentsReport, Report};
use crate::daemon::control::ClientError;
use crate::daemon::drain::{Drained, drain};
use crate::daemon::mounts::MountInfo;

/// Waits until all that is finished is archived, until `end` at most.
///
/// # Errors
///
/// The mount's daemon does not answer.
pub(super) fn wait(
    mount: &MountInfo,
    end: Option<Instant>,
    global: &Global,
) -> Result<Drained, ClientError> {
    let bar = match global.quiet || !std::io::stderr().is_terminal() {
        true => ProgressBar::hidden(),
        false => ProgressBar::new_spinner(),
    };
    let drained = drain(mount, end, |left| {
        bar.set_message(match left {
            0 => "looking for finished jobs".to_owned(),
            1 => "1 job is still to be archived".to_owned(),
            left => format!("{left} jobs are still to be archived"),
        });
        bar.tick();
    });
    bar.finish_and_clear();
    drained
}

/// What cannot be archived now, by the report of a mount that is stuck.
pub(super) fn what_is_left(report: &Report) -> String {
    match report.queued {
        0 if report.damages > 0 && report.unseen().is_none() => match report.damages {
            1 => "1 copy is damaged or missing".to_owned(),
            count => format!("{count} copies are damaged or missing"),
        },
        0 if report.experiments.iter().any(|it| it.not_archived() > 0) => {
            "runs of experiments or partials cannot be archived now".to_owned()
        }
        0 => "it is not known whether all that is finished is archived".to_owned(),
        1 => "1 finished job cannot be archived now".to_owned(),
        jobs => format!("{jobs} finished jobs cannot be archived now"),
    }
}

/// Why it cannot be archived.
pub(super) fn why(report: &Report) -> String {
    let failed = report.failed.first();
    let failed = failed.map(|failed| format!("{}: {}", failed.job, failed.why));
    let refused = || {
        let mut refusals = report.folders.iter();
        refusals.find_map(|folder| {
            let refuses = folder.refuses.as_ref()?;
            let (path, why) = (folder.path.display().to_string(), &refuses.why);
            Some(match why.starts_with(&path) {
                true => why.clone(),
                false => format!("{path}: {why}"),
            })
        })
    };
    failed
        .or_else(refused)
        .or_else(|| report.experiments.iter().find_map(ExperimentsReport::why))
        .or_else(|| report.unseen())
        .or_else(|| report.first_damaged())
        .unwrap_or_default()
}
