use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never, unbounded};
use rustix::thread::Uid;

use super::stage::{BACKUP, Stage, settled, until};
use crate::archive::engine::Idle;
use crate::archive::engine::queue::Queue;
use crate::archive::engine::shared::{Event, Shared};
use crate::archive::engine::survey::markers::{ComparedTasks, Extent, MarkerSurvey};
use crate::archive::engine::survey::walk::Walk;
use crate::archive::error::Scope;

/// The markers of the jobs of a stage, and the events that report them.
struct Comparison {
    markers: MarkerSurvey,
    reported: Receiver<Event>,
    _end: Sender<()>,
}

impl Comparison {
    fn new(stage: &Stage) -> Comparison {
        let queue = Queue::new(stage.timing.pace, Duration::ZERO, Vec::new());
        let (events, reported) = unbounded();
        let (end, ended) = bounded(0);
        let markers = MarkerSurvey {
            walk: Walk {
                view: stage.view.clone(),
                shared: Arc::new(Shared::new(queue, Instant::now())),
                end: ended,
                breath: Duration::ZERO,
            },
            folder: BACKUP,
            route: Arc::new(stage.route()),
            disks: stage.fake.clone(),
            events,
            wakes: never(),
            interval: Duration::ZERO,
            tick: Duration::ZERO,
            all_interval: Duration::ZERO,
            compared: ComparedTasks::default(),
        };
        Comparison {
            markers,
            reported,
            _end: end,
        }
    }

    /// Compares once, and returns the hashes of the jobs whose copies are behind, in order.
    fn behind(&mut self) -> Vec<String> {
        self.compare(Extent::Changed)
    }

    /// Compares this extent, and returns the hashes of the jobs whose copies are found behind, in order.
    fn compare(&mut self, extent: Extent) -> Vec<String> {
        self.markers.compare(extent).unwrap();
        let again = self.reported.try_iter().flat_map(|event| match event {
            Event::Again(jobs) => jobs,
            other => panic!("{other:?}"),
        });
        let mut hashes: Vec<String> = again
            .map(|job| job.hash().to_string_lossy().into_owned())
            .collect();
        hashes.sort();
        hashes
    }

    /// Compares until unchanged tasks are not compared any more. At least one job must be behind.
    fn rest(&mut self) {
        assert!(!self.behind().is_empty());
        until("that what was compared is believed", || {
            self.behind().is_empty()
        });
    }
}

/// Runs a function without the rights of root, who may also access paths that are forbidden to their owner.
fn as_ordinary_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let call = || {
        if rustix::process::geteuid().is_root() {
            let user = Some(Uid::from_raw(65534));
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        }
        work()
    };
    std::thread::scope(|scope| scope.spawn(call).join()).unwrap()
}

#[test]
fn a_job_behind_is_reported_until_the_listing_is_believed_and_again_when_its_task_changes() {
    let stage = Stage::new(false);
    stage.archived("same");
    stage.archived("again");
    stage.make_earlier("backup", "again");
    let mut comparison = Comparison::new(&stage);
    assert_eq!(comparison.behind(), ["again"]);
    comparison.rest();
    stage.unfinished("another");
    assert_eq!(comparison.behind(), ["again"]);
}

#[test]
fn a_copy_with_times_in_whole_seconds_is_of_the_same_run() {
    let stage = Stage::new(false);
    stage.archived("same");
    let marker = |location: &str| {
        let marker = stage.path(location, "same").join("train.done");
        fs::File::options().write(true).open(marker).unwrap()
    };
    let second = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_001);
    let ended = second + Duration::from_nanos(987_654_321);
    marker("primary").set_modified(ended).unwrap();
    marker("backup").set_modified(second).unwrap();
    assert!(Comparison::new(&stage).behind().is_empty());
    let earlier = second - Duration::from_secs(3);
    marker("backup").set_modified(earlier).unwrap();
    assert_eq!(Comparison::new(&stage).behind(), ["same"]);
}

/// A directory that cannot be opened for a moment has the same times afterwards.
#[test]
fn an_unreadable_primary_is_compared_once_it_is_readable() {
    let stage = Stage::new(false);
    stage.archived("again");
    stage.make_earlier("backup", "again");
    let mut comparison = Comparison::new(&stage);
    comparison.rest();
    let permit = |mode| {
        let primary = stage.top.join("primary");
        fs::set_permissions(primary, fs::Permissions::from_mode(mode)).unwrap();
    };
    permit(0o000);
    as_ordinary_user(|| {
        until("that it cannot be read", || {
            stage.view.primary().root().unwrap().jobs().is_err()
        });
        assert!(comparison.behind().is_empty());
    });
    permit(0o755);
    assert!(comparison.behind().is_empty());
    stage.unfinished("another");
    assert_eq!(comparison.behind(), ["again"]);
}

#[test]
fn an_unreadable_task_is_compared_once_it_is_readable() {
    let stage = Stage::new(false);
    stage.archived("again");
    stage.make_earlier("backup", "again");
    let mut comparison = Comparison::new(&stage);
    let copies = stage.path("backup", "again").parent().unwrap().to_owned();
    let permit = |mode| fs::set_permissions(&copies, fs::Permissions::from_mode(mode)).unwrap();
    permit(0o000);
    // Longer than it takes until a comparison is believed.
    let begun = Instant::now();
    as_ordinary_user(|| {
        until("that it would be believed", || {
            assert!(comparison.behind().is_empty());
            begun.elapsed() > Duration::from_secs(3)
        });
    });
    permit(0o755);
    assert_eq!(comparison.behind(), ["again"]);
}

