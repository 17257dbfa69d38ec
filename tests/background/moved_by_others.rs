//! Jobs that another program moved before they were copied to the `backup` folder.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::common::{Workspace, run};
use crate::job::{self, TASK, hash};
use crate::stage::{has_all, staging, status, until, verify_all};

/// A workspace with a `backup` and a `move` folder.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup", "move"]);
    workspace.tune("{settle: 100ms, scan_interval: 200ms}");
    workspace
}

/// A job that only the `move` folder has, as experimaestro makes it: without a manifest.
fn moved(workspace: &Workspace, number: usize) -> PathBuf {
    let copy = workspace.folder("move").join(job::path(number));
    job::make(&workspace.folder("move"), number);
    fs::remove_dir_all(workspace.folder("move").join("partials")).unwrap();
    let link = workspace.primary().join(job::path(number));
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(&copy, link).unwrap();
    copy
}

/// Asserts that the `backup` folder has what the `move` folder has of a job.
fn assert_backed_up(workspace: &Workspace, number: usize) {
    let [backup, copy] = ["backup", "move"].map(|mode| {
        let folder = workspace.folder(mode);
        job::tree(&folder.join(job::path(number)))
    });
    assert_eq!(backup, copy);
}

fn has_manifest(folder: &Path, number: usize) -> bool {
    let name = format!("{}.json", hash(number));
    folder
        .join(".xpmfs/manifests")
        .join(TASK)
        .join(name)
        .exists()
}

#[test]
fn a_moved_job_without_a_backup_gets_one() {
    let workspace = workspace();
    let mountpoint = workspace.mountpoint("elsewhere");
    moved(&workspace, 0);
    // A crash of experimaestro between two steps leaves no symlink.
    moved(&workspace, 1);
    fs::remove_file(workspace.primary().join(job::path(1))).unwrap();
    let _mounted = workspace.mount_archiving(&mountpoint, &[]);
    until("they have a backup", || {
        (0..2).all(|number| has_manifest(&workspace.folder("backup"), number))
    });
    // One that comes later.
    moved(&workspace, 2);
    run(workspace
        .xpmfs()
        .args(["umount", "--drain"])
        .arg(&mountpoint));
    (0..3).for_each(|number| assert_backed_up(&workspace, number));
    verify_all(&workspace, 6);
    for mode in ["backup", "move"] {
        assert_eq!(staging(&workspace.folder(mode)), [""; 0]);
    }
}

/// experimaestro was killed while it removed the directory of a moved job.
#[test]
fn what_another_program_left_of_a_moved_job_is_not_archived_in_its_place() {
    let workspace = workspace();
    let mountpoint = workspace.mountpoint("elsewhere");
    let copy = moved(&workspace, 0);
    let own = workspace.primary().join(job::path(0));
    fs::remove_file(&own).unwrap();
    run(std::process::Command::new("cp")
        .arg("-a")
        .args([&copy, &own]));
    fs::remove_file(own.join("model.bin")).unwrap();
    let mounted = workspace.mount_archiving(&mountpoint, &[]);
    until("the job has a backup", || {
        has_all(&workspace.folder("backup"), 0..1)
    });
    assert_backed_up(&workspace, 0);
    assert_eq!(mounted.location(job::path(0)), "move");
}

#[test]
fn nothing_is_done_while_another_program_moves_the_job() {
    let workspace = workspace();
    let mountpoint = workspace.mountpoint("elsewhere");
    let copy = moved(&workspace, 0);
    let lock = copy.with_file_name(format!(".tmp.{}.lock", hash(0)));
    let lock = File::create(lock).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let _mounted = workspace.mount_archiving(&mountpoint, &[]);
    let waits = || {
        let status = status(&workspace, &mountpoint);
        let waiting = status["archive"]["waiting"].as_array().unwrap();
        waiting.iter().any(|job| job["refused"] == true)
    };
    until("the job waits", waits);
    let both = ["backup", "move"].map(|mode| workspace.folder(mode));
    assert!(both.iter().all(|folder| !has_manifest(folder, 0)));
    assert!(!has_all(&both[0], 0..1));
    drop(lock);
    until("the job has a backup", || {
        both.iter().all(|folder| has_manifest(folder, 0))
    });
    assert_backed_up(&workspace, 0);
}

#[test]
fn moved_jobs_that_are_excluded_or_unfinished_get_no_backup() {
    let workspace = workspace();
    let mountpoint = workspace.mountpoint("elsewhere");
    let out = moved(&workspace, 0);
    fs::write(out.join(".experimaestro/no-backup"), "").unwrap();
    let unfinished = moved(&workspace, 1);
    fs::remove_file(unfinished.join("train.done")).unwrap();
    let _mounted = workspace.mount_archiving(&mountpoint, &[]);
    moved(&workspace, 2);
    until("the other one has a backup", || {
        has_manifest(&workspace.folder("backup"), 2)
    });
    run(workspace
        .xpmfs()
        .args(["umount", "--drain"])
        .arg(&mountpoint));
    let both = ["backup", "move"].map(|mode| workspace.folder(mode));
    assert!(!has_all(&both[0], 0..1) && !has_all(&both[0], 1..2));
    assert!((0..2).all(|number| !has_manifest(&both[1], number)));
}

/// The `move` folder is the directory of another workspace, which has jobs of its own.
#[test]
fn jobs_of_another_workspace_get_no_backup() {
    let workspace = workspace();
    let mountpoint = workspace.mountpoint("elsewhere");
    let folder = workspace.folder("move");
    fs::write(folder.join(".__experimaestro__"), "").unwrap();
    job::make(&folder, 0);
    moved(&workspace, 1);
    let _mounted = workspace.mount_archiving(&mountpoint, &[]);
    until("the moved one has a backup", || {
        has_manifest(&workspace.folder("backup"), 1)
    });
    run(workspace
        .xpmfs()
        .args(["umount", "--drain"])
        .arg(&mountpoint));
    assert!(!has_all(&workspace.folder("backup"), 0..1));
}
