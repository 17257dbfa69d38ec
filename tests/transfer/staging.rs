//! One at a time makes, replaces or takes away a job's directory, and a crash leaves the old state or the new one.

mod broken_off;
mod exchanging;
mod oracle;
mod planted;
mod sweeping;

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;
use xpmfs::transfer::staging::{Staging, StagingError};

use super::common::names;

/// A task's directory.
struct Task(TempDir);

impl Task {
    fn new() -> Task {
        let top = tempfile::Builder::new().prefix("xpmfs-task-").tempdir();
        let task = Task(top.unwrap());
        fs::create_dir(task.path()).unwrap();
        fs::create_dir(task.outside()).unwrap();
        fs::write(task.outside().join("file"), "theirs").unwrap();
        task
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("task")
    }

    /// A directory that nothing in the task's may lead to.
    fn outside(&self) -> PathBuf {
        self.0.path().join("outside")
    }

    fn assert_outside_is_whole(&self) {
        assert_eq!(names(&self.outside()), ["file"]);
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A job's directory, or one that looks like it, with a file that says which.
    fn dir(&self, name: &str, content: &str) {
        fs::create_dir(self.at(name)).unwrap();
        fs::write(self.at(name).join("which"), content).unwrap();
    }

    fn which(&self, name: &str) -> String {
        fs::read_to_string(self.at(name).join("which")).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let names = names(&self.path());
        names
            .into_iter()
            .map(|name| name.into_string().unwrap())
            .collect()
    }

    fn fd(&self) -> OwnedFd {
        open(&self.path())
    }

    fn try_take(&self, hash: &str) -> Result<Option<Staging>, StagingError> {
        Staging::take(self.fd(), OsStr::new(hash))
    }

    fn take(&self, hash: &str) -> Staging {
        self.try_take(hash).unwrap().expect("nobody has it")
    }

    /// Takes the right to a job, and stages a directory for it.
    fn staged(&self, hash: &str, content: &str) -> Staging {
        let mut staging = self.take(hash);
        staging.make().unwrap();
        fs::write(self.at(&format!(".tmp.{hash}/which")), content).unwrap();
        staging
    }
}

/// Opens something as a path, a symlink itself.
fn open(path: &Path) -> OwnedFd {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).unwrap()
}

#[test]
fn what_is_staged_gets_its_place_and_nothing_else_is_left() {
    let task = Task::new();
    let staging = task.staged("hash", "new");
    assert_eq!(task.names(), [".tmp.hash", ".tmp.hash.lock"]);
    let mode = fs::metadata(task.at(".tmp.hash")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o7777, 0o700);
    let mut staging = staging;
    assert!(staging.holds().unwrap());
    staging.publish().unwrap();
    staging.sync().unwrap();
    assert_eq!(task.names(), [".tmp.hash.lock", "hash"]);
    staging.finish(None).unwrap();
    assert_eq!(task.names(), ["hash"]);
    assert_eq!(task.which("hash"), "new");
}

#[test]
fn what_is_dropped_is_removed() {
    let task = Task::new();
    drop(task.staged("hash", "new"));
    assert_eq!(task.names(), [""; 0]);
}

#[test]
fn what_is_there_is_not_replaced() {
    let task = Task::new();
    fs::create_dir(task.at("empty")).unwrap();
    task.dir("full", "old");
    fs::write(task.at("file"), "").unwrap();
    std::os::unix::fs::symlink("nowhere", task.at("link")).unwrap();
    for hash in ["empty", "full", "file", "link"] {
        let before = fs::symlink_metadata(task.at(hash)).unwrap();
        let error = task.staged(hash, "new").publish().unwrap_err();
        assert!(matches!(error, StagingError::Exists { .. }), "{error}");
        let after = fs::symlink_metadata(task.at(hash)).unwrap();
        assert_eq!(before.file_type(), after.file_type());
        assert!(!task.at(hash).join("which").exists() || task.which(hash) == "old");
    }
}

#[test]
fn one_at_a_time_has_it() {
    let task = Task::new();
    let first = task.take("hash");
    assert!(task.try_take("hash").unwrap().is_none());
    task.take("other").finish(None).unwrap();
    drop(first);
    drop(task.take("hash"));
}

#[test]
fn of_many_who_take_and_let_go_one_at_a_time_has_it() {
    let task = Task::new();
    let (inside, had) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let Some(mut staging) = task.try_take("hash").unwrap() else {
                        continue;
                    };
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    staging.make().unwrap();
                    assert!(staging.holds().unwrap());
                    had.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    staging.finish(None).unwrap();
                }
            });
        }
    });
    assert!(had.into_inner() > 8);
    assert_eq!(task.names(), [""; 0]);
}

