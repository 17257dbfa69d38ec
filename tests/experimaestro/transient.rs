//! Transient jobs, which experimaestro removes at the end of the plan: they are left alone until then.

use std::path::Path;

use serde_json::Value;

use crate::common::{Workspace, eventually, run};
use crate::plan::{Job, Plan};

/// Whether the mount's `status` has a job wait since its plan may remove it.
fn waits(workspace: &Workspace, mountpoint: &Path, job: &Job) -> bool {
    let status = run(workspace.xpmfs().args(["--json", "status"]).arg(mountpoint));
    let status: Value = serde_json::from_str(&status).unwrap();
    let waiting = &status["mounts"][0]["archive"]["waiting"];
    let name = format!("{}/{}", job.task, job.hash);
    waiting.as_array().is_some_and(|waiting| {
        let mut waiting = waiting.iter();
        waiting.any(|each| {
            each["job"] == name.as_str()
                && each["why"]
                    .as_str()
                    .is_some_and(|why| why.contains("transient"))
        })
    })
}

/// Archives while a plan runs that has a transient job, and is killed, or ends by itself.
fn transient_jobs_are_left_to_their_plan(mode: &str, killed: bool) {
    let workspace = Workspace::new();
    let Some(plan) = Plan::of(&workspace) else {
        return;
    };
    workspace.with_folders(&[mode]);
    workspace.tune("{settle: 300ms, scan_interval: 300ms}");
    let mountpoint = workspace.mountpoint("mnt");
    let _mounted = workspace.mount_archiving(&mountpoint, &[]);
    let (folder, primary) = (workspace.folder(mode), workspace.primary());

    // The transient job is done, and the one that needs it runs.
    let mut running = plan.start(&mountpoint, &["1", "--transient"]);
    running.wait_until("the second job runs", |plan| plan.executed().len() == 2);
    let transient = running.executed().remove(0);
    eventually("the transient job waits", || {
        waits(&workspace, &mountpoint, &transient)
    });
    assert!(!folder.join(transient.path()).exists());
    assert!(primary.join(transient.path()).is_dir());
    if killed {
        // Its lock is free then, and it removes nothing.
        drop(running);
        eventually("what is left of a killed plan is archived", || {
            folder.join(transient.path()).is_dir()
        });
        return;
    }
    running.open_gate();
    let ran = running.finish();
    let kept = ran.jobs.iter().find(|job| **job != transient).unwrap();
    eventually("the other job is archived", || {
        folder.join(kept.path()).is_dir()
    });
    for place in [&folder, &primary, &mountpoint] {
        assert!(!place.join(transient.path()).exists(), "{place:?}");
    }
}

#[test]
fn transient_jobs_are_not_copied_before_their_plan_has_ended() {
    transient_jobs_are_left_to_their_plan("backup", false);
}

#[test]
fn transient_jobs_are_not_moved_before_their_plan_has_ended() {
    transient_jobs_are_left_to_their_plan("move", false);
}

#[test]
fn transient_jobs_of_a_plan_that_was_killed_are_archived() {
    transient_jobs_are_left_to_their_plan("move", true);
}
