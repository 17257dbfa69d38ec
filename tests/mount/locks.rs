//! `flock` through a mount.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::common::tracer::{Tracer, serving};
use crate::common::{Workspace, eventually, is_root, program, run, say};

#[test]
fn locks_through_the_mount_and_beside_it_exclude_each_other() {
    let workspace = Workspace::new();
    fs::write(workspace.primary().join("lock"), "").unwrap();
    let elsewhere = workspace.mountpoint("elsewhere");
    let _mounted = workspace.mount_at(&elsewhere);
    let through = File::open(elsewhere.join("lock")).unwrap();
    let beside = File::open(workspace.primary().join("lock")).unwrap();
    let try_lock = |file: &File| rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive);
    try_lock(&through).unwrap();
    assert_eq!(try_lock(&beside), Err(Errno::WOULDBLOCK));
    rustix::fs::flock(&through, FlockOperation::Unlock).unwrap();
    try_lock(&beside).unwrap();
    assert_eq!(try_lock(&through), Err(Errno::WOULDBLOCK));
    let waiter = std::thread::spawn(move || {
        rustix::fs::flock(&through, FlockOperation::LockExclusive).unwrap();
    });
    // It waits: the lock is still ours.
    std::thread::sleep(Duration::from_millis(50));
    assert!(!waiter.is_finished());
    drop(beside);
    waiter.join().unwrap();
}

#[test]
fn somebody_who_waits_for_a_lock_can_be_killed() {
    let workspace = Workspace::new();
    fs::write(workspace.primary().join("lock"), "").unwrap();
    let mounted = workspace.mount_in_place();
    let path = mounted.path().join("lock");
    let held = File::open(&path).unwrap();
    rustix::fs::flock(&held, FlockOperation::LockExclusive).unwrap();
    for signal in ["-INT", "-KILL"] {
        // What runs in a shell's background has been told to ignore SIGINT; the waiter is not to.
        let mut waiter = Command::new("env")
            .args(["--default-signal", "flock"])
            .arg(&path)
            .arg("true")
            .spawn()
            .unwrap();
        let pid = waiter.id().to_string();
        eventually("it waits for the lock", || {
            let stack = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
            stack.contains("fuse") || stack.contains("request_wait")
        });
        run(Command::new("kill").args([signal, &pid]));
        let mut status = None;
        eventually("it ends", || {
            status = waiter.try_wait().unwrap();
            status.is_some()
        });
        assert!(!status.unwrap().success());
    }
}

#[test]
fn a_lock_is_free_when_its_holder_is_gone_though_others_have_the_file_open() {
    let workspace = Workspace::new();
    let mounted = workspace.mount_in_place();
    let path = mounted.path().join("lock");
    let holder = File::create(&path).unwrap();
    let reader = File::open(&path).unwrap();
    rustix::fs::flock(&holder, FlockOperation::LockExclusive).unwrap();
    drop(holder);
    let next = File::open(&path).unwrap();
    eventually("the lock is free", || {
        rustix::fs::flock(&next, FlockOperation::NonBlockingLockExclusive).is_ok()
    });
    drop(reader);
}

/// Delays all that one thread of a mount's process does for requests, while its other threads go on.
fn slow_thread(workspace: &Workspace, mountpoint: &Path) -> Tracer {
    let pid = serving(workspace, mountpoint);
    let mut threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let thread = threads.find_map(|thread| {
        let path = thread.unwrap().path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        name.starts_with("fuser-").then_some(path)
    });
    let thread = thread.expect("a thread that reads requests");
    let tid = thread.file_name().unwrap().to_str().unwrap().parse();
    let delayed = "inject=read:delay_exit=10000";
    let options = ["-o", "/dev/null", "-e", "trace=read", "-e", delayed];
    Tracer::of_thread(tid.unwrap(), &options)
}

/// The kernel reports the end of the file only after the `close`, and for most files the `close` itself not at all.
#[test]
fn a_lock_that_is_released_by_closing_is_not_refused() {
    if !is_root() {
        say("SKIPPED: only root traces the daemon");
        return;
    }
    if program("strace").is_none() {
        return;
    }
    for workspace in [Workspace::new(), Workspace::of_ordinary_user()] {
        let mountpoint = workspace.mountpoint("elsewhere");
        let _mounted = workspace.mount_at(&mountpoint);
        let slow = slow_thread(&workspace, &mountpoint);
        workspace.as_user(|| {
            for name in ["data", "job.lock"] {
                let path = mountpoint.join(name);
                File::create(&path).unwrap();
                for write in [false, true] {
                    for round in 0..40 {
                        let file = File::options().read(true).write(write).open(&path);
                        let file = file.unwrap();
                        let locked =
                            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
                        assert_eq!(locked, Ok(()), "{name}, write: {write}, round {round}");
                    }
                }
            }
        });
        drop(slow);
    }
}
