use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::*;
use crate::mount::testing::Fixture;
use crate::settings::Mode;

/// Recovers a job when the test permits it.
struct Permitted {
    begun: Sender<JobId>,
    results: Receiver<Result<(), Errno>>,
}

impl Recover for Permitted {
    fn recover(&self, job: &JobId, progress: &Progress) -> Result<(), Errno> {
        self.begun.send(job.clone()).unwrap();
        let is_hanging = job.hash().to_string_lossy().starts_with(HANGING);
        loop {
            if progress.is_cancelled() && !is_hanging {
                return Err(Errno::INTR);
            }
            if let Ok(result) = self.results.recv_timeout(Duration::from_millis(5)) {
                return result;
            }
        }
    }

    fn has_silent_folder(&self) -> bool {
        false
    }

    fn recovers_on_open(&self, _: u8) -> bool {
        true
    }

    fn recover_for_readers(&self, job: &JobId, progress: &Progress) -> Result<(), Errno> {
        self.recover(job, progress)
    }

    fn lacks_space(&self, _: &Progress) -> bool {
        false
    }
}

/// The number of a caller, and the error that it received.
type Answer = (u32, Errno);

struct Stage {
    recoveries: Arc<Recoveries>,
    recover: Arc<dyn Recover>,
    begun: Receiver<JobId>,
    permit: Sender<Result<(), Errno>>,
    answers: (Sender<Answer>, Receiver<Answer>),
}

const TIMEOUT: Duration = Duration::from_secs(60);
/// In place of an error: attempted again.
const AGAIN: Errno = Errno::RESTART;

impl Stage {
    fn new() -> Stage {
        let (begin, begun) = unbounded();
        let (permit, results) = bounded(0);
        Stage {
            recoveries: Arc::new(Recoveries::new(Interrupts::default())),
            recover: Arc::new(Permitted {
                begun: begin,
                results,
            }),
            begun,
            permit,
            answers: unbounded(),
        }
    }

    fn wait(&self, hash: &str, name: u32, tid: u32) {
        let (again, refuse) = (self.answers.0.clone(), self.answers.0.clone());
        self.recoveries.wait(
            &self.recover,
            JobId::new("t", hash).unwrap(),
            tid,
            move || again.send((name, AGAIN)).unwrap(),
            move |error| refuse.send((name, error)).unwrap(),
        );
    }

    fn read(&self, hash: &str) {
        let job = JobId::new("t", hash).unwrap();
        self.recoveries.read(&self.recover, job);
    }

