//! A plan run again, when folders serve its jobs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::common::{Folders, Workspace, assert_unchanged, snapshot};
use crate::plan::{Job, Plan};

/// Moves a job of the primary by hand into a folder, which has its symlink in the primary if its mode
/// is `move`.
fn move_by_hand(workspace: &Workspace, job: &Job, folder: &str) {
    let (from, to) = (
        workspace.primary().join(job.path()),
        workspace.folder(folder).join(job.path()),
    );
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::rename(&from, &to).unwrap();
    if folder == "move" {
        symlink(&to, &from).unwrap();
    }
}

/// Runs a plan in a plain workspace, moves most of its jobs into folders, and runs it again through a
/// mount at `mountpoint`.
fn nothing_runs_again(workspace: &Workspace, mountpoint: &Path) {
    let Some(plan) = Plan::of(workspace) else {
        return;
    };
    let first = plan.run(&workspace.primary(), &["6"]);
    assert_eq!(first.executed.len(), 7);
    let places = [
        "backup", "use", "move", "primary", "use", "primary", "backup",
    ];
    let placed = || first.jobs.iter().zip(places);
    for (job, folder) in placed().filter(|(_, folder)| *folder != "primary") {
        move_by_hand(workspace, job, folder);
    }
    let folders = Folders::of(workspace);

    let mounted = workspace.mount_at(mountpoint);
    for _ in 0..2 {
        let again = plan.run(mountpoint, &["6"]);
        assert_eq!(again.jobs, first.jobs);
        assert_eq!(again.executed, []);
        for (job, place) in placed() {
            assert_eq!(mounted.location(job.path()), place, "{job:?}");
        }
    }
    mounted.unmount();

    folders.assert_unchanged();
    for (job, place) in placed() {
        let kind = fs::symlink_metadata(workspace.primary().join(job.path()))
            .ok()
            .map(|meta| meta.is_dir());
        let expected = match place {
            "primary" => Some(true),
            "move" => Some(false),
            _ => None,
        };
        assert_eq!(kind, expected, "{job:?}");
    }
}

#[test]
fn in_place_no_job_runs_again_and_no_folder_changes() {
    let workspace = Workspace::new();
    nothing_runs_again(&workspace, &workspace.primary());
}

#[test]
fn elsewhere_no_job_runs_again_and_no_folder_changes() {
    let workspace = Workspace::new();
    let mountpoint = workspace.mountpoint("mnt");
    nothing_runs_again(&workspace, &mountpoint);
}

#[test]
fn jobs_of_a_colleague_do_not_run_again() {
    let colleague = Workspace::builder().primary("their workspace").build();
    let Some(theirs) = Plan::of(&colleague) else {
        return;
    };
    let first = theirs.run(&colleague.primary(), &["2"]);
    let before = snapshot(&colleague.primary());

    let workspace = Workspace::new();
    workspace.attach("use", &colleague.primary());
    let ours = Plan::of(&workspace).unwrap();
    let mountpoint = workspace.mountpoint("mnt");
    for at in [&workspace.primary(), &mountpoint] {
        let mounted = workspace.mount_at(at);
        // One training is new; it needs a file of a job of theirs.
        let count = if at == &mountpoint { "2" } else { "3" };
        let again = ours.run(at, &[count]);
        assert!(again.jobs.starts_with(&first.jobs));
        assert_eq!(again.executed, again.jobs[first.jobs.len()..]);
        for job in &first.jobs {
            assert_eq!(mounted.location(job.path()), "use");
        }
        mounted.unmount();
    }
    assert_unchanged(&colleague.primary(), &before);
}

/// All jobs of a finished plan are released: it is run again through the mount, and runs and copies nothing.
#[test]
fn a_plan_whose_jobs_are_released_runs_nothing() {
    let workspace = Workspace::builder()
        .folders(&["backup"])
        .keys("{settle: 0s}")
        .build();
    let Some(plan) = Plan::of(&workspace) else {
        return;
    };
    let first = plan.run(&workspace.primary(), &["6"]);
    assert_eq!(first.executed.len(), 7);
    let jobs = |arguments: &[&str]| {
        let mut command = workspace.xpmfs();
        command.args(["jobs", arguments[0], "-w", "test"]);
        let output = command.args(&arguments[1..]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}");
        text
    };
    jobs(&["archive", "--all"]);
    let mountpoint = workspace.primary();
    let mounted = workspace.mount_at(&mountpoint);
    let text = jobs(&["release", "--older-than", "0s", "--yes"]);
    assert!(text.contains("7 jobs released"), "{text}");
    let before = snapshot(&workspace.folder("backup"));
    for _ in 0..2 {
        let again = plan.run(&mountpoint, &["6"]);
        assert_eq!(again.jobs, first.jobs);
        assert_eq!(again.executed, []);
        for job in &first.jobs {
            assert_eq!(mounted.location(job.path()), "backup", "{job:?}");
        }
    }
    // A parameter changes: only the new job is written. It reads a file of an archived one.
    let more = plan.run(&mountpoint, &["7"]);
    let (new, old) = more.jobs.split_last().unwrap();
    assert_eq!(old, first.jobs);
    assert_eq!(more.executed, std::slice::from_ref(new));
    mounted.unmount();
    assert_unchanged(&workspace.folder("backup"), &before);
    for job in &first.jobs {
        assert!(!workspace.primary().join(job.path()).exists(), "{job:?}");
    }
    assert!(workspace.primary().join(new.path()).is_dir(), "{new:?}");
}

/// A deleted job is run again by its plan, as one that never was; then the deleted one stays in the trash. A job that nothing has made again
/// comes back, and its plan runs nothing.
#[test]
fn a_deleted_job_is_made_again_by_its_plan() {
    let workspace = Workspace::builder()
        .folders(&["backup"])
        .keys("{settle: 0s}")
        .build();
    let Some(plan) = Plan::of(&workspace) else {
        return;
    };
    let first = plan.run(&workspace.primary(), &["3"]);
    let jobs = |arguments: &[&str]| {
        let mut command = workspace.xpmfs();
        command.args(["jobs", arguments[0], "-w", "test"]);
        let output = command.args(&arguments[1..]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), text)
    };
    assert!(jobs(&["archive", "--all"]).0);
    let deleted = &first.jobs[0];
    let id = deleted.path().strip_prefix("jobs").unwrap().to_owned();
    let id = id.to_str().unwrap();
    for at in [workspace.primary(), workspace.mountpoint("mnt")] {
        let mounted = workspace.mount_archiving(&at, &[]);
        let (success, text) = jobs(&["delete", "--yes", id]);
        assert!(success, "{text}");
        assert!(!at.join(deleted.path()).exists());
        let (success, text) = jobs(&["undelete", id]);
        assert!(success, "{text}");
        assert_eq!(plan.run(&at, &["3"]).executed, []);
        let (success, text) = jobs(&["delete", "--yes", id]);
        assert!(success, "{text}");
        let again = plan.run(&at, &["3"]);
        assert_eq!(again.jobs, first.jobs);
        assert_eq!(again.executed, std::slice::from_ref(deleted));
        let (success, text) = jobs(&["undelete", id]);
        assert!(!success && text.contains("made again"), "{text}");
        let copy = workspace.folder("backup").join(deleted.path());
        crate::common::eventually("it is archived again", || copy.exists());
        mounted.unmount();
    }
    let (success, text) = jobs(&["verify", "--all"]);
    assert!(success, "{text}");
}
