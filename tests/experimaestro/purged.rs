//! A plan run again after a purge has removed files of its jobs, one by one.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Workspace, assert_unchanged, run, snapshot};
use crate::plan::{Job, Plan};

/// Removes some files of a job, and leaves its directories: each time others, and the marker twice out of three times.
fn purge(job: &Path, round: usize) {
    let mut next = vec![job.to_owned()];
    let mut number = round;
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                next.push(path);
                continue;
            }
            number += 1;
            let is_marker = path
                .extension()
                .is_some_and(|extension| extension == "done");
            if !number.is_multiple_of(3) || (is_marker && !round.is_multiple_of(3)) {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

fn copy_of(workspace: &Workspace, job: &Job) -> std::path::PathBuf {
    workspace.folder("backup").join(job.path())
}

/// Runs a plan in a plain workspace, archives its jobs by hand, purges them, and runs it again through a mount.
fn nothing_runs_again(workspace: &Workspace, mountpoint: &Path) {
    let Some(plan) = Plan::of(workspace) else {
        return;
    };
    let first = plan.run(&workspace.primary(), &["6"]);
    assert_eq!(first.executed.len(), 7);
    for job in &first.jobs {
        let copy = copy_of(workspace, job);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        let original = workspace.primary().join(job.path());
        run(Command::new("cp").arg("-a").arg(original).arg(&copy));
        for name in fs::read_dir(&copy).unwrap() {
            let path = name.unwrap().path();
            let internal = path
                .extension()
                .is_some_and(|it| it == "lock" || it == "pid");
            if internal {
                fs::remove_file(path).unwrap();
            }
        }
    }
    for (round, job) in first.jobs.iter().enumerate() {
        purge(&workspace.primary().join(job.path()), round);
    }
    let copies: Vec<_> = first
        .jobs
        .iter()
        .map(|job| snapshot(&copy_of(workspace, job)))
        .collect();
    let mounted = workspace.mount_at(mountpoint);
    for _ in 0..2 {
        let again = plan.run(mountpoint, &["6"]);
        assert_eq!(again.jobs, first.jobs);
        assert_eq!(again.executed, []);
        for job in &first.jobs {
            assert_eq!(mounted.location(job.path()), "backup", "{job:?}");
        }
    }
    mounted.unmount();
    for (job, before) in first.jobs.iter().zip(&copies) {
        assert_unchanged(&copy_of(workspace, job), before);
    }
}

#[test]
fn in_place_no_purged_job_runs_again() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    nothing_runs_again(&workspace, &workspace.primary());
}

#[test]
fn elsewhere_no_purged_job_runs_again() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup"]);
    let mountpoint = workspace.mountpoint("mnt");
    nothing_runs_again(&workspace, &mountpoint);
}
