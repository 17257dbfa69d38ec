use super::*;
use crate::archive::engine::disks::{Done, Look, StoreResult};
use crate::archive::engine::route::Destination;
use crate::transfer::Size;

const BACKUP: Destination = Destination {
    folder: 1,
    backup: true,
};
const OTHER: Destination = Destination {
    folder: 2,
    backup: true,
};
const MOVE: Destination = Destination {
    folder: 3,
    backup: false,
};
const ALL: [Destination; 3] = [BACKUP, OTHER, MOVE];
const SETTLE: Duration = Duration::from_secs(2);
const READY: Look = Look::Ready(Size {
    files: 1,
    bytes: 10,
});
const STORED: StoreResult = Ok(Done::Stored {
    files: 1,
    bytes: 10,
});

struct Stage {
    queue: Queue,
    now: Instant,
}

impl Stage {
    fn new() -> Stage {
        let folder_queues = ALL
            .iter()
            .map(|destination| FolderQueue::new(destination.folder))
            .collect();
        Stage {
            queue: Queue::new(Pace::default(), SETTLE, folder_queues),
            now: Instant::now(),
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn looks(&mut self) -> Vec<Arc<JobId>> {
        self.queue.take_looks(64, self.now)
    }

    /// Looks at all jobs that are due, with this result.
    fn look(&mut self, result: &Look) -> usize {
        let jobs = self.looks();
        for job in &jobs {
            self.queue.looked(job, Ok(result.clone()), &ALL, self.now);
        }
        jobs.len()
    }

    fn take(&mut self, destination: Destination) -> Vec<Arc<JobId>> {
        self.queue.take_batch(destination.folder, 64, self.now)
    }

    fn land(&mut self, destination: Destination, jobs: Vec<Arc<JobId>>, outcome: &StoreResult) {
        let results = jobs.into_iter().map(|job| (job, outcome.clone()));
        self.queue
            .stored(destination.folder, results.collect(), self.now);
    }

    /// Stores all jobs that are due in a folder, with this outcome.
    fn store(&mut self, destination: Destination, outcome: &StoreResult) -> usize {
        let jobs = self.take(destination);
        let count = jobs.len();
        if count > 0 {
            self.land(destination, jobs, outcome);
        }
        count
    }

    fn ready(&mut self, hash: &str) {
        self.queue.found(job(hash), false, self.now);
        assert_eq!(self.look(&READY), 1);
    }
}

fn job(hash: &str) -> JobId {
    JobId::new("my.task", hash).unwrap()
}

fn failed(scope: Scope) -> StoreResult {
    Err(Failure {
        scope,
        why: "no".to_owned(),
    })
}

#[test]
fn a_job_goes_to_the_move_folder_after_all_backup_folders() {
    let mut stage = Stage::new();
    stage.ready("a");
    assert_eq!(stage.store(MOVE, &STORED), 0);
    assert_eq!(stage.store(BACKUP, &STORED), 1);
    assert_eq!(stage.store(MOVE, &STORED), 0);
    assert_eq!(stage.store(OTHER, &Ok(Done::Already)), 1);
    assert_eq!(stage.store(MOVE, &STORED), 1);
    assert!(stage.queue.jobs.is_empty());
    assert_eq!(stage.queue.next(stage.now), None);
    let counts = stage.queue.folder_queue(BACKUP.folder).unwrap().counts;
    assert_eq!((counts.jobs, counts.files, counts.bytes), (1, 1, 10));
}

#[test]
fn a_touched_job_is_looked_at_after_the_settle_time() {
    let mut stage = Stage::new();
    stage.queue.touch(job("a"), stage.now);
    stage.pass(1);
    assert!(stage.looks().is_empty());
    stage.queue.touch(job("a"), stage.now);
    stage.pass(1);
    assert!(stage.looks().is_empty());
    stage.pass(1);
    assert_eq!(stage.look(&Look::Settling(Duration::from_secs(1))), 1);
    assert_eq!(stage.look(&Look::Nothing), 0);
    stage.pass(1);
    assert_eq!(stage.look(&Look::Nothing), 1);
    assert!(stage.queue.jobs.is_empty());
}

#[test]
fn a_job_that_is_touched_while_queued_starts_again_with_a_look() {
    let mut stage = Stage::new();
    stage.ready("a");
    let under_way = stage.take(BACKUP);
    stage.queue.touch(job("a"), stage.now);
    // Folders that have not begun do not begin; one that has begun goes on.
    assert_eq!(stage.store(OTHER, &STORED), 0);
    assert!(stage.looks().is_empty());
    stage.land(BACKUP, under_way, &STORED);
    stage.pass(2);
    assert_eq!(stage.look(&READY), 1);
    for destination in ALL {
        assert_eq!(stage.store(destination, &STORED), 1);
    }
    assert!(stage.queue.jobs.is_empty());
    // Also while it is looked at, and while it waits for a folder.
    stage.queue.found(job("b"), false, stage.now);
    let looks = stage.looks();
    stage.queue.touch(job("b"), stage.now);
    stage
        .queue
        .looked(&looks[0], Ok(Look::Nothing), &ALL, stage.now);
    stage.pass(2);
    assert_eq!(stage.look(&READY), 1);
    stage.queue.touch(job("b"), stage.now);
    assert_eq!(stage.store(BACKUP, &STORED), 0);
    stage.pass(2);
    assert_eq!(stage.look(&READY), 1);
}

#[test]
fn a_failed_job_waits_longer_each_time_and_delays_no_other() {
    let mut stage = Stage::new();
    stage.ready("a");
    for wait in [10, 20, 40] {
        assert_eq!(stage.store(BACKUP, &failed(Scope::Job)), 1);
        stage.pass(wait - 1);
        assert_eq!(stage.store(BACKUP, &STORED), 0);
        stage.pass(1);
    }
    assert_eq!(stage.store(BACKUP, &failed(Scope::Job)), 1);
    stage.ready("b");
    assert_eq!(stage.store(BACKUP, &STORED), 1);
    stage.queue.retry(stage.now);
    assert_eq!(stage.store(BACKUP, &failed(Scope::Soon)), 1);
    stage.pass(2);
    assert_eq!(stage.store(BACKUP, &STORED), 1);
}

#[test]
fn a_failed_folder_delays_all_its_jobs_and_is_retried_with_one() {
    let mut stage = Stage::new();
    for hash in ["a", "b", "c"] {
        stage.ready(hash);
    }
    assert_eq!(stage.store(BACKUP, &failed(Scope::Folder)), 3);
    stage.ready("d");
    assert_eq!(stage.store(OTHER, &STORED), 4);
    for wait in [5, 10, 20] {
        stage.pass(wait - 1);
        assert_eq!(stage.store(BACKUP, &STORED), 0);
        assert!(stage.queue.next(stage.now).unwrap() > stage.now);
        stage.pass(1);
        assert_eq!(stage.store(BACKUP, &failed(Scope::Folder)), 1);
    }
    stage.pass(40);
    assert_eq!(stage.store(BACKUP, &STORED), 1);
    assert_eq!(stage.store(BACKUP, &STORED), 3);
    assert_eq!(stage.store(MOVE, &STORED), 4);
    assert!(stage.queue.jobs.is_empty());
}

#[test]
fn a_missing_folder_is_retried_as_soon_as_it_is_back() {
    let mut stage = Stage::new();
    stage.ready("a");
    let folder_queue = |stage: &mut Stage, there| {
        stage
            .queue
            .folder_queue(BACKUP.folder)
            .unwrap()
            .set_there(there)
    };
    let under_way = stage.take(BACKUP);
    assert!(!folder_queue(&mut stage, false));
    stage.land(BACKUP, under_way, &failed(Scope::Folder));
    assert!(stage.take(BACKUP).is_empty());
    assert!(stage.queue.next(stage.now).unwrap() <= stage.now + Duration::from_secs(1));
    assert!(folder_queue(&mut stage, true));
    assert_eq!(stage.take(BACKUP).len(), 1);
}

#[test]
fn waits_are_bounded_also_for_times_in_the_future() {
    let mut stage = Stage::new();
    stage.queue.found(job("a"), false, stage.now);
    let year = Duration::from_secs(365 * 86_400);
    assert_eq!(stage.look(&Look::Settling(year)), 1);
    stage.pass(60);
    assert_eq!(stage.look(&Look::Nothing), 1);
    // A clock has jumped since a refusal was recorded.
    let refused = [(BACKUP.folder, 7, year, "no".to_owned())];
    stage.queue.restore(job("b"), &refused, stage.now);
    assert_eq!(stage.look(&READY), 1);
    assert!(stage.take(BACKUP).is_empty());
    stage.pass(3600);
    assert_eq!(stage.store(BACKUP, &failed(Scope::Job)), 1);
    let refused = stage.queue.changes().pop();
    assert!(
        matches!(refused, Some(QueueChange::Refused(_, 1, 8, _, _))),
        "{refused:?}"
    );
}

#[test]
fn a_skipped_job_goes_to_no_other_folder() {
    let mut stage = Stage::new();
    stage.ready("a");
    let under_way = stage.take(OTHER);
    assert_eq!(stage.store(BACKUP, &Ok(Done::Skipped)), 1);
    assert_eq!(stage.queue.jobs.len(), 1);
    stage.land(OTHER, under_way, &failed(Scope::Job));
    assert!(stage.queue.jobs.is_empty());
    assert_eq!(stage.queue.next(stage.now), None);
}

#[test]
fn routine_looks_are_not_recorded_in_the_journal() {
    let mut stage = Stage::new();
    stage.queue.found(job("a"), true, stage.now);
    stage.queue.found(job("b"), true, stage.now);
    stage.queue.found(job("b"), false, stage.now);
    assert_eq!(stage.look(&Look::Nothing), 2);
    let b = Arc::new(job("b"));
    assert_eq!(
        stage.queue.changes(),
        [QueueChange::Queued(b.clone()), QueueChange::Done(b)]
    );
}

#[test]
fn a_busy_job_is_looked_at_less_and_less_often() {
    let mut stage = Stage::new();
    stage.queue.found(job("a"), false, stage.now);
    for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(stage.look(&Look::Busy("its lock is held".to_owned())), 1);
        stage.pass(wait - 1);
        assert!(stage.queue.take_looks(64, stage.now).is_empty());
        stage.pass(1);
    }
    assert_eq!(stage.look(&Look::Nothing), 1);
}
