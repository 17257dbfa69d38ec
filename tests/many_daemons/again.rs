//! What a program sees of a job that another node has just moved, within the time that names are cached for.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::common::{Workspace, eventually, job, run};

#[test]
fn a_job_that_another_node_has_just_moved_is_changed() {
    let workspace = Workspace::builder().folders(&["move"]).build();
    let primary = workspace.primary().join(job::path(0));
    let archived = workspace.folder("move").join(job::path(0));
    fs::create_dir_all(archived.parent().unwrap()).unwrap();
    job::make(&workspace.primary(), 0);
    let mounted = workspace.mount_at(&workspace.mountpoint("elsewhere"));
    let file = mounted.path().join(job::path(0)).join("train.out");
    for round in 0..5 {
        // The kernel caches the names that lead to the primary.
        fs::metadata(&file).unwrap();
        run(Command::new("cp")
            .args(["-a"])
            .arg(&primary)
            .arg(archived.parent().unwrap()));
        fs::rename(&primary, workspace.top().join(format!("old-{round}"))).unwrap();
        symlink(&archived, &primary).unwrap();
        let mut opened = OpenOptions::new().append(true).open(&file).unwrap();
        opened.write_all(b"more\n").unwrap();
        drop(opened);
        let written = fs::read_to_string(primary.join("train.out")).unwrap();
        assert_eq!(written.matches("more\n").count(), round + 1);
        fs::remove_dir_all(&archived).unwrap();
    }
    mounted.unmount();
}

#[test]
fn the_lock_of_a_job_that_was_just_moved_is_not_free() {
    let workspace = Workspace::builder()
        .folders(&["move"])
        .keys("{settle: 50ms, scan_interval: 100ms}")
        .build();
    let primary = workspace.primary().join(job::path(0));
    job::make(&workspace.primary(), 0);
    fs::write(primary.join("train.lock"), "").unwrap();
    // As through a name that another node has cached.
    let lock = File::open(primary.join("train.lock")).unwrap();
    let mounted = workspace.mount_archiving(&workspace.mountpoint("elsewhere"), &[]);
    eventually("it is moved", || primary.is_symlink());
    let locked = flock(&lock, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(
        locked,
        Err(Errno::WOULDBLOCK),
        "a second program could lock it at its new place"
    );
    eventually("its old directory is removed", || {
        flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
    });
    mounted.unmount();
}

/// Takes the lock of a job as experimaestro does; `None` if a program has it.
fn lock(job: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let lock = options.open(job.join("train.lock")).unwrap();
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Some(lock),
        Err(Errno::WOULDBLOCK) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Takes the lock of a job that a folder serves since a moment ago, calls `change`, and expects that the lock is held where the job is then.
fn expect_held_while(workspace: &Workspace, top: &Path, change: impl FnOnce(&Path)) {
    let shown = top.join(job::path(0));
    let held = lock(&shown).unwrap();
    change(&shown);
    let primary = workspace.primary().join(job::path(0));
    assert!(!primary.is_symlink() && primary.exists());
    for job in [&shown, &primary] {
        assert!(lock(job).is_none(), "two hold the lock of {job:?}");
    }
    drop(held);
    eventually("it is free", || {
        lock(&shown).is_some() && lock(&primary).is_some()
    });
}

fn append(path: &Path) {
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(b"more\n").unwrap();
}

/// A workspace with a job that was locked once.
fn with_a_job(mode: &'static str) -> Workspace {
    let workspace = Workspace::builder()
        .folders(&[mode])
        .keys("{settle: 50ms, scan_interval: 100ms}")
        .build();
    job::make(&workspace.primary(), 0);
    fs::write(
        workspace.primary().join(job::path(0)).join("train.lock"),
        "",
    )
    .unwrap();
    workspace
}

#[test]
fn the_lock_of_a_job_that_is_changed_right_after_its_move_has_one_holder() {
    let workspace = with_a_job("move");
    let mounted = workspace.mount_archiving(&workspace.mountpoint("elsewhere"), &[]);
    let primary = workspace.primary().join(job::path(0));
    eventually("it is moved", || primary.is_symlink());
    expect_held_while(&workspace, mounted.path(), |job| {
        append(&job.join("train.out"));
    });
    mounted.unmount();
}

#[test]
fn the_lock_of_a_job_that_is_put_back_has_one_holder() {
    let workspace = with_a_job("move");
    let mounted = workspace.mount_archiving(&workspace.mountpoint("elsewhere"), &[]);
    let primary = workspace.primary().join(job::path(0));
    eventually("it is moved", || primary.is_symlink());
    let aside = primary.with_file_name(format!(".tmp.{}", job::hash(0)));
    expect_held_while(&workspace, mounted.path(), |_| {
        // As by a program of another node that has opened it before.
        append(&aside.join("train.out"));
        eventually("it is put back", || !primary.is_symlink());
    });
    mounted.unmount();
}

#[test]
fn the_lock_of_a_job_that_is_changed_while_it_is_released_has_one_holder() {
    let workspace = with_a_job("backup");
    let mounted = workspace.mount_archiving(&workspace.mountpoint("elsewhere"), &[]);
    let name = format!("{}/{}", job::TASK, job::hash(0));
    run(workspace
        .xpmfs()
        .args(["jobs", "archive", "-w", "test", &name]));
    let mut release = workspace.xpmfs();
    release.args(["jobs", "release", "-w", "test", "--yes", &name]);
    let mut release = release.spawn().unwrap();
    let primary = workspace.primary().join(job::path(0));
    eventually("it is being released", || !primary.exists());
    expect_held_while(&workspace, mounted.path(), |job| {
        append(&job.join("train.out"));
        release.wait().unwrap();
    });
    mounted.unmount();
}
