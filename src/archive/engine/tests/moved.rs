//! Moved jobs that a `backup` folder lacks.

use std::fs;

use super::stage::{BACKUP, MOVE, Stage, job, settled, until};
use crate::archive::engine::Idle;
use crate::archive::error::Scope;

/// Makes a job that only the `move` folder has.
fn moved(stage: &Stage, hash: &str) {
    let copy = stage.path("move", hash);
    fs::create_dir_all(&copy).unwrap();
    fs::write(copy.join("train.done"), "").unwrap();
}

#[test]
fn a_moved_job_that_the_backup_lacks_is_copied_from_the_move_folder() {
    let stage = Stage::new(true);
    stage.archived("archived");
    for hash in ["a", "b"] {
        moved(&stage, hash);
    }
    fs::create_dir_all(stage.path("move", "unfinished")).unwrap();
    let archiver = stage.start();
    assert_eq!(settled(&archiver), Idle::Yes);
    let mut copied = stage.fake.orders.lock().backed_up.clone();
    copied.sort();
    assert_eq!(copied, [(MOVE, job("a")), (MOVE, job("b"))]);
    let report = archiver.report();
    let backup = &report.folders[0];
    assert_eq!((backup.jobs, backup.moved_missing), (2, 0));
    assert_eq!((report.queued, report.failures), (0, 0));
    // One that comes later, when a caller asks whether all is archived.
    moved(&stage, "c");
    archiver.retry_now();
    assert_eq!(settled(&archiver), Idle::Yes);
    assert!(stage.path("backup", "c").exists());
}

#[test]
fn a_moved_job_that_cannot_be_copied_is_reported_until_it_is() {
    let stage = Stage::new(true);
    moved(&stage, "a");
    stage.refuse(BACKUP, Scope::Job);
    let archiver = stage.start();
    assert_eq!(settled(&archiver), Idle::Stuck { failed: 1 });
    let report = archiver.report();
    assert_eq!((report.queued, report.failures), (1, 1));
    assert_eq!(report.failed[0].job, job("a").to_string());
    stage.refuse(BACKUP, Scope::Soon);
    archiver.retry_now();
    until("it waits", || {
        archiver.report().folders[0].moved_missing == 1
    });
    assert!(matches!(archiver.is_idle(), Idle::Busy { .. }));
    stage.order(|orders| orders.refuses.clear());
    archiver.retry_now();
    assert_eq!(settled(&archiver), Idle::Yes);
    assert!(stage.path("backup", "a").exists());
    assert_eq!(archiver.report().queued, 0);
}
