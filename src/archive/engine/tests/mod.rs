mod comparing;
mod moved;
mod scanning;
mod stage;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use self::stage::{BACKUP, MOVE, Stage, TASK, job, settled, until};
use super::journal::{Journal, Line};
use super::{Archiver, Config, Idle};
use crate::archive::error::Scope;
use crate::settings::Patterns;

#[test]
fn finished_jobs_that_were_not_reported_are_backed_up_and_then_moved() {
    let stage = Stage::new(true);
    let names = [OsStr::new("a"), OsStr::from_bytes(b"\xff\n\"")];
    for name in names {
        stage.finished(name);
    }
    stage.unfinished("c");
    let archiver = stage.start();
    assert_eq!(settled(&archiver), Idle::Yes);
    for name in names {
        assert!(stage.path("backup", name).join("train.done").exists());
        assert!(stage.path("primary", name).is_symlink());
    }
    assert!(stage.path("primary", "c").is_dir() && !stage.path("backup", "c").exists());
    let stored = stage.stored();
    let place = |folder, name: &str| {
        let one = (folder, name.to_owned());
        stored.iter().position(|stored| *stored == one).unwrap()
    };
    for name in names {
        let name = name.to_string_lossy();
        assert!(place(BACKUP, &name) < place(MOVE, &name));
    }
    let report = archiver.report();
    let jobs: Vec<u64> = report.folders.iter().map(|folder| folder.jobs).collect();
    assert_eq!((report.queued, report.failures, jobs), (0, 0, vec![2, 2]));
    archiver.stop();
    assert!(stage.journals().is_empty());
}

#[test]
fn a_touched_job_is_archived_without_a_scan() {
    let stage = Stage::new(false);
    let archiver = stage.start();
    assert_eq!(settled(&archiver), Idle::Yes);
    stage.finished("a");
    stage.unfinished("b");
    archiver.touched(job("a"));
    archiver.touched(job("b"));
    archiver.touched(job("gone"));
    assert_eq!(settled(&archiver), Idle::Yes);
    assert_eq!(stage.stored(), [(BACKUP, "a".to_owned())]);
    // Also when the folder has it.
    archiver.touched(job("a"));
    assert_eq!(settled(&archiver), Idle::Yes);
    assert_eq!(stage.stored().len(), 2);
}

#[test]
fn jobs_that_the_settings_exclude_are_not_archived() {
    let mut stage = Stage::new(false);
    let globs = vec![format!("{TASK}/a*"), "other".to_owned()];
    stage.exclude = Some(Patterns::new(globs).unwrap());
    stage.finished("ab");
    stage.finished("b");
    let archiver = stage.start();
    archiver.touched(job("ab"));
    assert_eq!(settled(&archiver), Idle::Yes);
    assert_eq!(stage.stored(), [(BACKUP, "b".to_owned())]);
    assert_eq!(archiver.report().folders[0].missing, 1);
}

#[test]
fn jobs_wait_for_a_missing_folder() {
    let stage = Stage::new(false);
    let (folder, away) = (stage.top.join("backup"), stage.top.join("away"));
    fs::rename(&folder, &away).unwrap();
    until("that the folder is missed", || {
        stage.view.folders()[0].root().is_err()
    });
    let archiver = stage.start();
    stage.finished("a");
    archiver.touched(job("a"));
    assert_eq!(settled(&archiver), Idle::Stuck { failed: 1 });
    let report = archiver.report();
    let refuses = report.folders[0].refuses.as_ref().unwrap();
    assert_eq!(refuses.why, "the folder is missing");
    assert_eq!(report.waiting[0].job, format!("{TASK}/a"));
    // A job that was not reported is found when the folder is back.
    stage.finished("b");
    fs::rename(&away, &folder).unwrap();
    until("that both are stored", || {
        archiver.report().folders[0].jobs == 2
    });
    assert_eq!(settled(&archiver), Idle::Yes);
}

#[test]
fn a_file_in_place_of_a_folder_is_not_reported_as_missing() {
    let stage = Stage::new(false);
    let (folder, away) = (stage.top.join("backup"), stage.top.join("away"));
    fs::rename(&folder, &away).unwrap();
    fs::write(&folder, "").unwrap();
    until("that the folder is missed", || {
        stage.view.folders()[0].root().err() == Some(rustix::io::Errno::NOTDIR)
    });
    let archiver = stage.start();
    let report = archiver.report();
    let refuses = report.folders[0].refuses.as_ref().unwrap();
    assert_eq!(refuses.why, "it is not a directory");
}