#[test]
fn a_rerun_while_the_folder_is_missing_is_found_when_it_is_back() {
    let stage = Stage::new(false);
    for hash in ["again", "behind", "same"] {
        stage.archived(hash);
    }
    for location in ["primary", "backup"] {
        stage.make_earlier(location, "again");
    }
    stage.make_earlier("backup", "behind");
    let mut comparison = Comparison::new(&stage);
    comparison.rest();
    let (folder, away) = (stage.top.join("backup"), stage.top.join("away"));
    fs::rename(&folder, &away).unwrap();
    until("that the folder is missed", || {
        stage.view.folders()[0].root().is_err()
    });
    stage.finished("again");
    assert!(comparison.behind().is_empty());
    fs::rename(&away, &folder).unwrap();
    until("that the folder is there", || {
        stage.view.folders()[0].root().is_ok()
    });
    assert_eq!(comparison.behind(), ["again", "behind"]);
}

/// Compares for longer than it takes until a listing is believed. No job may be behind.
fn believe(comparison: &mut Comparison) {
    let begun = Instant::now();
    until("that what was compared is believed", || {
        assert!(comparison.behind().is_empty());
        begun.elapsed() > Duration::from_secs(3)
    });
}

#[test]
fn each_finished_rerun_is_reported_once_until_the_copy_is_of_the_same_run() {
    let stage = Stage::new(false);
    for hash in ["again", "earlier", "same"] {
        stage.archived(hash);
    }
    let again = ["again", "earlier"];
    let marker = |hash| stage.path("primary", hash).join("train.done");
    let stop = || {
        for hash in again {
            fs::remove_file(marker(hash)).unwrap();
            // Without a file of the new run, it would be what a purge has left.
            fs::write(stage.path("primary", hash).join("train.out"), "running").unwrap();
        }
    };
    let finish = || again.iter().for_each(|hash| drop(stage.finished(hash)));
    stop();
    stage.unfinished("never");
    let mut comparison = Comparison::new(&stage);
    believe(&mut comparison);
    for _ in 0..2 {
        assert!(comparison.compare(Extent::Behind).is_empty());
        finish();
        // By a machine whose clock is behind.
        stage.make_earlier("primary", "earlier");
        assert_eq!(comparison.compare(Extent::Behind), again);
        // It may be begun once more, before it is archived.
        stop();
        assert!(comparison.compare(Extent::Behind).is_empty());
    }
    finish();
    assert_eq!(comparison.compare(Extent::Behind), again);
    assert!(comparison.behind().is_empty());
    // A job whose copy is of the same run again costs nothing any more.
    again.iter().for_each(|hash| stage.archived(hash));
    assert!(comparison.compare(Extent::Behind).is_empty());
    stop();
    assert!(comparison.compare(Extent::Behind).is_empty());
    finish();
    assert!(comparison.compare(Extent::Behind).is_empty());
}

#[test]
fn a_rerun_in_an_unchanged_task_is_found_by_comparing_all() {
    let stage = Stage::new(false);
    stage.archived("again");
    stage.archived("same");
    let mut comparison = Comparison::new(&stage);
    believe(&mut comparison);
    stage.make_earlier("backup", "again");
    assert!(comparison.behind().is_empty());
    assert_eq!(comparison.compare(Extent::All), ["again"]);
}

#[test]
fn all_markers_are_compared_periodically_and_on_request() {
    for asked in [false, true] {
        let mut stage = Stage::new(false);
        stage.archived("again");
        stage.archived("same");
        stage.timing.interval = Duration::from_millis(50);
        if !asked {
            stage.timing.pace.markers = Duration::from_millis(50);
        }
        let archiver = stage.start();
        assert_eq!(settled(&archiver), Idle::Yes);
        // Longer than it takes until a comparison is believed.
        let begun = Instant::now();
        until("that it is believed", || {
            begun.elapsed() > Duration::from_secs(3)
        });
        stage.make_earlier("backup", "again");
        if asked {
            archiver.retry_now();
            assert_eq!(settled(&archiver), Idle::Yes);
        }
        let again = [(BACKUP, "again".to_owned())];
        until("that it is archived", || stage.stored() == again);
    }
}

/// More jobs are behind than there is room for at a time.
#[test]
fn a_comparison_without_room_does_not_delay_a_caller_while_no_job_can_be_archived() {
    let stage = Stage::new(false);
    for number in 0..500 {
        let hash = format!("{number}");
        stage.archived(&hash);
        stage.make_earlier("backup", &hash);
    }
    stage.refuse(BACKUP, Scope::Folder);
    let archiver = stage.start();
    // As long as there is no room, nothing is compared.
    for _ in 0..2 {
        let idle = settled(&archiver);
        let stuck = |failed| (200..=500).contains(&failed);
        assert!(
            matches!(idle, Idle::Stuck { failed } if stuck(failed)),
            "{idle:?}"
        );
        archiver.retry_now();
    }
    stage.order(|orders| orders.refuses.clear());
    archiver.retry_now();
    assert_eq!(settled(&archiver), Idle::Yes);
    let mut stored = stage.stored();
    stored.sort();
    stored.dedup();
    assert_eq!(stored.len(), 500);
}
