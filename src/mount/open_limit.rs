//! Delays opens until other files are closed, if the process has no descriptors left for them.
//!
//! Every file that is open in the mount is open in the daemon. Some of its descriptors are reserved for other purposes,
//! so that attributes and listings never fail for lack of a descriptor. When the rest is used up, an open waits for a
//! file to be closed, in the order of arrival, and without blocking a thread that answers requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Resource, getrlimit};

use crate::mount::threads;

/// How long an open waits for a file to be closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A quarter of the process's descriptors is for directories (`tables::dir_cache`), and another quarter, up to this limit,
/// for listings and for files that are open only for a moment.
const RESERVED_MAX: u64 = 1024;

/// Answers a request: grants it, or refuses it for lack of room.
type Answer = Box<dyn FnOnce(bool) + Send>;

/// How many files may be open, and the opens that wait for others to be closed.
#[derive(Debug)]
pub(super) struct OpenLimit {
    files: AtomicUsize,
    files_max: usize,
    /// How many opens wait.
    waiting: AtomicUsize,
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<Waiting>,
    /// Wakes the thread.
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    opens: VecDeque<(Instant, Answer)>,
    /// Whether the thread runs.
    running: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queue")
    }
}

/// How many files may be open, given the limit of descriptors.
fn files_max(limit: u64) -> usize {
    let others = limit / 4 + (limit / 4).min(RESERVED_MAX);
    usize::try_from(limit - others).unwrap_or(usize::MAX)
}

impl Default for OpenLimit {
    fn default() -> OpenLimit {
        OpenLimit::new(files_max(
            getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        ))
    }
}

impl OpenLimit {
    fn new(files_max: usize) -> OpenLimit {
        OpenLimit {
            files: AtomicUsize::new(0),
            files_max,
            waiting: AtomicUsize::new(0),
            queue: Arc::default(),
        }
    }

    /// Notes that a file has been opened.
    pub(super) fn opened(&self) {
        self.files.fetch_add(1, Ordering::AcqRel);
    }

    /// Notes that a file has been closed.
    pub(super) fn closed(&self) {
        self.files.fetch_sub(1, Ordering::AcqRel);
        if self.waiting.load(Ordering::Acquire) > 0 {
            let _state = self.queue.state.lock();
            self.queue.changed.notify_one();
        }
    }

    fn is_full(&self) -> bool {
        self.files.load(Ordering::Acquire) >= self.files_max
    }

    /// Calls `answer` with `true` as soon as there is room for another file, usually at once, and with `false` if there
    /// is none in time.
    pub(super) fn when_free(self: &Arc<Self>, answer: impl FnOnce(bool) + Send + 'static) {
        if !self.is_full() && self.waiting.load(Ordering::Acquire) == 0 {
            return answer(true);
        }
        let mut state = self.queue.state.lock();
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let until = Instant::now() + CLOSE_TIMEOUT;
        state.opens.push_back((until, Box::new(answer)));
        if state.running {
            return;
        }
        let limit = self.clone();
        match threads::start("xpmfs-open-limit", move || limit.serve()) {
            Ok(()) => state.running = true,
            Err(error) => {
                tracing::error!(%error, "cannot wait for files to be closed: starting a thread failed");
                let waiting = std::mem::take(&mut state.opens);
                self.waiting.fetch_sub(waiting.len(), Ordering::AcqRel);
                drop(state);
                for (_, answer) in waiting {
                    answer(false);
                }
            }
        }
    }

    /// Answers the waiting requests, until none is left.
    fn serve(&self) {
        let mut state = self.queue.state.lock();
        while let Some((until, answer)) = state.opens.pop_front() {
            let mut room = !self.is_full();
            while !room && Instant::now() < until {
                self.queue.changed.wait_until(&mut state, until);
                room = !self.is_full();
            }
            drop(state);
            answer(room);
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            state = self.queue.state.lock();
        }
        state.running = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_of_descriptors_for_files() {
        assert_eq!(files_max(256), 128);
        assert_eq!(files_max(20_000), 20_000 - 5_000 - 1_024);
        assert!(files_max(u64::MAX) > 1 << 40);
    }

    #[test]
    fn opens_wait_in_order_for_closes() {
        let room = Arc::new(OpenLimit::new(2));
        let (sender, opened) = crossbeam_channel::unbounded();
        let open = |number: usize| {
            let (room_, sender) = (room.clone(), sender.clone());
            room.when_free(move |free| {
                room_.opened();
                sender.send((number, free)).unwrap();
            });
        };
        (0..4).for_each(open);
        let next = || opened.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!([next(), next()], [(0, true), (1, true)]);
        assert!(opened.try_recv().is_err());
        for number in 2..4 {
            room.closed();
            assert_eq!(next(), (number, true));
        }
        assert!(opened.try_recv().is_err());
    }
}
