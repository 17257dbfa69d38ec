//! `flock` through a mount.

use std::fs::{self, File};
use std::process::Command;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::common::{Workspace, eventually, run};

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
