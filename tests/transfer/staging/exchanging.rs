//! One thing is put in the place of another, and what was there before is removed afterwards or put back.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::RenameFlags;
use xpmfs::transfer::staging::{Exchanged, StagingError};

use super::{Task, open};

#[test]
fn a_directory_is_replaced_by_a_newer_one() {
    let task = Task::new();
    task.dir("hash", "old");
    let mut staging = task.staged("hash", "new");
    let done = staging.exchange(open(&task.at("hash"))).unwrap();
    assert_eq!(done, Exchanged::AtOnce);
    assert_eq!(task.which("hash"), "new");
    assert_eq!(task.which(".tmp.hash"), "old");
    staging.finish(None).unwrap();
    assert_eq!(task.names(), ["hash"]);
    assert_eq!(task.which("hash"), "new");
}

#[test]
fn a_directory_is_replaced_by_a_symlink_and_back() {
    let task = Task::new();
    task.dir("hash", "old");
    let mut staging = task.take("hash");
    staging.link(&task.outside()).unwrap();
    staging.exchange(open(&task.at("hash"))).unwrap();
    assert_eq!(fs::read_link(task.at("hash")).unwrap(), task.outside());
    staging.finish(None).unwrap();
    assert_eq!(task.names(), ["hash"]);
    task.assert_outside_is_whole();
    let mut staging = task.staged("hash", "again");
    staging.exchange(open(&task.at("hash"))).unwrap();
    staging.finish(None).unwrap();
    assert_eq!(task.names(), ["hash"]);
    assert_eq!(task.which("hash"), "again");
    task.assert_outside_is_whole();
}

#[test]
fn an_exchange_can_be_taken_back() {
    let task = Task::new();
    task.dir("hash", "old");
    let mut staging = task.staged("hash", "new");
    staging.undo().unwrap_err();
    staging.exchange(open(&task.at("hash"))).unwrap();
    staging.undo().unwrap();
    assert_eq!(task.which("hash"), "old");
    assert!(staging.holds().unwrap());
    staging.finish(None).unwrap();
    assert_eq!(task.names(), ["hash"]);
}

#[test]
fn what_the_caller_does_not_know_is_not_replaced() {
    let task = Task::new();
    task.dir("hash", "old");
    let old = open(&task.at("hash"));
    fs::rename(task.at("hash"), task.at("away")).unwrap();
    let mut staging = task.staged("hash", "new");
    for theirs in [false, true] {
        if theirs {
            task.dir("hash", "theirs");
        }
        let error = staging.exchange(&old).unwrap_err();
        assert!(matches!(error, StagingError::Replaced { .. }), "{error}");
        assert!(staging.holds().unwrap());
        assert_eq!(task.at("hash").exists(), theirs);
    }
    drop(staging);
    assert_eq!(task.which("hash"), "theirs");
}

#[test]
fn whose_lock_is_removed_exchanges_nothing_and_removes_nothing() {
    let task = Task::new();
    task.dir("hash", "old");
    let mut staging = task.staged("hash", "new");
    fs::remove_file(task.at(".tmp.hash.lock")).unwrap();
    let error = staging.exchange(open(&task.at("hash"))).unwrap_err();
    assert!(
        matches!(error, StagingError::Lost { placed: false, .. }),
        "{error}"
    );
    assert_eq!(task.which("hash"), "old");
    drop(staging);
    assert_eq!(task.which(".tmp.hash"), "new");
}

#[test]
fn a_symlink_that_was_staged_is_held_as_well() {
    let task = Task::new();
    task.dir("hash", "old");
    let mut staging = task.take("hash");
    staging.link("one".as_ref()).unwrap();
    assert!(staging.holds().unwrap());
    fs::rename(task.at(".tmp.hash"), task.at("kept")).unwrap();
    symlink("two", task.at(".tmp.hash")).unwrap();
    assert!(!staging.holds().unwrap());
    staging.exchange(open(&task.at("hash"))).unwrap_err();
    assert_eq!(task.which("hash"), "old");
}

#[test]
fn what_takes_its_place_at_the_last_moment_is_not_removed() {
    let (mut round, mut done, mut undone) = (0, 0, 0);
    let deadline = Instant::now() + Duration::from_secs(120);
    // Until the one and the other has come to be.
    while round < 200 || done == 0 || undone == 0 {
        assert!(Instant::now() < deadline, "{done} {undone} of {round}");
        round += 1;
        let task = Task::new();
        task.dir("hash", "known");
        task.dir("away", "unknown");
        let mut staging = task.staged("hash", "new");
        let old = open(&task.at("hash"));
        let (ready, begun) = (AtomicBool::new(false), AtomicBool::new(false));
        let wait = |flag: &AtomicBool| {
            while !flag.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        };
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                let dir = task.fd();
                ready.store(true, Ordering::Relaxed);
                wait(&begun);
                for _ in 0..round % 100 * 10 {
                    std::hint::spin_loop();
                }
                let exchange = RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(&dir, "hash", &dir, "away", exchange).unwrap();
            });
            wait(&ready);
            begun.store(true, Ordering::Relaxed);
            staging.exchange(&old)
        });
        drop(staging);
        let mut left: Vec<_> = task.names().iter().map(|name| task.which(name)).collect();
        left.sort();
        match result {
            Ok(_) => {
                done += 1;
                assert_eq!(left, ["new", "unknown"]);
            }
            Err(StagingError::Replaced { .. }) => {
                undone += 1;
                assert_eq!(left, ["known", "unknown"]);
            }
            // What was placed was moved on.
            Err(StagingError::Lost { placed: true, .. }) => {
                assert!(left.contains(&"unknown".into()))
            }
            Err(error) => panic!("{error}"),
        }
    }
}