#[test]
fn of_many_who_publish_one_does() {
    for _ in 0..50 {
        let task = Task::new();
        let published = AtomicU32::new(0);
        let at_once = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    at_once.wait();
                    let Some(mut staging) = task.try_take("hash").unwrap() else {
                        return;
                    };
                    staging.make().unwrap();
                    match staging.publish() {
                        Ok(()) => drop(published.fetch_add(1, Ordering::SeqCst)),
                        Err(error) => {
                            assert!(matches!(error, StagingError::Exists { .. }), "{error}")
                        }
                    }
                });
            }
        });
        assert_eq!(published.into_inner(), 1);
        assert_eq!(task.names(), ["hash"]);
    }
}

#[test]
fn the_lock_is_shared_with_those_who_share_the_directory() {
    let task = Task::new();
    for (mode, expected) in [(0o2775, 0o664), (0o700, 0o600), (0o777, 0o666)] {
        fs::set_permissions(task.path(), Permissions::from_mode(mode)).unwrap();
        let staging = task.take("hash");
        let lock = fs::metadata(task.at(".tmp.hash.lock")).unwrap();
        assert_eq!(lock.permissions().mode() & 0o7777, expected);
        drop(staging);
    }
}

#[test]
fn names_that_are_too_long_or_no_jobs_are_refused_and_said_to_be() {
    let task = Task::new();
    let longest = "h".repeat(245);
    let mut staging = task.staged(&longest, "new");
    staging.publish().unwrap();
    let error = task.try_take(&"h".repeat(246)).unwrap_err();
    assert!(error.to_string().contains("too long a name"), "{error}");
    for hash in ["", ".", "..", "a/b", ".tmp.x"] {
        let error = task.try_take(hash).unwrap_err();
        assert!(
            matches!(error, StagingError::Name { .. }),
            "{hash:?}: {error}"
        );
    }
}

#[test]
fn a_directory_that_is_gone_is_an_error() {
    let task = Task::new();
    let fd = task.fd();
    fs::remove_dir(task.path()).unwrap();
    let error = Staging::take(fd, OsStr::new("hash")).unwrap_err();
    let kind = error.io().unwrap().kind();
    assert_eq!(kind, std::io::ErrorKind::NotFound, "{error}");
}

#[test]
fn whose_lock_is_removed_has_lost_it_and_touches_nothing() {
    let task = Task::new();
    let mut staging = task.staged("hash", "first");
    fs::remove_file(task.at(".tmp.hash.lock")).unwrap();
    assert!(!staging.holds().unwrap());
    let lost = |error: StagingError| {
        assert!(
            matches!(error, StagingError::Lost { placed: false, .. }),
            "{error}"
        );
    };
    lost(staging.publish().unwrap_err());
    // What is under the names is another's from now on.
    let second = task.staged("hash", "second");
    lost(staging.publish().unwrap_err());
    lost(staging.make().unwrap_err());
    lost(staging.link("target".as_ref()).unwrap_err());
    lost(staging.finish(None).unwrap_err());
    assert!(second.holds().unwrap());
    assert_eq!(task.which(".tmp.hash"), "second");
    drop(second);
    assert_eq!(task.names(), [""; 0]);
}

#[test]
fn whose_staging_is_replaced_has_lost_it() {
    let task = Task::new();
    let mut staging = task.staged("hash", "new");
    fs::rename(task.at(".tmp.hash"), task.at("away")).unwrap();
    task.dir(".tmp.hash", "theirs");
    assert!(!staging.holds().unwrap());
    let error = staging.publish().unwrap_err();
    assert!(
        matches!(error, StagingError::Lost { placed: false, .. }),
        "{error}"
    );
    assert!(!task.at("hash").exists());
    drop(staging);
    assert_eq!(task.which(".tmp.hash"), "theirs");
}

#[test]
fn nothing_staged_is_nothing_to_publish() {
    let task = Task::new();
    task.dir(".tmp.hash", "somebody's");
    let error = task.take("hash").publish().unwrap_err();
    assert!(
        matches!(error, StagingError::Lost { placed: false, .. }),
        "{error}"
    );
    assert!(!task.at("hash").exists());
}

/// Takes the lock of a file, until what it gives is dropped.
fn lock(path: &Path) -> File {
    let file = File::create(path).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    file
}
