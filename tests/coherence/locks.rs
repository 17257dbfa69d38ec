//! What the kernel has cached of a name or a file never makes a process believe that it has a lock, or that another has
//! it, whatever the protocol: each step is made through one way to the workspace while another has just cached the state
//! before. Races of the same protocols are in `tests/concurrent`.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Stat};
use rustix::io::{Errno, Result};

use crate::common::Workspace;
use crate::{CREATE, Side, each_pair};

const TASK: &str = "my.module.train";
const JOB: &str = "jobs/my.module.train/hash";

impl Side {
    fn stat(&self, name: &str) -> Result<Stat> {
        rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn remove(&self, name: &str, flags: AtFlags) {
        rustix::fs::unlinkat(&self.0, name, flags).unwrap();
    }

    /// Puts a new file in the place of another.
    fn replace(&self, name: &str) {
        let next = format!("{name}, next");
        self.open(&next, CREATE);
        rustix::fs::renameat(&self.0, &next, &self.0, name).unwrap();
    }

    fn link(&self, from: &str, to: &str) -> Result<()> {
        rustix::fs::linkat(&self.0, from, &self.0, to, AtFlags::empty())
    }
}

/// Runs with each pair of ways and new names, of which half end in `.lock`.
fn each_name(run: impl Fn(&Side, &Side, &str) + Sync) {
    each_pair(|first, second, name| {
        run(first, second, name);
        run(first, second, &format!("{name}.lock"));
    });
}

fn lock(file: &File) {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).unwrap();
}

fn stat_fd(file: impl AsFd) -> Stat {
    rustix::fs::fstat(file).unwrap()
}

#[test]
fn a_lock_is_granted_with_the_present_state_of_the_file_and_its_name() {
    each_name(|first, second, name| {
        for replaced in [true, false] {
            first.open(name, CREATE);
            second.stat(name).unwrap();
            let file = first.open(name, OFlags::RDWR);
            let before = first.stat(name).unwrap();
            assert_eq!(stat_fd(&file).st_ino, before.st_ino, "{name}");
            match replaced {
                true => second.replace(name),
                false => second.remove(name, AtFlags::empty()),
            }
            lock(&file);
            let (locked, named) = (stat_fd(&file), first.stat(name));
            assert_eq!(locked.st_nlink, 0, "{name}");
            match replaced {
                true => assert_ne!(locked.st_ino, named.unwrap().st_ino, "{name}"),
                false => assert_eq!(named.unwrap_err(), Errno::NOENT, "{name}"),
            }
            drop(file);
            // A process that opens the name now gets the file that has it.
            let file = first.open(name, OFlags::RDWR | OFlags::CREATE);
            lock(&file);
            assert_eq!(stat_fd(&file).st_nlink, 1, "{name}");
            let named = first.stat(name).unwrap();
            assert_eq!(stat_fd(&file).st_ino, named.st_ino, "{name}");
            second.remove(name, AtFlags::empty());
        }
    });
}

#[test]
fn a_lock_is_granted_with_the_present_state_of_all_names_of_the_file() {
    each_name(|first, second, name| {
        let other = format!("{name}, other name");
        first.open(name, CREATE);
        second.link(name, &other).unwrap();
        for name in [name, &other] {
            first.stat(name).unwrap();
        }
        let file = first.open(name, OFlags::RDWR);
        second.replace(name);
        lock(&file);
        let (locked, named) = (stat_fd(&file), first.stat(name).unwrap());
        assert_ne!(locked.st_ino, named.st_ino, "{name}");
    });
}

#[test]
fn a_lock_is_granted_with_the_present_state_of_a_name_that_was_moved_onto_a_locked_one() {
    each_name(|first, second, name| {
        lock(&first.open(name, CREATE));
        first.replace(name);
        let file = first.open(name, OFlags::RDWR);
        second.replace(name);
        lock(&file);
        let (locked, named) = (stat_fd(&file), first.stat(name).unwrap());
        assert_ne!(locked.st_ino, named.st_ino, "{name}");
    });
}

#[test]
fn while_a_file_is_locked_its_name_shows_what_has_it() {
    each_name(|first, second, name| {
        let file = first.open(name, CREATE);
        first.stat(name).unwrap();
        lock(&file);
        for _ in 0..3 {
            let before = first.stat(name).unwrap();
            second.replace(name);
            assert_ne!(first.stat(name).unwrap().st_ino, before.st_ino, "{name}");
            assert_eq!(stat_fd(&file).st_nlink, 0, "{name}");
            second.remove(name, AtFlags::empty());
            assert_eq!(first.stat(name).unwrap_err(), Errno::NOENT, "{name}");
            second.open(name, CREATE);
            first.stat(name).unwrap();
        }
    });
}

/// A way to make a name that must not exist.
type Make = fn(&Side, &str) -> Result<()>;

