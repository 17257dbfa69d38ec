use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::stage::{BACKUP, MOVE, Stage, job, until};
use crate::archive::engine::shared::FolderScans;
use crate::archive::engine::survey::scanner::{ScanResult, Scanner};
use crate::view::PRIMARY;

fn scanner(stage: &Stage, folder: u8, interval: Duration) -> Scanner {
    Scanner::new(
        stage.view.clone(),
        PRIMARY,
        folder,
        Arc::new(stage.route()),
        interval,
    )
}

fn scan(scanner: &mut Scanner) -> ScanResult {
    scanner.scan(usize::MAX, &|| false)
}

/// Scans until nothing is listed any more.
fn rest(scanner: &mut Scanner) {
    until("that listings are believed", || {
        let found = scan(scanner);
        assert_eq!(found.trouble, None);
        found.listed == 0
    });
}

#[test]
fn an_unchanged_workspace_costs_no_listing_and_no_look() {
    let stage = Stage::new(false);
    for number in 0..100 {
        stage.archived(&format!("{number}"));
    }
    let mut scanner = scanner(&stage, BACKUP, Duration::ZERO);
    let first = scan(&mut scanner);
    assert_eq!((first.listed, first.looked, first.candidates), (3, 0, 0));
    rest(&mut scanner);
    // A change inside a job changes no directory of jobs.
    fs::write(stage.path("primary", "7").join("new"), "").unwrap();
    let found = scan(&mut scanner);
    assert_eq!((found.listed, found.looked), (0, 0));
    // On either side.
    stage.finished("new");
    let found = scan(&mut scanner);
    assert_eq!((found.listed, found.looked, found.candidates), (2, 1, 1));
    assert_eq!(found.jobs, [job("new")]);
    rest(&mut scanner);
    fs::remove_dir_all(stage.path("backup", "7")).unwrap();
    assert_eq!(scan(&mut scanner).candidates, 2);
}

#[test]
fn only_jobs_that_the_folder_lacks_are_looked_at() {
    let stage = Stage::new(true);
    stage.archived("archived");
    stage.finished("finished");
    stage.unfinished("unfinished");
    stage.unfinished(".tmp.staged");
    std::os::unix::fs::symlink("/nowhere", stage.path("primary", "moved")).unwrap();
    fs::write(stage.path("primary", "file"), "").unwrap();
    let mut scanner = scanner(&stage, BACKUP, Duration::ZERO);
    let found = scan(&mut scanner);
    assert_eq!((found.jobs, found.candidates), (vec![job("finished")], 2));
    assert_eq!(found.looked, 2);
    fs::write(stage.path("primary", "unfinished").join("train.done"), "").unwrap();
    let found = scan(&mut scanner);
    assert!(found.jobs.contains(&job("unfinished")), "{found:?}");
    let mut moves = self::scanner(&stage, MOVE, Duration::ZERO);
    assert_eq!(scan(&mut moves).candidates, 3);
}

#[test]
fn jobs_that_are_found_but_not_archived_are_looked_at_less_often() {
    let stage = Stage::new(false);
    stage.finished("out");
    let mut scanner = scanner(&stage, BACKUP, Duration::from_secs(3600));
    assert_eq!(scan(&mut scanner).jobs.len(), 1);
    let again = scan(&mut scanner);
    assert_eq!((again.looked, again.candidates), (0, 1));
    scanner.forgive();
    assert_eq!(scan(&mut scanner).jobs.len(), 1);
}

#[test]
fn a_scan_that_finds_the_maximum_continues_the_next_time() {
    let stage = Stage::new(false);
    for number in 0..25 {
        stage.finished(format!("{number}"));
    }
    let mut scanner = scanner(&stage, BACKUP, Duration::from_secs(3600));
    let mut all = Vec::new();
    for more in [true, true, false] {
        let found = scanner.scan(10, &|| false);
        assert_eq!(found.more, more);
        all.extend(found.jobs);
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 25);
    assert_eq!(scanner.scan(10, &|| false).looked, 0);
}

#[test]
fn a_missing_folder_is_not_compared() {
    let stage = Stage::new(false);
    stage.archived("a");
    let mut scanner = scanner(&stage, BACKUP, Duration::ZERO);
    scan(&mut scanner);
    let (folder, away) = (stage.top.join("backup"), stage.top.join("away"));
    fs::rename(&folder, &away).unwrap();
    until("that the folder is missed", || {
        stage.view.folders()[0].root().is_err()
    });
    stage.finished("b");
    assert_eq!(scan(&mut scanner), ScanResult::default());
    fs::rename(&away, &folder).unwrap();
    until("that the folder is there", || {
        stage.view.folders()[0].root().is_ok()
    });
    assert_eq!(scan(&mut scanner).jobs, [job("b")]);
}

#[test]
fn tasks_that_come_and_go_are_followed() {
    let stage = Stage::new(false);
    let mut scanner = scanner(&stage, BACKUP, Duration::ZERO);
    assert_eq!(scan(&mut scanner).candidates, 0);
    stage.finished("a");
    assert_eq!(scan(&mut scanner).jobs, [job("a")]);
    fs::remove_dir_all(stage.top.join("primary/jobs")).unwrap();
    until("that the descriptor is not kept any more", || {
        scan(&mut scanner).candidates == 0
    });
    stage.finished("b");
    until("that the new one is found", || {
        scan(&mut scanner).jobs == [job("b")]
    });
}

#[test]
fn a_folder_that_returns_during_a_scan_is_scanned_again_at_once() {
    let (start, interval) = (Instant::now(), Duration::from_secs(3600));
    let mut scans = FolderScans::new(BACKUP, start);
    scans.since = Some(start);
    scans.folder_is_back(start);
    // A scan that leaves out jobs goes on before it is repeated.
    let part = ScanResult {
        more: true,
        ..ScanResult::default()
    };
    scans.ended(part, start, interval);
    assert!(scans.more);
    scans.ended(ScanResult::default(), start, interval);
    assert_eq!(scans.next, start);
    // The repeated one missed nothing.
    scans.since = Some(start);
    scans.ended(ScanResult::default(), start, interval);
    assert_eq!(scans.next, start + interval);
}
