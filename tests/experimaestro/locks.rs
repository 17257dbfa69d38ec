//! Locks of jobs, which experimaestro takes with `flock`: through a mount, beside it, and through
//! another mount.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::common::{Folders, Workspace, eventually, run};

const TASK: &str = "my.module.train";

fn open(path: &Path) -> File {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).unwrap()
}

fn lock(file: &File) {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).unwrap();
}

fn is_held(path: &Path) -> bool {
    let file = open(path);
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => rustix::fs::flock(&file, FlockOperation::Unlock).map(|()| false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error),
    }
    .unwrap()
}

/// What is to be at once, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(20);

/// A process that wants a lock; it is killed when it is dropped.
struct Wanting(Child);

impl Wanting {
    /// One that waits for the lock, which somebody else has.
    fn waits(path: &Path) -> Wanting {
        let command = ["flock", path.to_str().unwrap(), "true"];
        let wanting = Wanting::start(&command);
        let call = format!("{} ", libc::SYS_flock);
        eventually("it waits for the lock", || {
            let pid = wanting.0.id();
            let now = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
            now.starts_with(&call)
        });
        wanting
    }

    /// One that has the lock until it is killed.
    fn holds(path: &Path) -> Wanting {
        // Without a child of its own, which would have the lock, too.
        let command = ["flock", "-F", path.to_str().unwrap(), "sleep", "600"];
        let wanting = Wanting::start(&command);
        eventually("it has the lock", || is_held(path));
        wanting
    }

    fn start(command: &[&str]) -> Wanting {
        // Tests that run in a shell's background have been told to ignore SIGINT, and so would it.
        let mut process = Command::new("env");
        process
            .arg("--default-signal")
            .args(command)
            .stdin(Stdio::null());
        Wanting(process.spawn().unwrap())
    }

    fn is_there(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Sends a signal, upon which it must end at once.
    fn end_by(mut self, signal: &str) {
        let sent = Instant::now();
        run(Command::new("kill").args([signal, &self.0.id().to_string()]));
        eventually("it ends", || !self.is_there());
        assert!(sent.elapsed() < AT_ONCE, "not at once");
        assert!(!self.0.wait().unwrap().success());
    }
}

impl Drop for Wanting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        // Not for ever: where a test fails, it may wait for what only the end of the mount gives.
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A lock that is taken under one path is seen under the other; who waits for it there gets it when it
/// is given back, and can be killed until then.
fn assert_exclusive(one: &Path, other: &Path) {
    let held = open(one);
    lock(&held);
    assert!(is_held(other));
    let mut waiting = Wanting::waits(other);
    assert!(waiting.is_there());
    rustix::fs::flock(&held, FlockOperation::Unlock).unwrap();
    eventually("who waits gets the lock", || !waiting.is_there());
    assert!(waiting.0.wait().unwrap().success());

    // It ended without giving the lock back: that is told through the mount a moment later.
    eventually("the lock is free", || {
        rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).is_ok()
    });
    for signal in ["-INT", "-TERM", "-KILL"] {
        Wanting::waits(other).end_by(signal);
    }
    rustix::fs::flock(&held, FlockOperation::Unlock).unwrap();
    // The killed ones have left nothing behind.
    assert!(!is_held(one) && !is_held(other));
    drop(held);

    let holding = Wanting::holds(one);
    let mut waiting = Wanting::waits(other);
    holding.end_by("-KILL");
    eventually("a killed process gives its lock up", || !waiting.is_there());
    eventually("nobody has it", || !is_held(one) && !is_held(other));
}

/// The lock of one job in the primary and of one in each folder.
fn locks(top: &Path) -> Vec<PathBuf> {
    ["primary", "use", "backup", "move"]
        .iter()
        .map(|hash| top.join("jobs").join(TASK).join(hash).join("train.lock"))
        .collect()
}

fn finish_one_everywhere(workspace: &Workspace) {
    for location in ["primary", "use", "backup", "move"] {
        let job = workspace.finished(location, TASK, location);
        if location != "use" {
            fs::write(job.join("train.lock"), "").unwrap();
        }
    }
}

#[test]
fn a_job_in_the_primary_has_one_lock_through_the_mount_and_beside_it() {
    let workspace = Workspace::new();
    finish_one_everywhere(&workspace);
    let mountpoint = workspace.mountpoint("mnt");
    let _mounted = workspace.mount_at(&mountpoint);
    let (through, beside) = (&locks(&mountpoint)[0], &locks(&workspace.primary())[0]);
    assert_exclusive(through, beside);
    assert_exclusive(beside, through);
}

#[test]
fn each_job_has_one_lock_in_all_mounts_of_its_workspace() {
    let workspace = Workspace::new();
    finish_one_everywhere(&workspace);
    let folders = Folders::of(&workspace);
    let mountpoint = workspace.mountpoint("mnt");
    let elsewhere = workspace.mount_at(&mountpoint);
    let in_place = workspace.mount_in_place();
    for (one, other) in locks(&mountpoint).iter().zip(locks(&workspace.primary())) {
        assert_exclusive(one, one);
        assert_exclusive(one, &other);
        assert_exclusive(&other, one);
    }
    in_place.unmount();
    elsewhere.unmount();
    folders.assert_unchanged();
}

#[test]
fn a_lock_given_up_by_closing_can_be_taken_at_once() {
    let workspace = Workspace::new();
    let mounted = workspace.mount_in_place();
    let path = mounted.path().join("lock");
    let refused = (0..2000).filter(|_| {
        let file = open(&path);
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
    });
    // The kernel promises nothing: on a machine that is very busy, it may tell us too late.
    let refused = refused.count();
    assert!(refused <= 20, "{refused} of 2000 are refused");
    // But one that is held is refused, and soon: also when its holder has closed another descriptor.
    let held = open(&path);
    lock(&held);
    drop(held.try_clone().unwrap());
    for _ in 0..2 {
        let asked = Instant::now();
        assert!(is_held(&path));
        assert!(asked.elapsed() < AT_ONCE);
    }
    drop(held);
    assert!(!is_held(&path));
}

#[test]
fn shared_locks_go_together_and_exclude_exclusive_ones() {
    let workspace = Workspace::new();
    finish_one_everywhere(&workspace);
    let mountpoint = workspace.mountpoint("mnt");
    let _elsewhere = workspace.mount_at(&mountpoint);
    let _in_place = workspace.mount_in_place();
    let share = |file: &File| rustix::fs::flock(file, FlockOperation::NonBlockingLockShared);
    for (one, other) in locks(&mountpoint).iter().zip(locks(&workspace.primary())) {
        let (a, b) = (open(one), open(&other));
        share(&a).unwrap();
        share(&b).unwrap();
        let upgraded = rustix::fs::flock(&a, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(upgraded, Err(Errno::WOULDBLOCK));
    }
}
