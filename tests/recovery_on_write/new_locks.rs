//! Locks of an archived job that are taken for the first time in the moment in which the job is recovered, and processes that are stopped
//! in this moment.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::common::job::hash;
use crate::common::tracer::{Tracer, is_in, serving};
use crate::common::{Workspace, eventually, is_root, run, say};
use crate::stage::{TASK, archived, assert_clean};

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
    let pid = serving(&workspace, &mountpoint);
    let _delayed = Tracer::delaying(pid, "renameat2,linkat", "delay_enter", DELAY);
    let both = std::thread::scope(|scope| {
        let write = scope.spawn(|| {
            let mut file = File::options().append(true).open(shown.join("train.out"))?;
            file.write_all(b"more")
        });
        eventually("the job is about to be published", || {
            is_in(pid, &[libc::SYS_renameat2])
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
    let pid = serving(&workspace, &mountpoint);
    let _delayed = Tracer::delaying(pid, "mkdirat", "delay_enter", DELAY);
    let both = std::thread::scope(|scope| {
        let first = scope.spawn(|| lock(&shown));
        // For the directory of the lock: the daemon has seen that the job is not in the primary.
        eventually("the lock is about to be made", || {
            is_in(pid, &[libc::SYS_mkdirat])
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

/// As after a crash during the move, and after a write to the directory by a process that had it open.
#[test]
fn a_lock_that_is_made_while_a_moved_job_is_put_back_has_one_holder() {
    if !is_root() {
        say("SKIPPED: only root traces the daemon");
        return;
    }
    let workspace = Workspace::builder().folders(&["move"]).build();
    let own = job(&workspace.primary());
    fs::create_dir_all(&own).unwrap();
    for name in ["params.json", "train.out", "train.done"] {
        fs::write(own.join(name), "{}").unwrap();
    }
    let mut archive = workspace.xpmfs();
    archive.args(["jobs", "archive", "-w", "test", &hash(0)]);
    archive.env("XPMFS_TEST_GRACE_MS", "3600000");
    let mut archive = archive.spawn().unwrap();
    eventually("the job is moved", || own.is_symlink());
    archive.kill().unwrap();
    archive.wait().unwrap();
    append(&own.with_file_name(format!(".tmp.{}", hash(0)))).unwrap();

    let mountpoint = workspace.mountpoint("elsewhere");
    let _mounted = workspace.mount_at(&mountpoint);
    let shown = job(&mountpoint);
    fs::create_dir_all(workspace.primary().join(".xpmfs/internal")).unwrap();
    let pid = serving(&workspace, &mountpoint);
    let _delayed = Tracer::delaying(pid, "mkdirat", "delay_enter", DELAY);
    let both = std::thread::scope(|scope| {
        let first = scope.spawn(|| lock(&shown));
        eventually("the lock is about to be made", || {
            is_in(pid, &[libc::SYS_mkdirat])
        });
        let mut archive = workspace.xpmfs();
        archive.args(["jobs", "archive", "-w", "test", &hash(0)]);
        let archive = archive.stderr(Stdio::piped()).spawn().unwrap();
        eventually("the job is put back", || !own.is_symlink());
        let second = lock(&own);
        let both = [first.join().unwrap(), second];
        let said = archive.wait_with_output().unwrap().stderr;
        let said = String::from_utf8_lossy(&said);
        assert_eq!(said.matches("its lock is held").count(), 1, "{said}");
        both
    });
    let held = both.each_ref().map(Option::is_some);
    assert_ne!(held, [true, true], "two processes hold the lock");
    assert_ne!(held, [false, false]);
}

/// Holds the lock that keeps internal files from being created while a job is published, as a process that is stopped.
fn hold_gate(workspace: &Workspace, operation: FlockOperation) -> File {
    let own = workspace.primary().join(".xpmfs");
    fs::create_dir_all(&own).unwrap();
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let gate = options.open(own.join("internal.lock")).unwrap();
    flock(&gate, operation).unwrap();
    gate
}

fn append(job: &Path) -> std::io::Result<()> {
    let mut file = File::options().append(true).open(job.join("train.out"))?;
    file.write_all(b"more\n")
}

#[test]
fn a_job_is_not_published_while_a_process_creates_an_internal_file() {
    let workspace = Workspace::builder().folders(&["backup"]).build();
    archived(&workspace, "backup", &hash(0));
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&mountpoint);
    let shown = job(&mountpoint);
    let gate = hold_gate(&workspace, FlockOperation::LockShared);
    let error = append(&shown).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::BUSY), "{error}");
    assert!(!job(&workspace.primary()).exists());
    assert_clean(&workspace.primary());
    let log = workspace.log();
    assert!(log.contains("holds the lock"), "{log}");
    assert_eq!(mounted.location(&shown), "backup");
    drop(gate);
    append(&shown).unwrap();
    assert_eq!(mounted.location(&shown), "primary");
}

#[test]
fn locks_are_created_while_the_process_that_publishes_a_job_is_stopped() {
    let workspace = Workspace::builder().folders(&["backup"]).build();
    let jobs = 4;
    for number in 0..jobs {
        archived(&workspace, "backup", &hash(number));
    }
    let mountpoint = workspace.mountpoint("elsewhere");
    let _mounted = workspace.mount_at(&mountpoint);
    let gate = hold_gate(&workspace, FlockOperation::LockExclusive);
    std::thread::scope(|scope| {
        for number in 0..jobs {
            let job = mountpoint.join("jobs").join(TASK).join(hash(number));
            scope.spawn(move || assert!(lock(&job).is_some()));
        }
    });
    drop(gate);
    let log = workspace.log();
    let warned = log.matches("holds the lock").count();
    assert_eq!(warned, 1, "{log}");
}

/// The folder's disk may take minutes to give the contents, as one that has them on tapes.
#[test]
fn jobs_are_published_while_an_internal_file_is_read_from_a_folder() {
    let Some(workspace) = workspace() else {
        return;
    };
    let archived = job(&workspace.folder("backup"));
    fs::write(archived.join("train.pid"), "4711").unwrap();
    let mountpoint = workspace.mountpoint("elsewhere");
    let _mounted = workspace.mount_at(&mountpoint);
    let shown = job(&mountpoint);
    let pid = serving(&workspace, &mountpoint);
    let _delayed = Tracer::delaying(pid, "pread64", "delay_enter", DELAY);
    std::thread::scope(|scope| {
        let write = scope.spawn(|| {
            let mut options = File::options();
            options.write(true).open(shown.join("train.pid")).unwrap()
        });
        eventually("the file is read", || is_in(pid, &[libc::SYS_pread64]));
        hold_gate(&workspace, FlockOperation::NonBlockingLockExclusive);
        write.join().unwrap().write_all(b"4712").unwrap();
    });
    assert_eq!(fs::read(shown.join("train.pid")).unwrap(), b"4712");
    assert_eq!(fs::read(archived.join("train.pid")).unwrap(), b"4711");
}
