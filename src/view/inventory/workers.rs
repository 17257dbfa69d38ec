//! Looks at jobs on several threads. A thread that waits for a silent folder is left behind, and another one goes on in its place.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};
use parking_lot::Mutex;

use super::names::JobCandidate;
use crate::view::View;
use crate::view::location::asking::Mark;

/// The number of threads: most wait for a disk.
const THREADS: usize = 16;

/// How many jobs there must be for another thread.
const JOBS_PER_THREAD: usize = 64;

/// How many threads may be left behind with a folder that does not answer.
const LEFT_MAX: usize = 16;

/// How often the threads are checked for one that waits for a folder.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// What came of a look at a name.
#[derive(Debug)]
pub(super) enum Outcome<T> {
    /// It is not the name of a job.
    NotAJob,
    /// Which location serves it cannot be known.
    Unknown,
    /// The location that serves it does not answer.
    Silent(u8),
    Seen(u8, T),
}

/// What the threads share.
struct Work<T, F> {
    view: Arc<View>,
    named: Arc<Vec<JobCandidate>>,
    next: AtomicUsize,
    look: F,
    _seen: std::marker::PhantomData<fn() -> T>,
}

/// A thread.
struct Worker<T> {
    /// What it asks now.
    mark: OnceLock<Mark>,
    outcomes: Mutex<Vec<(usize, Outcome<T>)>>,
}

/// Reports the end of a thread, also if it panics.
struct End(Sender<usize>, usize);

impl Drop for End {
    fn drop(&mut self) {
        // The receiver has gone if the thread was left behind.
        let _ = self.0.send(self.1);
    }
}

/// Calls a function for each name, and returns the outcomes in order.
pub(super) fn look_at_all<T: Send + 'static>(
    view: &Arc<View>,
    named: Arc<Vec<JobCandidate>>,
    look: impl Fn(&View, &JobCandidate) -> Outcome<T> + Send + Sync + 'static,
) -> Vec<Outcome<T>> {
    let count = named.len();
    let work = Arc::new(Work {
        view: view.clone(),
        named,
        next: AtomicUsize::new(0),
        look,
        _seen: std::marker::PhantomData,
    });
    let (ended, ends) = unbounded();
    let mut workers: Vec<Option<Arc<Worker<T>>>> = Vec::new();
    let mut all: Vec<Arc<Worker<T>>> = Vec::new();
    for _ in 0..THREADS.min(count.div_ceil(JOBS_PER_THREAD)) {
        start(&work, &mut workers, &mut all, &ended);
    }
    if workers.is_empty() && count > 0 {
        // No thread can be started: this one does the work, and waits for any folder.
        let worker = Arc::new(Worker::new());
        all.push(worker.clone());
        work.run(&worker);
    }
    let mut left = 0;
    while workers.iter().any(Option::is_some) {
        match ends.recv_timeout(CHECK_INTERVAL) {
            Ok(index) => {
                if let Some(worker) = workers.get_mut(index) {
                    *worker = None;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                for index in 0..workers.len() {
                    let Some(Some(worker)) = workers.get(index) else {
                        continue;
                    };
                    if !is_held(&work.view, worker) {
                        continue;
                    }
                    workers[index] = None;
                    left += 1;
                    if left < LEFT_MAX && work.next.load(Ordering::Relaxed) < count {
                        start(&work, &mut workers, &mut all, &ended);
                    }
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let mut outcomes: Vec<Outcome<T>> = Vec::with_capacity(count);
    outcomes.resize_with(count, || Outcome::Unknown);
    for worker in all {
        // A job that a folder holds stays unknown.
        for (index, outcome) in worker.outcomes.lock().drain(..) {
            if let Some(slot) = outcomes.get_mut(index) {
                *slot = outcome;
            }
        }
    }
    outcomes
}

/// Starts one more thread, if that is possible.
fn start<T: Send + 'static, F: Fn(&View, &JobCandidate) -> Outcome<T> + Send + Sync + 'static>(
    work: &Arc<Work<T, F>>,
    workers: &mut Vec<Option<Arc<Worker<T>>>>,
    all: &mut Vec<Arc<Worker<T>>>,
    ended: &Sender<usize>,
) {
    let worker = Arc::new(Worker::new());
    let (work, own) = (work.clone(), worker.clone());
    let end = End(ended.clone(), workers.len());
    let thread = Builder::new().name("xpmfs-list".to_owned());
    let spawned = thread.spawn(move || {
        let _end = end;
        work.run(&own);
    });
    if spawned.is_ok() {
        workers.push(Some(worker.clone()));
        all.push(worker);
    }
}

/// Whether a thread has waited for a folder for too long. The folder is offline from then on.
fn is_held<T>(view: &View, worker: &Worker<T>) -> bool {
    let Some(mark) = worker.mark.get() else {
        return false;
    };
    let Some(question) = mark.question() else {
        return false;
    };
    let Some(folder) = view.location(question.folder()) else {
        return false;
    };
    folder.supervise(mark, question);
    folder
        .reply_timeout()
        .is_some_and(|timeout| question.age() > timeout)
}

impl<T> Worker<T> {
    fn new() -> Worker<T> {
        Worker {
            mark: OnceLock::new(),
            outcomes: Mutex::default(),
        }
    }
}

impl<T, F: Fn(&View, &JobCandidate) -> Outcome<T>> Work<T, F> {
    fn run(&self, worker: &Worker<T>) {
        // Set once: the thread is new.
        let _ = worker.mark.set(Mark::of_this_thread());
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(named) = self.named.get(index) else {
                return;
            };
            let outcome = (self.look)(&self.view, named);
            worker.outcomes.lock().push((index, outcome));
        }
    }
}
