//! The protocols by which processes exclude each other on a disk, through one mount, two, or a mount and the disk.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::common;
use crate::common::Workspace;

const TASK: &str = "my.module.train";
const THREADS: usize = 4;

/// How many new locks are taken for the first time by each protocol.
fn new_locks() -> usize {
    if common::soak() { 500 } else { 8 }
}

/// How often each protocol is gone through, in all, and how long that may take.
fn rounds() -> (usize, Duration) {
    match common::soak() {
        true => (10_000, Duration::from_secs(1800)),
        false => (120, Duration::from_secs(60)),
    }
}

/// A way to hold a lock: `None` if another has it.
type Acquire = fn(&Path, usize) -> io::Result<Option<File>>;
type Release = fn(&Path, usize, File) -> io::Result<()>;

struct Protocol {
    name: &'static str,
    /// Whether the lock is one on a file, which may exist before.
    of_file: bool,
    acquire: Acquire,
    release: Release,
}

const PROTOCOLS: [Protocol; 5] = [
    Protocol {
        name: "flock",
        of_file: true,
        acquire: |path, _| flocked(path),
        release: |_, _, _| Ok(()),
    },
    // As filelock 3.20.4 and others: the lock file is removed on release.
    Protocol {
        name: "flock and link count",
        of_file: true,
        acquire: |path, _| {
            let file = flocked(path)?;
            Ok(file.filter(|file| file.metadata().unwrap().nlink() > 0))
        },
        release: |path, _, _| fs::remove_file(path).map_err(|e| context("unlink", e)),
    },
    Protocol {
        name: "flock and inode number",
        of_file: true,
        acquire: |path, _| {
            let Some(file) = flocked(path)? else {
                return Ok(None);
            };
            Ok(match fs::metadata(path) {
                Ok(stat) if stat.ino() == file.metadata()?.ino() => Some(file),
                _ => None,
            })
        },
        release: |path, _, _| fs::remove_file(path).map_err(|e| context("unlink", e)),
    },
    Protocol {
        name: "O_EXCL",
        of_file: false,
        acquire: |path, _| match File::create_new(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            created => created.map(Some),
        },
        release: |path, _, _| fs::remove_file(path).map_err(|e| context("unlink", e)),
    },
    Protocol {
        name: "link",
        of_file: false,
        acquire: |path, thread| {
            let own = own_name(path, thread);
            let file = File::create_new(&own)?;
            let linked = fs::hard_link(&own, path);
            let held = file.metadata()?.nlink() == 2;
            assert_eq!(held, linked.is_ok(), "{linked:?}");
            if !held {
                fs::remove_file(&own)?;
            }
            Ok(held.then_some(file))
        },
        release: |path, thread, _| {
            fs::remove_file(path)?;
            fs::remove_file(own_name(path, thread))
        },
    },
];

/// Opens a lock file, as filelock does, and locks it.
fn flocked(path: &Path) -> io::Result<Option<File>> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    let opened = options.custom_flags(libc::O_NOFOLLOW).open(path);
    let file = opened.map_err(|error| context("open", error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(context("flock", error.into())),
    }
}

/// Says in an error which call it comes from.
fn context(call: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{call}: {error}"))
}

fn own_name(path: &Path, thread: usize) -> PathBuf {
    path.with_extension(match path.extension() {
        Some(_) => format!("{thread}.lock"),
        None => thread.to_string(),
    })
}

/// Tries to hold a lock once; returns whether that succeeded. Fails if another thread holds the lock too.
fn hold(protocol: &Protocol, path: &Path, thread: usize, held: &AtomicBool) -> bool {
    let name = protocol.name;
    let acquired = (protocol.acquire)(path, thread);
    let acquired = acquired.unwrap_or_else(|e| panic!("{name}, {path:?}: {e}"));
    let Some(file) = acquired else {
        std::thread::sleep(Duration::from_micros(500));
        return false;
    };
    assert!(
        !held.swap(true, Ordering::SeqCst),
        "{name}: two holders, {path:?}"
    );
    std::thread::sleep(Duration::from_micros(300));
    held.store(false, Ordering::SeqCst);
    let released = (protocol.release)(path, thread, file);
    released.unwrap_or_else(|e| panic!("{name}, {path:?}: {e}"));
    true
}

