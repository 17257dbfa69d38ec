//! Finds what is wrong in the status, for `status --check`.

use super::gather::Status;
use crate::archive::engine::{ExperimentsReport, Report};

/// Returns a sentence for each mount that is dead or does not answer, and for each workspace with jobs, runs or
/// partials that could not be archived, with moved jobs that have no backup, or with damaged copies.
pub(super) fn problems(status: &Status) -> Vec<String> {
    let mut problems = Vec::new();
    for mount in &status.mounts {
        if let state @ ("dead" | "does not answer") = mount.state {
            problems.push(format!(
                "{}: the mount is {}",
                mount.mountpoint,
                shown(state)
            ));
        }
        if let Some(report) = &mount.archive {
            archive(&mut problems, &mount.mountpoint, report);
        }
    }
    for archiver in &status.archivers {
        if let Some(report) = &archiver.archive {
            archive(&mut problems, &archiver.primary, report);
        }
    }
    for workspace in &status.workspaces {
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

fn archive(problems: &mut Vec<String>, place: &str, report: &Report) {
    match report.failures {
        0 => {}
        1 => problems.push(format!("{place}: 1 job could not be archived")),
        count => problems.push(format!("{place}: {count} jobs could not be archived")),
    }
    for folder in &report.folders {
        let path = folder.path.display();
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
    damaged(problems, place, report.damages);
}

fn damaged(problems: &mut Vec<String>, place: &str, count: usize) {
    match count {
        0 => {}
        1 => problems.push(format!("{place}: 1 copy is damaged or missing")),
        count => problems.push(format!("{place}: {count} copies are damaged or missing")),
    }
}