#[test]
fn failed_jobs_are_reported_and_retried_on_request() {
    let stage = Stage::new(true);
    stage.finished("a");
    stage.refuse(BACKUP, Scope::Job);
    let archiver = stage.start();
    assert_eq!(settled(&archiver), Idle::Stuck { failed: 1 });
    let report = archiver.report();
    let failed = &report.failed[0];
    assert_eq!(failed.folder.as_deref(), Some(&*stage.top.join("backup")));
    assert_eq!((failed.tries, &*failed.why), (1, "refused by the test"));
    assert!(failed.next_try > 3000.0);
    assert!(
        serde_json::to_string(&report)
            .unwrap()
            .contains("refused by the test")
    );
    archiver.retry_now();
    assert_eq!(settled(&archiver), Idle::Stuck { failed: 1 });
    stage.refuse(BACKUP, Scope::Folder);
    archiver.retry_now();
    assert_eq!(settled(&archiver), Idle::Stuck { failed: 1 });
    assert!(archiver.report().folders[0].refuses.is_some());
    stage.order(|orders| orders.refuses.clear());
    archiver.retry_now();
    assert_eq!(settled(&archiver), Idle::Yes);
    assert!(stage.path("primary", "a").is_symlink());
}

#[test]
fn a_folder_that_hangs_delays_neither_others_nor_the_stop() {
    let stage = Stage::new(true);
    stage.order(|orders| orders.hangs.push(MOVE));
    stage.finished("a");
    let archiver = stage.start();
    until("that the move is under way", || {
        archiver.report().folders[1].under_way.is_some()
    });
    let total = archiver.report().folders[1]
        .under_way
        .clone()
        .unwrap()
        .total;
    let total = total.map(|total| (total.files, total.bytes));
    assert_eq!(total, Some((stage::SIZE.files, stage::SIZE.bytes)));
    stage.finished("b");
    archiver.touched(job("b"));
    until("that the other is backed up", || stage.stored().len() == 2);
    assert!(matches!(archiver.is_idle(), Idle::Busy { left: 2 }));
    let begun = Instant::now();
    archiver.stop();
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(archiver.is_idle(), Idle::Yes);
    stage.order(|orders| orders.hangs.clear());
}

#[test]
fn a_move_in_progress_during_the_stop_is_cleaned_up_before_the_end() {
    let stage = Stage::new(true);
    stage.order(|orders| {
        orders.hangs.push(MOVE);
        orders.keeps = true;
    });
    stage.finished("a");
    let archiver = stage.start();
    until("that the move is under way", || {
        archiver.report().folders[1].under_way.is_some()
    });
    std::thread::scope(|scope| {
        let end = scope.spawn(|| archiver.stop());
        until("that the end has begun", || archiver.is_idle() == Idle::Yes);
        stage.order(|orders| orders.hangs.clear());
        end.join().unwrap();
    });
    assert!(stage.path("primary", "a").is_symlink());
    assert_eq!(stage.fake.orders.lock().kept, 0);
}

#[test]
fn the_journal_of_a_dead_process_is_taken_over() {
    let stage = Stage::new(false);
    // Archived, and changed since: no scan finds these.
    for hash in ["a", "b", "done"] {
        stage.archived(hash);
    }
    let mut dead = Journal::make(&stage.view).unwrap();
    let queued = |hash: &str| Line::Queued(job(hash));
    dead.append(&[queued("a"), queued("done"), Line::Done(job("done"))])
        .unwrap();
    drop(dead);
    let mut living = Journal::make(&stage.view).unwrap();
    living.append(&[queued("b")]).unwrap();
    let archiver = stage.start();
    assert_eq!(settled(&archiver), Idle::Yes);
    assert_eq!(stage.stored(), [(BACKUP, "a".to_owned())]);
    assert_eq!(stage.journals().len(), 2);
    drop(living);
    archiver.retry_now();
    assert_eq!(settled(&archiver), Idle::Yes);
    until("that the second is taken over, too", || {
        stage.stored().len() == 2
    });
    assert_eq!(stage.stored()[1], (BACKUP, "b".to_owned()));
}

#[test]
fn failed_jobs_are_retried_by_the_next_start() {
    let stage = Stage::new(false);
    stage.archived("a");
    stage.refuse(BACKUP, Scope::Job);
    let archiver = stage.start();
    archiver.touched(job("a"));
    assert_eq!(settled(&archiver), Idle::Stuck { failed: 1 });
    drop(archiver);
    assert_eq!(stage.journals().len(), 1);
    stage.order(|orders| orders.refuses.clear());
    let archiver = stage.start();
    // The wait after the failure continues.
    assert_eq!(settled(&archiver), Idle::Stuck { failed: 1 });
    archiver.retry_now();
    assert_eq!(settled(&archiver), Idle::Yes);
    assert_eq!(stage.stored(), [(BACKUP, "a".to_owned())]);
    archiver.stop();
    assert!(stage.journals().is_empty());
}