/// Threads hold a lock in turn, each under one of its paths: never two at once, and without an error.
fn assert_exclusive(protocol: &Protocol, paths: &[PathBuf]) {
    let (held, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (wanted, limit) = self::rounds();
    let deadline = Instant::now() + limit;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (held, rounds, path) = (&held, &rounds, &paths[thread % paths.len()]);
            scope.spawn(move || {
                while rounds.load(Ordering::SeqCst) < wanted {
                    assert!(
                        Instant::now() < deadline,
                        "{} takes too long",
                        protocol.name
                    );
                    if hold(protocol, path, thread, held) {
                        rounds.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
}

/// Each thread holds a new lock once, whose name has just been looked up under each of its paths.
fn assert_exclusive_at_first(protocol: &Protocol, paths: &[PathBuf], exists: bool) {
    if exists {
        File::create_new(&paths[0]).unwrap();
    }
    for path in paths {
        let _ = fs::metadata(path);
    }
    let held = AtomicBool::new(false);
    let deadline = Instant::now() + rounds().1;
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (held, start, path) = (&held, &start, &paths[thread % paths.len()]);
            scope.spawn(move || {
                start.wait();
                while !hold(protocol, path, thread, held) {
                    assert!(
                        Instant::now() < deadline,
                        "{} takes too long",
                        protocol.name
                    );
                }
            });
        }
    });
}

/// All protocols, by a lock of this name in a directory that has these paths. Each has files of its own.
fn assert_all_exclusive(directories: &[PathBuf], suffix: &str) {
    for (at, protocol) in PROTOCOLS.iter().enumerate() {
        let paths = |name: String| -> Vec<PathBuf> {
            directories.iter().map(|dir| dir.join(&name)).collect()
        };
        assert_exclusive(protocol, &paths(format!("{at}{suffix}")));
        for number in 0..new_locks() {
            let exists = protocol.of_file && number % 2 == 0;
            let paths = paths(format!("{at}-{number}{suffix}"));
            assert_exclusive_at_first(protocol, &paths, exists);
        }
    }
}

/// A directory of a job, `hash`.
fn job(top: &Path, hash: &str) -> PathBuf {
    top.join("jobs").join(TASK).join(hash)
}

/// A job of the primary, and one of a folder.
fn workspace(ordinary: bool) -> Workspace {
    let workspace = match ordinary {
        true => Workspace::of_ordinary_user(),
        false => Workspace::new(),
    };
    workspace.finished("primary", TASK, "own");
    workspace.finished("backup", TASK, "archived");
    workspace
}

/// The primary as it is beneath a mount in place, open before that. Root alone can use the path.
fn beneath(workspace: &Workspace) -> (OwnedFd, PathBuf) {
    let primary = OwnedFd::from(File::open(workspace.primary()).unwrap());
    let path = format!("/proc/self/fd/{}", primary.as_raw_fd());
    (primary, path.into())
}

fn through_two_mounts(ordinary: bool) {
    let workspace = workspace(ordinary);
    let elsewhere = workspace.mountpoint("mnt");
    let in_place = workspace.mount_in_place();
    let second = workspace.mount_at(&elsewhere);
    workspace.as_user(|| {
        let tops = [in_place.path(), second.path()];
        assert_all_exclusive(&tops.map(|top| job(top, "own")), ".lock");
        assert_all_exclusive(&tops.map(|top| job(top, "archived")), ".lock");
        assert_all_exclusive(&tops.map(|top| job(top, "own")), "");
    });
    second.unmount();
    in_place.unmount();
}

fn through_one_mount(ordinary: bool) {
    let workspace = workspace(ordinary);
    let in_place = workspace.mount_in_place();
    workspace.as_user(|| {
        for hash in ["own", "archived"] {
            assert_all_exclusive(&[job(in_place.path(), hash)], ".lock");
        }
        assert_all_exclusive(&[job(in_place.path(), "own")], "");
    });
    in_place.unmount();
}

fn through_a_mount_and_the_disk(ordinary: bool) {
    let workspace = workspace(ordinary);
    let elsewhere = workspace.mount_at(&workspace.mountpoint("mnt"));
    workspace.as_user(|| {
        let directories = [elsewhere.path(), &workspace.primary()].map(|top| job(top, "own"));
        assert_all_exclusive(&directories, ".lock");
        assert_all_exclusive(&directories, "");
    });
    elsewhere.unmount();
}

#[test]
fn two_mounts_never_give_a_lock_to_two() {
    through_two_mounts(false);
}

#[test]
fn two_mounts_of_an_ordinary_user_never_give_a_lock_to_two() {
    through_two_mounts(true);
}

#[test]
fn one_mount_never_gives_a_lock_to_two() {
    through_one_mount(false);
}

#[test]
fn one_mount_of_an_ordinary_user_never_gives_a_lock_to_two() {
    through_one_mount(true);
}

#[test]
fn a_mount_and_the_disk_never_give_a_lock_to_two() {
    through_a_mount_and_the_disk(false);
}

#[test]
fn a_mount_of_an_ordinary_user_and_the_disk_never_give_a_lock_to_two() {
    through_a_mount_and_the_disk(true);
}

#[test]
fn a_mount_in_place_and_the_disk_beneath_never_give_a_lock_to_two() {
    let workspace = workspace(false);
    let (_primary, disk) = beneath(&workspace);
    let in_place = workspace.mount_in_place();
    let directories = [in_place.path(), &disk].map(|top| job(top, "own"));
    assert_all_exclusive(&directories, ".lock");
    assert_all_exclusive(&directories, "");
    in_place.unmount();
}

#[test]
fn a_name_opens_what_has_it_also_while_the_file_is_open_that_had_it_before() {
    let workspace = workspace(false);
    let elsewhere = workspace.mount_at(&workspace.mountpoint("mnt"));
    let (seen, beneath) = (elsewhere.path().join("file"), workspace.primary());
    for round in 0..20 {
        fs::write(beneath.join("file"), "old").unwrap();
        let old = File::open(&seen).unwrap();
        fs::write(beneath.join("next"), format!("new {round}")).unwrap();
        fs::rename(beneath.join("next"), beneath.join("file")).unwrap();
        assert_eq!(fs::read_to_string(&seen).unwrap(), format!("new {round}"));
        let by_descriptor = format!("/proc/self/fd/{}", old.as_raw_fd());
        assert_eq!(fs::read_to_string(by_descriptor).unwrap(), "old");
    }
    elsewhere.unmount();
}
