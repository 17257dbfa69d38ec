//! What programs do at once while the process that serves their mount is killed.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::killer::{By, replace_during};
use super::{HOWS, How, TASK, common, mount, workspace};

/// Writes files, renames and removes them, and reads what was written.
fn files(dir: &Path, over: &AtomicBool) {
    fs::create_dir(dir).unwrap();
    let mut number = 0_usize;
    while !over.load(Ordering::Acquire) {
        number += 1;
        let path = dir.join(format!("file-{}", number % 30));
        let renamed = path.with_extension("renamed");
        let length = [10, 5000, 200_000][number % 3];
        let data: Vec<u8> = (0..length).map(|at| ((at * number) % 251) as u8).collect();
        fs::write(&path, &data).unwrap();
        assert_eq!(fs::read(&path).unwrap(), data);
        fs::rename(&path, &renamed).unwrap();
        assert_eq!(fs::metadata(&renamed).unwrap().len(), length as u64);
        if number.is_multiple_of(3) {
            fs::remove_file(&renamed).unwrap();
        }
    }
}

/// Makes and removes directories, symlinks and hard links.
fn directories(dir: &Path, over: &AtomicBool) {
    fs::create_dir(dir).unwrap();
    fs::write(dir.join("file"), "").unwrap();
    let mut number = 0_usize;
    while !over.load(Ordering::Acquire) {
        number += 1;
        let made = dir.join(format!("directory-{number}"));
        fs::create_dir(&made).unwrap();
        symlink("to nothing", made.join("link")).unwrap();
        fs::hard_link(dir.join("file"), made.join("hard")).unwrap();
        let moved = dir.join("moved");
        fs::rename(&made, &moved).unwrap();
        fs::remove_file(moved.join("link")).unwrap();
        fs::remove_file(moved.join("hard")).unwrap();
        fs::remove_dir(&moved).unwrap();
    }
}

/// Walks all jobs: none is missing.
fn walk(jobs: &Path, expected: &BTreeSet<PathBuf>, over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        let found: BTreeSet<PathBuf> = fs::read_dir(jobs)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(&found, expected);
        for job in &found {
            for entry in fs::read_dir(job).unwrap() {
                entry.unwrap().metadata().unwrap();
            }
        }
    }
}

/// Appends records by one descriptor, and at the end each is there once.
fn append(path: &Path, over: &AtomicBool) {
    let mut file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(path)
        .unwrap();
    let mut count = 0_u64;
    while !over.load(Ordering::Acquire) {
        file.write_all(&count.to_le_bytes()).unwrap();
        count += 1;
    }
    drop(file);
    let bytes = fs::read(path).unwrap();
    assert_eq!(
        bytes.len() as u64,
        count * 8,
        "records are lost or twice there"
    );
    for (at, record) in (0_u64..).zip(bytes.chunks(8)) {
        assert_eq!(record, at.to_le_bytes());
    }
}

/// Creates a file that must not exist, and removes it, as lock files are.
fn exclusive(path: &Path, over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        let made = OpenOptions::new().create_new(true).write(true).open(path);
        drop(made.unwrap());
        fs::remove_file(path).unwrap();
    }
}

/// Increments a counter under a lock. `count` counts the increments of all.
fn locked(dir: &Path, count: &AtomicU64, over: &AtomicBool) {
    let counter = dir.join("counter");
    while !over.load(Ordering::Acquire) {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("counter.lock"))
            .unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let before: u64 = match fs::read_to_string(&counter) {
            Ok(text) => text.parse().unwrap(),
            Err(_) => 0,
        };
        fs::write(&counter, (before + 1).to_string()).unwrap();
        count.fetch_add(1, Ordering::AcqRel);
    }
}

