//! Locks of an archived job that are taken for the first time in the moment in which the job is recovered.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::common::job::hash;
use crate::common::{Workspace, eventually, is_root, run, say};
use crate::delayed::Delayed;
use crate::stage::{TASK, archived};

/// How long a call is delayed.
const DELAY: Duration = Duration::from_millis(500);

fn job(top: &Path) -> PathBuf {
    top.join("jobs").join(TASK).join(hash(0))
}

/// Takes the lock of a job, as experimaestro does; `None` if another process holds it.
fn lock(job: &Path) -> Option<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let lock = options.open(job.join("train.lock")).unwrap();
    let held = flock(&lock, FlockOperation::NonBlockingLockExclusive);
    held.is_ok().then_some(lock)
}

/// A workspace with a job that only the `backup` folder has, without a lock file.
fn workspace() -> Option<Workspace> {
    if !is_root() {
        say("SKIPPED: only root traces the daemon");
        return None;
    }
    let workspace = Workspace::builder().folders(&["backup"]).build();
    archived(&workspace, "backup", &hash(0));
    Some(workspace)
}

#[test]
fn a_lock_that_is_new_just_before_the_job_is_published_has_one_holder() {
    let Some(workspace) = workspace() else {
        return;
    };
    let mountpoint = workspace.mountpoint("elsewhere");
    let _mounted = workspace.mount_at(&mountpoint);
    let (shown, own) = (job(&mountpoint), job(&workspace.primary()));
    // The old names are removed by the second call.
    let delayed = Delayed::of(&workspace, &mountpoint, "renameat2,linkat", DELAY);
    let both = std::thread::scope(|scope| {
        let write = scope.spawn(|| {
            let mut file = File::options().append(true).open(shown.join("train.out"))?;
            file.write_all(b"more")
        });
        eventually("the job is about to be published", || {
            delayed.is_in(libc::SYS_renameat2)
        });
        let first = scope.spawn(|| lock(&shown));
        eventually("the job is published", || own.is_dir());
        let second = lock(&own);
        write.join().unwrap().unwrap();
        [first.join().unwrap(), second]
    });
    let held = both.each_ref().map(Option::is_some);
    assert_ne!(held, [true, true], "two processes hold the lock");
    assert_ne!(held, [false, false]);
}

#[test]
fn a_lock_that_is_made_while_the_job_is_published_has_one_holder() {
    let Some(workspace) = workspace() else {
        return;
    };
    let mountpoint = workspace.mountpoint("elsewhere");
    let _mounted = workspace.mount_at(&mountpoint);
    let (shown, own) = (job(&mountpoint), job(&workspace.primary()));
    fs::create_dir_all(workspace.primary().join(".xpmfs/internal")).unwrap();
    let delayed = Delayed::of(&workspace, &mountpoint, "mkdirat", DELAY);
    let both = std::thread::scope(|scope| {
        let first = scope.spawn(|| lock(&shown));
        // For the directory of the lock: the daemon has seen that the job is not in the primary.
        eventually("the lock is about to be made", || {
            delayed.is_in(libc::SYS_mkdirat)
        });
        let mut recover = workspace.xpmfs();
        run(recover.args(["jobs", "recover", "-w", "test", &hash(0)]));
        let second = lock(&own);
        [first.join().unwrap(), second]
    });
    let held = both.each_ref().map(Option::is_some);
    assert_ne!(held, [true, true], "two processes hold the lock");
    assert_ne!(held, [false, false]);
}
