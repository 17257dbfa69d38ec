//! Counts slow requests, so that a folder that does not answer cannot occupy every thread.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::mount::threads::LOOP_THREADS;

/// A request that takes longer waits for a disk that is very busy, or does not answer.
const LONG_REQUEST: Duration = Duration::from_secs(5);

/// Half of the threads are reserved for requests that can be answered.
const STUCK_MAX: usize = LOOP_THREADS / 2;

/// The start time of each thread's request.
#[derive(Debug)]
pub(super) struct Load {
    began: Instant,
    /// In milliseconds since `began`, and 0 for a thread that waits for a request.
    threads: [AtomicU64; LOOP_THREADS],
    next: AtomicUsize,
}

thread_local! {
    /// The index of this thread among those that process requests.
    static PLACE: Cell<Option<usize>> = const { Cell::new(None) };
}

impl Load {
    pub(super) fn new() -> Load {
        Load {
            began: Instant::now(),
            threads: [const { AtomicU64::new(0) }; LOOP_THREADS],
            next: AtomicUsize::new(0),
        }
    }

    /// Whether so many requests have taken so long that few threads are left.
    pub(super) fn is_high(&self) -> bool {
        let now = self.now();
        let long = u64::try_from(LONG_REQUEST.as_millis()).unwrap_or(u64::MAX);
        let since = self
            .threads
            .iter()
            .map(|since| since.load(Ordering::Relaxed));
        let stuck = since.filter(|since| *since > 0 && now.saturating_sub(*since) > long);
        stuck.count() >= STUCK_MAX
    }

    /// Notes that this thread processes a request from now on.
    pub(super) fn begin(&self) -> Busy<'_> {
        let since = self.thread();
        let since = since.filter(|since| since.load(Ordering::Relaxed) == 0);
        if let Some(since) = since {
            since.store(self.now(), Ordering::Relaxed);
        }
        Busy(since)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn thread(&self) -> Option<&AtomicU64> {
        let place = PLACE.get().unwrap_or_else(|| {
            let place = self.next.fetch_add(1, Ordering::Relaxed);
            PLACE.set(Some(place));
            place
        });
        self.threads.get(place)
    }
}

/// A request that this thread processes, until it is dropped; `None` within another request.
pub(super) struct Busy<'a>(Option<&'a AtomicU64>);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(since) = self.0 {
            since.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_high_when_half_of_threads_are_stuck() {
        let mut load = Load::new();
        assert!(!load.is_high());
        let now = load.now();
        for thread in load.threads.iter().take(STUCK_MAX) {
            thread.store(now, Ordering::Relaxed);
        }
        assert!(!load.is_high());
        load.began = load.began.checked_sub(LONG_REQUEST * 2).unwrap();
        assert!(load.is_high());
        load.threads[0].store(0, Ordering::Relaxed);
        assert!(!load.is_high());
    }
}
