//! An experiment that was copied to another workspace: experimaestro loads it there, finds its jobs done, and runs nothing.

use std::fs;
use std::path::Path;

use crate::common::{Workspace, run};
use crate::plan::Plan;

const ARGUMENTS: [&str; 2] = ["2", "--partials"];

/// The lines of experimaestro's list of jobs with their tags, sorted.
fn listed(plan: &Plan<'_>, workspace: &Path) -> Vec<String> {
    let workdir = format!("--workdir={}", workspace.display());
    let printed = plan.experimaestro_in(&["jobs", &workdir, "list", "--tags"]);
    let mut lines: Vec<String> = printed.lines().map(str::to_owned).collect();
    lines.retain(|line| line.contains('/'));
    lines.sort();
    lines
}

#[test]
fn a_copied_experiment_is_done_at_its_destination() {
    let workspace = Workspace::new();
    let Some(plan) = Plan::of(&workspace) else {
        return;
    };
    let (primary, other) = (workspace.primary(), workspace.top().join("other"));
    fs::create_dir(&other).unwrap();
    let settings = fs::read_to_string(workspace.settings()).unwrap();
    let settings = format!("{settings}  - {{id: other, path: {}}}\n", other.display());
    fs::write(workspace.settings(), settings).unwrap();
    let first = plan.run(&primary, &ARGUMENTS);
    assert_eq!(first.executed.len(), first.jobs.len());
    let before = listed(&plan, &primary);
    assert_eq!(before.len(), first.jobs.len(), "{before:?}");
    let copy = ["experiments", "copy", "demo", "--from-workspace", "test"];
    run(workspace
        .xpmfs()
        .args(copy)
        .args(["--to-workspace", "other", "-y"]));

    // Nothing of the copy leads to the workspace that it was made from.
    fs::rename(&primary, workspace.top().join("away")).unwrap();
    assert_eq!(listed(&plan, &other), before);
    let orphans = plan.experimaestro(&["orphans"], &other);
    assert!(orphans.contains("No orphan jobs"), "{orphans}");
    let again = plan.run(&other, &ARGUMENTS);
    assert_eq!(again.jobs, first.jobs);
    assert_eq!(again.executed, []);
    assert!(!primary.exists());
    // One more job is new there.
    let more = plan.run(&other, &["3", "--partials"]);
    assert_eq!(more.executed.len(), 1, "{:?}", more.executed);
}
