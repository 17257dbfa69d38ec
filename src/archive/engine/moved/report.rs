//! Adds to the report for `status` the moved jobs that `backup` folders lack.

use std::time::Instant;

use super::state::FolderMoved;
use crate::archive::engine::report::{FailedJob, NAMES_MAX, Report};
use crate::archive::engine::shared::Shared;
use crate::view::View;

/// Adds the jobs to a report.
pub(in crate::archive::engine) fn add(
    report: &mut Report,
    shared: &Shared,
    view: &View,
    now: Instant,
) {
    for moved in &*shared.moved.lock() {
        add_folder(report, shared, moved, view, now);
    }
}

fn add_folder(
    report: &mut Report,
    shared: &Shared,
    moved: &FolderMoved,
    view: &View,
    now: Instant,
) {
    let state = moved.state.lock();
    let path = view.location(moved.folder).map(|folder| folder.path());
    let mut waiting = 0;
    for (job, lacking) in &state.lacking {
        let why = lacking.failure.as_ref().map(|failure| &*failure.why);
        if lacking.has_failed() {
            report.failures += 1;
            if report.failed.len() < NAMES_MAX {
                report.failed.push(FailedJob {
                    job: job.to_string(),
                    folder: path.map(ToOwned::to_owned),
                    why: why.unwrap_or_default().to_owned(),
                    tries: lacking.tries,
                    next_try: lacking.next.saturating_duration_since(now).as_secs_f64(),
                });
            }
            continue;
        }
        waiting += 1;
        let shown = why.unwrap_or("copying from its `move` folder");
        report.add_waiting(job, shown, why.is_some());
    }
    // A job that has just been moved may still be in the queue, which is counted already.
    let queued = &shared.state.lock().queue.jobs;
    let others = state
        .lacking
        .keys()
        .filter(|job| !queued.contains_key(*job));
    report.queued += others.count();
    let mut folders = report.folders.iter_mut();
    if let Some(folder) = folders.find(|folder| Some(&*folder.path) == path) {
        folder.moved_missing = waiting;
        folder.trouble = folder.trouble.take().or_else(|| state.trouble.clone());
    }
}
