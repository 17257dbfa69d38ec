//! experimaestro's own archiving moves a job before xpmfs has copied it to the `backup` folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::common::{Workspace, eventually, fails, run};
use crate::plan::{Job, Plan};

/// Takes the lock with which a process copies a job to a folder, so that experimaestro leaves the job out there.
fn lock_in(folder: &Path, job: &Job) -> File {
    let task = folder.join("jobs").join(&job.task);
    fs::create_dir_all(&task).unwrap();
    let lock = File::create(task.join(format!(".tmp.{}.lock", job.hash))).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    lock
}

fn manifest(folder: &Path, job: &Job) -> PathBuf {
    let name = format!("{}.json", job.hash);
    folder.join(".xpmfs/manifests").join(&job.task).join(name)
}

/// A plan that names its workspace by the id moves its job while a process copies it to the `backup` folder.
fn a_job_that_experimaestro_moves_gets_its_backup(workspace: &Workspace, mountpoint: &Path) {
    let Some(plan) = Plan::of(workspace) else {
        return;
    };
    workspace.with_folders(&["backup", "move"]);
    workspace.tune("{settle: 500ms, scan_interval: 300ms}");
    let settings = workspace.top().join(".config/experimaestro");
    fs::create_dir_all(&settings).unwrap();
    fs::copy(workspace.settings(), settings.join("settings.yaml")).unwrap();
    let both = ["backup", "move"].map(|mode| workspace.folder(mode));
    let [backup, moved] = &both;
    let mounted = workspace.mount_archiving(mountpoint, &[]);

    let mut running = plan.start(&workspace.primary(), &["0", "--id", "test"]);
    let job = running.wait_for_a_job();
    let copying = lock_in(backup, &job);
    running.open_gate();
    running.finish_complaining();
    assert!(moved.join(job.file("done")).exists(), "it was not moved");
    assert!(!backup.join(job.path()).exists());
    let check = || {
        let mut command = workspace.xpmfs();
        command.args(["status", "--check"]).arg(mountpoint);
        command
    };
    eventually("`status --check` reports the job", || {
        !check().output().unwrap().status.success()
    });
    let said = fails(&mut check());
    let said = String::from_utf8_lossy(&said.stderr);
    let backup_path = backup.to_str().unwrap();
    assert!(
        said.contains("1 moved job") && said.contains(backup_path),
        "{said}"
    );

    drop(copying);
    eventually("the job has its backup", || {
        both.iter().all(|folder| manifest(folder, &job).exists())
    });
    eventually("`status --check` has nothing to report", || {
        check().output().unwrap().status.success()
    });
    // Through the mount, experimaestro's symlink is refused: then the first folder serves the job.
    let served = match mountpoint == workspace.primary() {
        true => "backup",
        false => "move",
    };
    // What the mount has just looked up counts for a moment.
    eventually("the first folder serves the job", || {
        mounted.location(job.path()) == served
    });
    let report = run(workspace
        .xpmfs()
        .args(["--json", "jobs", "verify", "-w", "test", &job.hash]));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let copies = report.as_array().unwrap();
    assert_eq!(copies.len(), 2, "{report}");
    let whole = |copy: &serde_json::Value| copy["whole"] == true && copy["manifest"] == true;
    assert!(copies.iter().all(whole), "{report}");
}

#[test]
fn a_job_that_experimaestro_moves_beside_a_mount_gets_its_backup() {
    let workspace = Workspace::new();
    let mountpoint = workspace.mountpoint("elsewhere");
    a_job_that_experimaestro_moves_gets_its_backup(&workspace, &mountpoint);
}

#[test]
fn a_job_that_experimaestro_moves_through_a_mount_gets_its_backup() {
    let workspace = Workspace::new();
    a_job_that_experimaestro_moves_gets_its_backup(&workspace, &workspace.primary());
}
