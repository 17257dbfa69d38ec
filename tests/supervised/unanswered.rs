//! The process that serves a mount is killed when it has opened or closed a file, and has not told the kernel or the supervisor yet.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use xpmfs::daemon::control::Client;
use xpmfs::daemon::mounts;

use super::common::daemon::kill_worker;
use super::common::tracer::{Tracer, is_in};
use super::common::{self, eventually};
use super::killer::{child, processes};
use super::{HOWS, mount, workspace};

/// Longer than a kill takes, so that it comes before the reply that is delayed.
const DELAY: Duration = Duration::from_secs(1);

/// How many descriptors of files with this name a process has open.
fn descriptors(pid: i32, name: &str) -> usize {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    links
        .filter(|link| link.file_name().is_some_and(|it| it == name))
        .count()
}

/// Opens a file while the process is killed before it replies. Returns the open file, and the process that goes on.
fn opened_at_a_kill(
    (pid, supervisor): (i32, i32),
    name: &str,
    open: impl Fn() -> File + Sync,
) -> (File, i32) {
    let tracer = Tracer::delaying(pid, "writev", "delay_enter", DELAY);
    let file = std::thread::scope(|scope| {
        let opening = scope.spawn(&open);
        eventually("it is open, and the reply waits", || {
            descriptors(pid, name) > 0 && is_in(pid, &[libc::SYS_writev])
        });
        kill_worker(pid);
        drop(tracer);
        opening.join().unwrap()
    });
    (file, child(supervisor, pid))
}

#[test]
fn a_file_whose_opening_was_not_answered_is_closed() {
    if common::program("strace").is_none() {
        return;
    }
    for how in HOWS {
        let workspace = workspace(how);
        let mounted = mount(&workspace, how);
        let at = |name: &str| mounted.path().join(name);
        let (pid, supervisor) = processes(&workspace, mounted.path());
        workspace.as_user(|| fs::write(at("there"), "there").unwrap());
        let create = |name: &str, mode| {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create_new(true).mode(mode);
            workspace.as_user(|| options.open(at(name)).unwrap())
        };
        let read = || workspace.as_user(|| File::open(at("there")).unwrap());
        let (first, pid) = opened_at_a_kill((pid, supervisor), "there", read);
        let made = || create("new", 0o600);
        let (mut second, pid) = opened_at_a_kill((pid, supervisor), "new", made);
        let made = || create("read-only", 0o400);
        let (mut third, pid) = opened_at_a_kill((pid, supervisor), "read-only", made);
        for (name, file) in [("new", &mut second), ("read-only", &mut third)] {
            file.write_all(name.as_bytes()).unwrap();
            let written = workspace.as_user(|| fs::read_to_string(at(name)).unwrap());
            assert_eq!(written, name, "{how:?}");
        }
        drop((first, second, third));
        for name in ["there", "new", "read-only"] {
            for process in [pid, supervisor] {
                let what = format!("{name} is closed ({how:?})");
                eventually(&what, || descriptors(process, name) == 0);
            }
        }
    }
}

#[test]
fn a_lock_ends_with_its_file_when_the_supervisor_does_not_learn_that_it_was_closed() {
    if common::program("strace").is_none() {
        return;
    }
    for how in HOWS {
        let workspace = workspace(how);
        let mounted = mount(&workspace, how);
        let path = mounted.path().join("lock");
        let open = || workspace.as_user(|| File::create(&path).unwrap());
        let (pid, supervisor) = processes(&workspace, mounted.path());
        let held = open();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        let tracer = Tracer::delaying(pid, "sendmsg", "delay_enter", DELAY);
        drop(held);
        eventually("the supervisor is about to be told", || {
            is_in(pid, &[libc::SYS_sendmsg])
        });
        kill_worker(pid);
        drop(tracer);
        child(supervisor, pid);
        let free = || flock(open(), FlockOperation::NonBlockingLockExclusive).is_ok();
        eventually(&format!("the lock is free ({how:?})"), free);
        eventually("the file is closed", || {
            descriptors(supervisor, "lock") == 0
        });
    }
}

/// The kernel sends the requests again that were not answered, and reports once that it forgets a node: the node was counted twice.
#[test]
fn a_node_whose_lookup_was_not_answered_is_forgotten() {
    if common::program("strace").is_none() {
        return;
    }
    let workspace = workspace(HOWS[0]);
    let top = workspace.primary().join("plain");
    fs::create_dir(&top).unwrap();
    let mut command = workspace.xpmfs();
    command.env("XPMFS_TEST_FORGOTTEN_MS", "100");
    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_by(command, &mountpoint, &["--no-archive"]);
    let nodes = || {
        let mut nodes = None;
        // The next process may not answer yet.
        eventually("the process answers", || {
            nodes = nodes_of(mounted.path());
            nodes.is_some()
        });
        nodes.unwrap()
    };
    let seen = mounted.path().join("plain");
    fs::metadata(&seen).unwrap();
    let before = nodes();
    let (pid, supervisor) = processes(&workspace, mounted.path());
    let tracer = Tracer::delaying(pid, "writev", "delay_enter", DELAY);
    fs::create_dir(top.join("directory")).unwrap();
    std::thread::scope(|scope| {
        let looked = scope.spawn(|| fs::metadata(seen.join("directory")));
        eventually("the reply waits", || is_in(pid, &[libc::SYS_writev]));
        kill_worker(pid);
        drop(tracer);
        looked.join().unwrap().unwrap();
    });
    // The kernel forgets what is removed at once.
    fs::remove_dir(seen.join("directory")).unwrap();
    kill_worker(child(supervisor, pid));
    eventually("the node is forgotten", || nodes() <= before);
}

/// How many nodes the process that serves a mount keeps; `None` if it does not answer.
fn nodes_of(mountpoint: &Path) -> Option<u64> {
    let mount = mounts::top_at(mountpoint).ok()??;
    let mut client = Client::connect(mount.device, mount.owner()).ok()?;
    let status = client.request("status").ok()?;
    status["service"]["counts"]["nodes"].as_u64()
}
