//! The threads in which requests wait for folders: some of the loop's, then others outside the loop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sys::cached_threads::CachedThreads;

/// How many requests the loop processes at the same time.
pub(super) const LOOP_THREADS: usize = 8;

/// How many threads of the loop may wait for folders: the others answer all other requests.
const LOOP_MAX: usize = LOOP_THREADS - 2;

/// How many other threads may wait, beside those whose folders are offline. Requests beyond them fail with `EIO`.
const OTHERS_MAX: usize = 1024;

/// How many of these may process requests without a deadline. The rest are for requests that end in any case.
const WITHOUT_DEADLINE_MAX: usize = OTHERS_MAX / 4 * 3;

/// Counts the threads that process requests which may wait for a folder.
pub(super) struct Threads {
    of_loop: Arc<AtomicUsize>,
    others: Arc<AtomicUsize>,
    threads: CachedThreads,
    /// Returns how many threads wait for folders that are offline. They do not count: a folder that is offline is not asked any
    /// more, so that their number is bounded, and they must not use up the threads of other requests.
    late: Box<dyn Fn() -> usize + Send + Sync>,
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Threads").finish_non_exhaustive()
    }
}

/// A thread that is counted until its work is done.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>, max: usize) -> Option<Counted> {
        let counted = Counted(count.clone());
        // When dropped, the thread is no longer counted.
        (count.fetch_add(1, Ordering::AcqRel) < max).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Threads {
    pub(super) fn new(late: impl Fn() -> usize + Send + Sync + 'static) -> Threads {
        Threads {
            of_loop: Arc::default(),
            others: Arc::default(),
            threads: CachedThreads::new("xpmfs-deferred"),
            late: Box::new(late),
        }
    }

    /// Processes a request at once, or in another thread if many already wait. A request that is dropped fails with
    /// `EIO`.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) {
        match Counted::new(&self.of_loop, LOOP_MAX) {
            Some(_counted) => work(),
            None => self.run_outside(work),
        }
    }

    /// As [`Threads::run`], for a request that may wait without end.
    pub(super) fn run_without_deadline(&self, work: impl FnOnce() + Send + 'static) {
        match Counted::new(&self.of_loop, LOOP_MAX) {
            Some(_counted) => work(),
            None => self.run_in_one_of(WITHOUT_DEADLINE_MAX, work),
        }
    }

    /// Processes a request in another thread than those of the loop, and returns at once. A request that is dropped
    /// fails with `EIO`.
    pub(super) fn run_outside(&self, work: impl FnOnce() + Send + 'static) {
        self.run_in_one_of(OTHERS_MAX, work);
    }

    fn run_in_one_of(&self, max: usize, work: impl FnOnce() + Send + 'static) {
        let Some(counted) = Counted::new(&self.others, max + (self.late)()) else {
            tracing::warn!("{max} requests wait for folders: another one fails");
            return;
        };
        let started = self.threads.run(move || {
            let _counted = counted;
            work();
        });
        if let Err(error) = started {
            tracing::warn!(%error, "a request fails: starting a thread failed");
        }
    }
}

/// Starts the one thread that holds the replies of all requests which wait for something other than a folder.
///
/// # Errors
///
/// No thread can be started.
pub(super) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(work).map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn waiting_requests_leave_loop_threads_free() {
        let threads = Arc::new(Threads::new(|| 0));
        let (end, ends) = crossbeam_channel::bounded::<()>(0);
        let (begin, begins) = crossbeam_channel::unbounded();
        let loops: Vec<_> = (0..LOOP_THREADS * 2)
            .map(|_| {
                let (threads, ends, begin) = (threads.clone(), ends.clone(), begin.clone());
                let (done, is_done) = crossbeam_channel::bounded::<()>(0);
                std::thread::spawn(move || {
                    threads.run(move || {
                        begin.send(()).unwrap();
                        let _ = ends.recv();
                    });
                    drop(done);
                });
                is_done
            })
            .collect();
        let timeout = Duration::from_secs(60);
        for _ in 0..LOOP_THREADS * 2 {
            begins.recv_timeout(timeout).unwrap();
        }
        let is_free = |thread: &&crossbeam_channel::Receiver<()>| {
            thread
                .recv_timeout(Duration::from_millis(200))
                .is_err_and(|error| !error.is_timeout())
        };
        let free = loops.iter().filter(is_free).count();
        assert_eq!(free, LOOP_THREADS * 2 - LOOP_MAX);
        drop(end);
    }
}