    /// Waits until no recovery is queued or running.
    fn is_idle(&self) {
        let deadline = Instant::now() + TIMEOUT;
        while !self.recoveries.running().is_empty() {
            assert!(Instant::now() < deadline, "a recovery does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn answer(&self) -> (u32, Errno) {
        self.answers.1.recv_timeout(TIMEOUT).unwrap()
    }

    fn has_begun(&self, hash: &str) {
        let job = self.begun.recv_timeout(TIMEOUT).unwrap();
        assert_eq!(job, JobId::new("t", hash).unwrap());
    }
}

#[test]
fn requests_for_one_job_wait_for_one_recovery() {
    let stage = Stage::new();
    stage.wait("a", 1, 0);
    stage.has_begun("a");
    stage.wait("a", 2, 0);
    let running = stage.recoveries.running();
    assert_eq!((running.len(), running[0].waiting), (1, 2));
    assert!(stage.recoveries.holds(&JobId::new("t", "a").unwrap()));
    stage.permit.send(Ok(())).unwrap();
    assert_eq!([stage.answer(), stage.answer()], [(1, AGAIN), (2, AGAIN)]);
    assert!(stage.begun.try_recv().is_err());
    assert!(stage.recoveries.running().is_empty());
    stage.wait("a", 3, 0);
    stage.has_begun("a");
    stage.permit.send(Err(Errno::NOSPC)).unwrap();
    assert_eq!(stage.answer(), (3, Errno::NOSPC));
}

#[test]
fn jobs_beyond_the_threads_are_queued() {
    let stage = Stage::new();
    for number in 0..6 {
        stage.wait(&number.to_string(), number, 0);
    }
    for _ in 0..THREADS_MAX {
        stage.begun.recv_timeout(TIMEOUT).unwrap();
    }
    assert!(stage.begun.recv_timeout(Duration::from_millis(50)).is_err());
    for _ in 0..6 {
        stage.permit.send(Ok(())).unwrap();
    }
    let mut done: Vec<u32> = (0..6).map(|_| stage.answer().0).collect();
    done.sort_unstable();
    assert_eq!(done, [0, 1, 2, 3, 4, 5]);
}

/// The recoveries of jobs called so cannot be cancelled, as those that wait for a folder in a system call.
const HANGING: &str = "hanging";

#[test]
fn stuck_recoveries_do_not_delay_others() {
    let stage = Stage::new();
    let hanging = |number: u32| format!("{HANGING}-{number}");
    let threads_max = u32::try_from(THREADS_MAX).unwrap();
    for number in 0..threads_max {
        stage.wait(&hanging(number), number, 0);
        stage.begun.recv_timeout(TIMEOUT).unwrap();
    }
    stage.wait("other", 99, 0);
    assert!(stage.begun.recv_timeout(Duration::from_millis(50)).is_err());
    for number in 0..threads_max {
        let job = JobId::new("t", hanging(number)).unwrap();
        let progress = stage.recoveries.state.lock().jobs[&job].progress.clone();
        // Also if the lack of progress is noticed twice.
        for _ in 0..2 {
            let recoveries = &stage.recoveries;
            recoveries.give_up(&stage.recover, &job, &progress);
        }
        assert_eq!(stage.answer(), (number, Errno::TIMEDOUT));
    }
    stage.has_begun("other");
    // A request for a job whose recovery is stuck waits for it.
    stage.wait(&hanging(0), 7, 0);
    for _ in 0..=threads_max {
        stage.permit.send(Ok(())).unwrap();
    }
    let mut done = [stage.answer(), stage.answer()];
    done.sort_unstable_by_key(|(name, _)| *name);
    assert_eq!(done, [(7, AGAIN), (99, AGAIN)]);
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let state = stage.recoveries.state.lock();
        if (state.threads, state.stuck) == (0, 0) && state.jobs.is_empty() {
            break;
        }
        drop(state);
        assert!(Instant::now() < deadline, "threads are left");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn recovery_ends_a_moment_after_its_last_request() {
    let stage = Stage::new();
    let gone = std::thread::spawn(rustix::thread::gettid).join().unwrap();
    let gone = gone.as_raw_nonzero().get().unsigned_abs();
    stage.wait("a", 1, gone);
    stage.has_begun("a");
    assert_eq!(stage.answer(), (1, Errno::INTR));
    // Another request in time keeps it running.
    stage.wait("a", 2, 0);
    stage.permit.send(Ok(())).unwrap();
    assert_eq!(stage.answer(), (2, AGAIN));
    stage.wait("a", 3, gone);
    stage.has_begun("a");
    assert_eq!(stage.answer(), (3, Errno::INTR));
    let deadline = Instant::now() + TIMEOUT;
    while !stage.recoveries.running().is_empty() {
        assert!(Instant::now() < deadline, "it is not cancelled");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn jobs_that_are_read_are_recovered_one_after_the_other() {
    let stage = Stage::new();
    stage.read("a");
    stage.read("a");
    stage.read("b");
    stage.has_begun("a");
    assert!(stage.begun.recv_timeout(Duration::from_millis(50)).is_err());
    let running = stage.recoveries.running();
    assert_eq!(running.len(), 2);
    assert!(
        running
            .iter()
            .all(|one| one.for_readers && one.waiting == 0)
    );
    assert!(!stage.recoveries.holds(&JobId::new("t", "a").unwrap()));
    stage.permit.send(Ok(())).unwrap();
    stage.has_begun("b");
    stage.permit.send(Err(Errno::NOSPC)).unwrap();
    stage.is_idle();
    // It failed: other reads do not try again at once. A request does.
    stage.read("b");
    assert!(stage.recoveries.running().is_empty());
    stage.wait("b", 1, 0);
    stage.has_begun("b");
    stage.permit.send(Ok(())).unwrap();
    assert_eq!(stage.answer(), (1, AGAIN));
    // The folder serves the first one again.
    stage.read("a");
    stage.has_begun("a");
    stage.permit.send(Ok(())).unwrap();
    stage.is_idle();
}

#[test]
fn requests_do_not_wait_for_jobs_that_are_only_read() {
    let stage = Stage::new();
    for hash in ["a", "b", "c"] {
        stage.read(hash);
    }
    stage.has_begun("a");
    // A request takes a queued job out of the queue for readers.
    stage.wait("c", 1, 0);
    stage.has_begun("c");
    let running = stage.recoveries.running();
    assert!(!running[2].for_readers && running[2].waiting == 1);
    // One for the running job waits for that.
    stage.wait("a", 2, 0);
    assert!(stage.recoveries.holds(&JobId::new("t", "a").unwrap()));
    stage.permit.send(Ok(())).unwrap();
    stage.permit.send(Ok(())).unwrap();
    let mut answers = [stage.answer(), stage.answer()];
    answers.sort_unstable_by_key(|(name, _)| *name);
    assert_eq!(answers, [(1, AGAIN), (2, AGAIN)]);
    stage.has_begun("b");
    stage.permit.send(Ok(())).unwrap();
    stage.is_idle();
}

#[test]
fn a_request_gets_the_job_that_readers_have_no_space_for() {
    let stage = Stage::new();
    stage.read("a");
    stage.has_begun("a");
    stage.wait("a", 1, 0);
    stage.permit.send(Err(Errno::NOSPC)).unwrap();
    stage.has_begun("a");
    stage.permit.send(Ok(())).unwrap();
    assert_eq!(stage.answer(), (1, AGAIN));
}

#[test]
fn a_recovery_for_readers_goes_on_when_its_last_request_is_interrupted() {
    let stage = Stage::new();
    let gone = std::thread::spawn(rustix::thread::gettid).join().unwrap();
    let gone = gone.as_raw_nonzero().get().unsigned_abs();
    stage.read("a");
    stage.has_begun("a");
    stage.wait("a", 1, gone);
    assert_eq!(stage.answer(), (1, Errno::INTR));
    std::thread::sleep(ABANDONED_AFTER + Duration::from_millis(200));
    assert_eq!(stage.recoveries.running().len(), 1);
    stage.permit.send(Ok(())).unwrap();
    stage.is_idle();
}

#[test]
fn the_queue_for_readers_is_bounded() {
    let stage = Stage::new();
    for number in 0..2000 {
        stage.read(&number.to_string());
    }
    assert!(stage.recoveries.running().len() < 300);
    stage.recoveries.stop();
    assert!(!stage.recoveries.state.lock().for_readers.has_thread);
}

#[test]
fn end_of_the_mount_cancels_recoveries() {
    let stage = Stage::new();
    stage.wait("a", 1, 0);
    stage.has_begun("a");
    stage.recoveries.stop();
    assert_eq!(stage.answer(), (1, Errno::IO));
    assert_eq!(stage.recoveries.state.lock().threads, 0);
    stage.wait("b", 2, 0);
    assert_eq!(stage.answer(), (2, Errno::IO));
}

/// The primary may have got the task by now, to which the kernel has moved the job.
#[test]
fn job_whose_task_the_kernel_has_forgotten_is_looked_up_again() {
    let mut fixture = Fixture::new(Mode::Backup, &["folder/jobs/t/h"]);
    fixture.mount.recover = Some(Stage::new().recover);
    let ids = fixture.look_up("jobs/t/h");
    let job = fixture.mount.node(ids[3]).unwrap();
    fixture.mount.forget(ids[2], 1);
    assert_eq!(fixture.mount.recovery_needed(0, &job), Errno::STALE);
}