/// Uses a file that has no name any more.
fn nameless(path: &Path, over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        let mut file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .unwrap();
        file.write_all(b"contents").unwrap();
        fs::remove_file(path).unwrap();
        for _ in 0..50 {
            let mut contents = String::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_string(&mut contents).unwrap();
            assert_eq!(contents, "contents");
            assert_eq!(file.metadata().unwrap().len(), 8);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Reads a file that stays open, at random.
fn read(path: &Path, data: &[u8], over: &AtomicBool) {
    let file = File::open(path).unwrap();
    let mut at = 0;
    while !over.load(Ordering::Acquire) {
        at = (at * 31 + 4099) % (data.len() - 4096);
        let mut part = [0; 4096];
        file.read_exact_at(&mut part, at as u64).unwrap();
        assert_eq!(part[..], data[at..at + 4096]);
    }
}

/// Does all of this at once while the process that serves the mount is killed.
fn survive(how: How, by: By) {
    let workspace = workspace(how);
    let mounted = mount(&workspace, how);
    let time = match common::soak() {
        true => Duration::from_secs(300),
        false => Duration::from_secs(4),
    };
    let increments = AtomicU64::new(0);
    let jobs = mounted.path().join("jobs").join(TASK);
    let top = mounted.path().join("work");
    let data: Vec<u8> = (0..300_000_u32).map(|at| (at / 7) as u8).collect();
    let expected: BTreeSet<PathBuf> = workspace.as_user(|| {
        fs::create_dir(&top).unwrap();
        fs::write(top.join("data"), &data).unwrap();
        let entries = fs::read_dir(&jobs).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    });
    assert_eq!(expected.len(), 120);
    let work = |over: &AtomicBool| {
        workspace.as_user(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| files(&top.join("files"), over));
                scope.spawn(|| directories(&top.join("directories"), over));
                scope.spawn(|| walk(&jobs, &expected, over));
                scope.spawn(|| append(&top.join("appended"), over));
                scope.spawn(|| exclusive(&top.join("exclusive"), over));
                scope.spawn(|| locked(&top, &increments, over));
                scope.spawn(|| locked(&top, &increments, over));
                scope.spawn(|| nameless(&top.join("nameless"), over));
                scope.spawn(|| read(&top.join("data"), &data, over));
            });
        });
    };
    let pause = Duration::from_millis(200);
    let kills = replace_during(&workspace, mounted.path(), by, time, pause, work);
    let counter = workspace.as_user(|| fs::read_to_string(top.join("counter")).unwrap());
    assert_eq!(
        counter,
        increments.into_inner().to_string(),
        "two held the lock at once"
    );
    common::say(&format!("{how:?}, {by:?}: {kills} times"));
    assert!(kills > 0);
    mounted.unmount();
}

#[test]
fn programs_see_no_error_while_the_daemon_in_place_is_killed() {
    survive(HOWS[0], By::Kill);
}

#[test]
fn programs_see_no_error_while_the_daemon_elsewhere_is_killed() {
    survive(HOWS[1], By::Kill);
}

#[test]
fn programs_of_an_ordinary_user_see_no_error_while_the_daemon_is_killed() {
    survive(HOWS[2], By::Kill);
}

#[test]
fn programs_see_no_error_while_the_daemon_in_place_is_reloaded() {
    survive(HOWS[0], By::Reload);
}

#[test]
fn programs_see_no_error_while_the_daemon_elsewhere_is_reloaded() {
    survive(HOWS[1], By::Reload);
}

#[test]
fn programs_of_an_ordinary_user_see_no_error_while_the_daemon_is_reloaded() {
    survive(HOWS[2], By::Reload);
}

/// The kernel copies each request into a buffer of the process, which may be killed at that moment.
#[test]
fn large_writes_see_no_error_while_the_daemon_is_killed() {
    let how = HOWS[2];
    let workspace = workspace(how);
    let mounted = mount(&workspace, how);
    let data = vec![7; 4 << 20];
    let write = &|number: usize, over: &AtomicBool| {
        let path = mounted.path().join(format!("large-{number}"));
        let mut file = File::create(path).unwrap();
        while !over.load(Ordering::Acquire) {
            file.seek(SeekFrom::Start(0)).unwrap();
            file.write_all(&data).unwrap();
            file.sync_data().unwrap();
        }
    };
    let work = |over: &AtomicBool| {
        workspace.as_user(|| {
            std::thread::scope(|scope| {
                for number in 0..8 {
                    scope.spawn(move || write(number, over));
                }
            });
        });
    };
    let (time, pause) = (Duration::from_secs(4), Duration::from_millis(20));
    let kills = replace_during(&workspace, mounted.path(), By::Kill, time, pause, work);
    common::say(&format!("killed {kills} times"));
    assert!(kills > 0);
    mounted.unmount();
}
