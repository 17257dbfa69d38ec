//! Remembers callers whose `open` the kernel is about to try again.
//!
//! A node whose name leads elsewhere may still be open in this mount. It must not be opened once more for a caller that
//! used the name: the kernel has cached the name for too long, and the caller wants the file that has the name now. But
//! it must be opened for a caller that used `/proc/PID/fd/N`. The kernel does not report which one it was; on `ESTALE`
//! it tries again, once, and looks the name up then. So the second `open` of a caller means the node.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Limit of remembered callers; the oldest are dropped first, and get `ESTALE` once more.
const CALLERS_MAX: usize = 256;

/// How long a caller is remembered; the kernel tries again at once.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);

/// The threads that have received `ESTALE` for an `open`, with the time, and have opened no file since.
#[derive(Debug, Default)]
pub(in crate::mount) struct Retries {
    /// Whether any caller has been added: usually none.
    any: AtomicBool,
    callers: Mutex<VecDeque<(u32, Instant)>>,
}

impl Retries {
    /// Notes that a caller receives `ESTALE` for an `open`.
    pub(in crate::mount) fn add(&self, tid: u32) {
        let mut callers = self.callers.lock();
        callers.retain(|(known, _)| *known != tid);
        if callers.len() >= CALLERS_MAX {
            callers.pop_front();
        }
        callers.push_back((tid, Instant::now()));
        self.any.store(true, Ordering::Relaxed);
    }

    /// Whether this `open` of a caller is its second attempt.
    pub(in crate::mount) fn contains(&self, tid: u32) -> bool {
        let callers = self.callers.lock();
        let mut times = callers.iter().filter(|(known, _)| *known == tid);
        times.any(|(_, since)| since.elapsed() < RETRY_TIMEOUT)
    }

    /// Notes that a caller has opened a file: its next attempt is a first one.
    pub(in crate::mount) fn opened(&self, tid: u32) {
        if self.any.load(Ordering::Relaxed) {
            let mut callers = self.callers.lock();
            callers.retain(|(known, _)| *known != tid);
            self.any.store(!callers.is_empty(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_the_second_until_something_is_opened() {
        let retries = Retries::default();
        assert!(!retries.contains(1));
        retries.add(1);
        assert!(retries.contains(1));
        retries.opened(1);
        assert!(!retries.contains(1));
        for tid in 1..2000 {
            retries.add(tid);
        }
        assert!(!retries.contains(1), "forgotten");
        assert!(retries.contains(1999));
        assert!(retries.callers.lock().len() <= CALLERS_MAX);
    }
}
