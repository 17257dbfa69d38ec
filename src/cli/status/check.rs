//! Finds what is wrong in the status, for `status --check`.

use super::gather::{BELOW_DEAD_MOUNT, Status};
use crate::archive::engine::{ExperimentsReport, Report};
use crate::daemon::inventory::LocationReport;
use crate::view::location::MISSING;

/// Returns a sentence for each mount that is dead or does not answer, each folder that cannot be used, and for each workspace with jobs,
/// runs or partials that could not be found or archived, with moved jobs that have no backup, or with damaged or missing copies. A workspace
/// of the settings whose own directory does not exist is not in use on this machine.
pub(super) fn problems(status: &Status) -> Vec<String> {
    let mut problems = Vec::new();
    for mount in &status.mounts {
        if mount.is_down() {
            problems.push(format!(
                "{}: the mount is {}",
                mount.mountpoint,
                shown(&mount.state)
            ));
        }
        locations(&mut problems, &mount.mountpoint, &mount.locations);
        if let Some(report) = &mount.archive {
            archive(&mut problems, &mount.mountpoint, report);
        }
    }
    for archiver in &status.archivers {
        locations(&mut problems, &archiver.primary, &archiver.locations);
        if let Some(report) = &archiver.archive {
            archive(&mut problems, &archiver.primary, report);
        }
    }
    for workspace in &status.workspaces {
        let primary = workspace.locations.first();
        if primary.is_some_and(|primary| primary.state == MISSING) {
            continue;
        }
        locations(&mut problems, &workspace.primary, &workspace.locations);
        damaged(&mut problems, &workspace.primary, workspace.damages);
    }
    problems
}

fn shown(state: &str) -> &str {
    match state {
        "does not answer" => "not answering",
        state => state,
    }
}

/// Adds the locations that cannot be used.
fn locations(problems: &mut Vec<String>, place: &str, locations: &[LocationReport]) {
    // The dead mount that hides a directory is a problem of its own.
    let wrong = |it: &&LocationReport| !it.is_usable() && it.state != BELOW_DEAD_MOUNT;
    for location in locations.iter().filter(wrong) {
        let LocationReport {
            mode, path, state, ..
        } = location;
        let what = match mode.as_str() {
            "primary" => "its own directory",
            _ => "the folder",
        };
        problems.push(format!("{place}: {what} {path} cannot be used: {state}"));
    }
}

fn archive(problems: &mut Vec<String>, place: &str, report: &Report) {
    match report.failures {
        0 => {}
        1 => problems.push(format!("{place}: 1 job could not be archived")),
        count => problems.push(format!("{place}: {count} jobs could not be archived")),
    }
    for folder in &report.folders {
        let path = folder.path.display();
        // One that is away is among the locations.
        if let Some(refuses) = folder.refuses.as_ref().filter(|it| it.next_try.is_some()) {
            problems.push(format!("{place}: {path} accepts no jobs: {}", refuses.why));
        }
        if let Some(trouble) = &folder.trouble {
            problems.push(format!(
                "{place}: some finished jobs may not have been found: {trouble}"
            ));
        }
        match folder.moved_missing {
            0 => {}
            1 => problems.push(format!("{place}: 1 moved job has no copy in {path} yet")),
            count => problems.push(format!(
                "{place}: {count} moved jobs have no copy in {path} yet"
            )),
        }
    }
    let experiments = report.experiments.iter();
    match experiments
        .map(ExperimentsReport::not_archived)
        .sum::<usize>()
    {
        0 => {}
        1 => problems.push(format!("{place}: 1 run or partial could not be archived")),
        count => problems.push(format!(
            "{place}: {count} runs or partials could not be archived"
        )),
    }
    for folder in &report.experiments {
        if let Some(trouble) = &folder.trouble {
            problems.push(format!(
                "{place}: some runs may not have been found: {trouble}"
            ));
        }
    }
    damaged(problems, place, report.damages);
}

fn damaged(problems: &mut Vec<String>, place: &str, count: usize) {
    match count {
        0 => {}
        1 => problems.push(format!("{place}: 1 copy is damaged or missing")),
        count => problems.push(format!("{place}: {count} copies are damaged or missing")),
    }
}