/// Ways to make a name, and whether it is a directory's.
const MAKES: [(Make, AtFlags); 4] = [
    (
        |side, name| {
            let flags = CREATE | OFlags::EXCL;
            rustix::fs::openat(&side.0, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        },
        AtFlags::empty(),
    ),
    (
        |side, name| rustix::fs::mkdirat(&side.0, name, Mode::from_raw_mode(0o755)),
        AtFlags::REMOVEDIR,
    ),
    (
        |side, name| rustix::fs::symlinkat("held", &side.0, name),
        AtFlags::empty(),
    ),
    (
        |side, name| {
            let own = format!("{name}, own");
            side.open(&own, CREATE);
            side.link(&own, name)
        },
        AtFlags::empty(),
    ),
];

#[test]
fn a_name_is_made_as_soon_as_it_is_free_and_never_twice() {
    each_name(|first, second, name| {
        for (make, how) in MAKES {
            for _ in 0..2 {
                make(first, name).unwrap();
                let _ = (first.stat(name), second.stat(name));
                assert_eq!(make(second, name).unwrap_err(), Errno::EXIST, "{name}");
                second.remove(name, how);
                // The first has cached that the name is taken.
                make(first, name).unwrap_or_else(|error| panic!("{name}: {error}"));
                first.remove(name, how);
                // And that it is free.
                assert_eq!(first.stat(name).unwrap_err(), Errno::NOENT, "{name}");
                make(second, name).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(make(first, name).unwrap_err(), Errno::EXIST, "{name}");
                first.remove(name, how);
            }
        }
    });
}

#[test]
fn a_link_count_shows_that_another_process_has_broken_the_lock_and_taken_it() {
    each_name(|first, second, name| {
        let [own, others] = ["own", "others"].map(|whose| format!("{name}, {whose}"));
        first.open(&own, CREATE);
        let file = first.open(&own, OFlags::RDONLY);
        second.open(&others, CREATE);
        first.link(&own, name).unwrap();
        for _ in 0..2 {
            assert_eq!(first.stat(&own).unwrap().st_nlink, 2, "{name}");
            assert_eq!(stat_fd(&file).st_nlink, 2, "{name}");
        }
        second.remove(name, AtFlags::empty());
        second.link(&others, name).unwrap();
        assert_eq!(first.link(&own, name).unwrap_err(), Errno::EXIST, "{name}");
        assert_eq!(first.stat(&own).unwrap().st_nlink, 1, "{name}");
        assert_eq!(stat_fd(&file).st_nlink, 1, "{name}");
    });
}

#[test]
fn an_internal_file_that_another_mount_makes_in_an_archived_job_is_opened_at_once() {
    let workspace = Workspace::of_ordinary_user();
    let job = workspace.folder("backup").join(JOB);
    workspace.finished("backup", TASK, "hash");
    for name in ["train.lock", "train.pid"] {
        File::create(job.join(name)).unwrap();
    }
    workspace.give_away();
    let elsewhere = workspace.mountpoint("mnt");
    let in_place = workspace.mount_in_place();
    let second = workspace.mount_at(&elsewhere);
    workspace.as_user(|| {
        let [first, second] = [in_place.path(), second.path()].map(|top| Side::at(&top.join(JOB)));
        for name in ["train.lock", "train.pid"] {
            let _ = (first.stat(name).unwrap(), second.stat(name).unwrap());
            let mut held = second.open(name, OFlags::RDWR);
            lock(&held);
            // As `flock` of util-linux opens it.
            let file = first.open(name, OFlags::RDONLY);
            let tried = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
            assert_eq!(tried.unwrap_err(), Errno::WOULDBLOCK, "{name}");
            if name == "train.pid" {
                held.write_all(b"1").unwrap();
                assert_eq!(first.open_and_read(name), b"1");
            }
        }
    });
    second.unmount();
    in_place.unmount();
}

/// How often a name has been looked up in a mount that logs each request.
fn lookups(workspace: &Workspace, name: &str) -> usize {
    let request = format!("LOOKUP name {name:?}");
    let log = workspace.log();
    log.lines().filter(|line| line.contains(&request)).count()
}

#[test]
fn the_name_of_a_lock_file_is_cached_until_the_file_is_locked() {
    const ROUNDS: usize = 1000;
    let workspace = Workspace::new();
    let job = workspace.finished("primary", TASK, "hash");
    let mut names = vec!["train.done", "train.lock"];
    for name in ["train.lock", "locked.lock"] {
        fs::write(job.join(name), "").unwrap();
    }
    let mountpoint = workspace.mountpoint("mnt");
    let mut command = workspace.xpmfs();
    command.env("XPMFS_LOG", "fuser=debug");
    command.args(["mount", "-w", "test", "--no-archive", "--log"]);
    command
        .arg(workspace.top().join("xpmfs.log"))
        .arg(&mountpoint);
    let mounted = workspace.mounting(&mut command, &mountpoint);
    let stat = |name: &str| fs::metadata(mountpoint.join(JOB).join(name)).unwrap();
    let lock_it = |path: &Path| {
        let file = File::options().write(true).open(path).unwrap();
        lock(&file);
        file
    };
    let held = lock_it(&mountpoint.join(JOB).join("locked.lock"));
    names.push("locked.lock");
    for _ in 0..ROUNDS {
        for name in &names {
            stat(name);
        }
    }
    drop(held);
    mounted.unmount();
    for name in ["train.done", "train.lock"] {
        let lookups = lookups(&workspace, name);
        assert!(lookups < ROUNDS / 10, "{name}: {lookups} lookups");
    }
    let lookups = lookups(&workspace, "locked.lock");
    assert!(lookups >= ROUNDS, "{lookups} lookups");
}