#[test]
fn without_a_journal_jobs_are_archived_and_the_obstacle_is_reported() {
    let stage = Stage::new(false);
    let state = stage.top.join("primary/.xpmfs");
    fs::create_dir(&state).unwrap();
    fs::write(state.join("archive"), "in the way").unwrap();
    stage.finished("a");
    let archiver = stage.start();
    assert_eq!(settled(&archiver), Idle::Stuck { failed: 0 });
    assert_eq!(stage.stored().len(), 1);
    let report = archiver.report();
    for trouble in [report.journal.clone(), report.unseen()] {
        assert!(trouble.unwrap().contains(".xpmfs/archive"), "{report:?}");
    }
}

#[test]
fn the_start_finds_reruns_and_copies_without_a_marker() {
    let stage = Stage::new(false);
    for hash in ["archived", "again", "half"] {
        stage.archived(hash);
    }
    stage.make_earlier("backup", "again");
    fs::remove_file(stage.path("backup", "half").join("train.done")).unwrap();
    let archiver = stage.start();
    assert_eq!(settled(&archiver), Idle::Yes);
    let mut stored = stage.stored();
    stored.sort();
    let both = ["again", "half"].map(|hash| (BACKUP, hash.to_owned()));
    assert_eq!(stored, both);
}

#[test]
fn all_archived_jobs_are_rechecked_periodically() {
    let mut stage = Stage::new(false);
    for number in 0..50 {
        stage.archived(&format!("{number}"));
    }
    stage.unfinished("unfinished");
    let archiver = stage.start();
    assert_eq!(settled(&archiver), Idle::Yes);
    assert!(stage.stored().is_empty());
    drop(archiver);
    stage.timing.pace.recheck = Duration::from_millis(50);
    let archiver = stage.start();
    until("that all are looked at", || stage.stored().len() >= 50);
    drop(archiver);
    let mut stored = stage.stored();
    stored.sort();
    stored.dedup();
    assert_eq!(stored.len(), 50);
    assert!(stage.top.join("primary/.xpmfs/archive/rechecked").exists());
}

#[test]
fn without_an_archive_folder_the_engine_does_nothing() {
    let stage = Stage::new(false);
    stage.finished("a");
    let spec = crate::view::ViewSpec {
        workspace: String::new(),
        primary: stage.top.join("primary"),
        folders: Vec::new(),
        mountpoint: None,
    };
    let view = std::sync::Arc::new(crate::view::View::open(spec, None).unwrap());
    let route = super::Route::new(&view, std::sync::Arc::default());
    let archiver = super::Archiver::begin(view, route, stage.timing, stage.fake.clone()).unwrap();
    archiver.touched(job("a"));
    archiver.retry_now();
    assert_eq!(archiver.is_idle(), Idle::Yes);
    archiver.stop();
    assert!(!stage.top.join("primary/.xpmfs").exists());
}

#[test]
fn stagings_of_dead_processes_in_the_primary_are_removed() {
    let stage = Stage::new(false);
    stage.archived("a");
    let archiver = stage.start();
    assert_eq!(settled(&archiver), Idle::Yes);
    assert!(stage.fake.orders.lock().cleared.is_empty());
    fs::write(stage.path("primary", ".tmp.a.lock"), "").unwrap();
    // Again and again, since its owner may be alive now, and die later.
    for count in [1, 2] {
        archiver.retry_now();
        assert_eq!(settled(&archiver), Idle::Yes);
        assert_eq!(stage.fake.orders.lock().cleared, vec![TASK; count]);
    }
}

#[test]
fn a_job_is_archived_on_real_disks() {
    let stage = Stage::new(true);
    let job = stage.finished("a");
    fs::write(job.join("result"), "42").unwrap();
    stage.unfinished("b");
    let config = Config {
        settle: Duration::from_millis(50),
        scan_interval: Duration::from_millis(100),
        exclude: None,
        folder_exclude: std::collections::HashMap::new(),
        bandwidth: None,
        threads: 2,
        release: crate::settings::Release::default(),
    };
    let archiver = Archiver::start(stage.view.clone(), config, std::sync::Arc::new(())).unwrap();
    assert_eq!(settled(&archiver), Idle::Yes);
    let moved = stage.path("primary", "a");
    assert!(moved.is_symlink());
    assert_eq!(fs::read_to_string(moved.join("result")).unwrap(), "42");
    assert_eq!(
        fs::read_to_string(stage.path("backup", "a").join("result")).unwrap(),
        "42"
    );
    fs::write(stage.path("primary", "b").join("train.done"), "").unwrap();
    until("that the other is found", || {
        stage.path("primary", "b").is_symlink()
    });
    until("that it is tidy", || archiver.is_idle() == Idle::Yes);
    archiver.stop();
    for location in ["primary", "backup", "move"] {
        let names = fs::read_dir(stage.top.join(location).join("jobs").join(TASK)).unwrap();
        let mut names: Vec<_> = names.map(|name| name.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "b"], "{location}");
    }
    assert!(stage.journals().is_empty());
}
