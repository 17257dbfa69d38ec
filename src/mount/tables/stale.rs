//! Remembers which names, opens and directories failed with `ESTALE`, so that the next attempt succeeds or is cheap.
//!
//! 1. [`Contended`]: names that other processes, beneath the mount, keep replacing. A node holds no descriptor, so a
//!    file that is replaced beneath between lookup and open can no longer be opened: the open fails with `ESTALE`, and
//!    the kernel looks the name up again, once. Where names change all the time, that can happen twice in a row. So
//!    once that has happened for a name, every file that is looked up under the name is held open until the kernel
//!    forgets it: then the file can be opened, as on a disk, even if its name is gone.
//! 2. [`StaleRetries`]: callers whose `open` the kernel is about to try again. A node whose name leads elsewhere may still
//!    be open in this mount. It must not be opened once more for a caller that used the name: the kernel has cached
//!    the name for too long, and the caller wants the file that has the name now. But it must be opened for a caller
//!    that used `/proc/PID/fd/N`. The kernel does not report which one it was; on `ESTALE` it tries again, once, and
//!    looks the name up then. So the second `open` of a caller means the node. A path may also fail at a directory on it first, and at the
//!    file then: what such a caller looks up is held open as well.
//! 3. [`NotFoundAgain`]: directories that were not found again.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::sys::name::Name;

/// Limit of remembered names; the oldest are dropped first.
const NAMES_MAX: usize = 64;

/// The contended names.
#[derive(Debug, Default)]
pub(in crate::mount) struct Contended {
    /// Whether any name has been noted: usually none.
    any: AtomicBool,
    /// A directory's node and a name in it.
    names: Mutex<VecDeque<(u64, Name)>>,
}

impl Contended {
    /// Notes that the file under a name could not be found any more.
    pub(in crate::mount) fn note(&self, parent: u64, name: Name) {
        let mut names = self.names.lock();
        if names.contains(&(parent, name.clone())) {
            return;
        }
        if names.len() >= NAMES_MAX {
            names.pop_front();
        }
        names.push_back((parent, name));
        self.any.store(true, Ordering::Relaxed);
    }

    /// Whether files looked up under a name must be held open.
    pub(in crate::mount) fn contains(&self, parent: u64, name: &OsStr) -> bool {
        let is_it = |known: &(u64, Name)| known.0 == parent && *known.1 == *name;
        self.any.load(Ordering::Relaxed) && self.names.lock().iter().any(is_it)
    }
}

/// Limit of remembered callers; the oldest are dropped first, and get `ESTALE` once more.
const CALLERS_MAX: usize = 256;

/// How long a caller is remembered; the kernel tries again at once.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);

/// The threads that have received `ESTALE`, with what for and the time, and have opened no file since.
#[derive(Debug, Default)]
pub(in crate::mount) struct StaleRetries {
    /// Whether any caller has been added: usually none.
    any: AtomicBool,
    callers: Mutex<VecDeque<(u32, Failed, Instant)>>,
}

/// What has failed with `ESTALE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    Lookup,
    Open,
}

impl StaleRetries {
    /// Notes that a caller receives `ESTALE` for an `open`, or a file that is held open since it has received `ESTALE` before.
    pub(in crate::mount) fn add(&self, tid: u32) {
        self.note(tid, Failed::Open);
    }

    /// Notes that a caller receives `ESTALE` for a lookup.
    pub(in crate::mount) fn add_lookup(&self, tid: u32) {
        self.note(tid, Failed::Lookup);
    }

    fn note(&self, tid: u32, failed: Failed) {
        let mut callers = self.callers.lock();
        callers.retain(|(known, ..)| *known != tid);
        if callers.len() >= CALLERS_MAX {
            callers.pop_front();
        }
        callers.push_back((tid, failed, Instant::now()));
        self.any.store(true, Ordering::Relaxed);
    }

    /// Whether this `open` of a caller is its second attempt.
    pub(in crate::mount) fn contains(&self, tid: u32) -> bool {
        self.has_failed(tid, Failed::Open)
    }

    /// Whether a caller looks a path up for the second time, since a lookup has failed.
    pub(in crate::mount) fn looks_up_again(&self, tid: u32) -> bool {
        self.any.load(Ordering::Relaxed) && self.has_failed(tid, Failed::Lookup)
    }

    fn has_failed(&self, tid: u32, what: Failed) -> bool {
        let callers = self.callers.lock();
        let mut callers = callers.iter();
        callers.any(|(known, failed, since)| {
            *known == tid && *failed == what && since.elapsed() < RETRY_TIMEOUT
        })
    }

    /// Notes that a caller has opened a file: its next attempt is a first one.
    pub(in crate::mount) fn opened(&self, tid: u32) {
        if self.any.load(Ordering::Relaxed) {
            let mut callers = self.callers.lock();
            callers.retain(|(known, ..)| *known != tid);
            self.any.store(!callers.is_empty(), Ordering::Relaxed);
        }
    }
}

/// A directory that was not found is searched for again after this time.
const SEARCH_INTERVAL: Duration = Duration::from_secs(1);

/// Limit of directories that are remembered as not found.
const NOT_FOUND_MAX: usize = 64;

/// The state for finding directories that other processes rename (`renamed_dirs`).
#[derive(Debug, Default)]
pub(in crate::mount) struct NotFoundAgain {
    /// Held while nodes get new parents: two threads at once could make two nodes each other's parent.
    pub(in crate::mount) updating: Mutex<()>,
    not_found: Mutex<VecDeque<(u64, Instant)>>,
}

impl NotFoundAgain {
    pub(in crate::mount) fn was_searched(&self, id: u64) -> bool {
        let mut not_found = self.not_found.lock();
        not_found.retain(|(_, at)| at.elapsed() < SEARCH_INTERVAL);
        not_found.iter().any(|(known, _)| *known == id)
    }

    pub(in crate::mount) fn note_not_found(&self, id: u64) {
        let mut not_found = self.not_found.lock();
        if not_found.len() >= NOT_FOUND_MAX {
            not_found.pop_front();
        }
        not_found.push_back((id, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_contended_names_are_kept() {
        let contended = Contended::default();
        assert!(!contended.contains(1, OsStr::new("0")));
        for number in 0..1000 {
            contended.note(1, Name::from(OsStr::new(&number.to_string())));
        }
        assert!(contended.contains(1, OsStr::new("999")));
        assert!(!contended.contains(1, OsStr::new("0")));
        assert!(!contended.contains(2, OsStr::new("999")));
        assert_eq!(contended.names.lock().len(), NAMES_MAX);
    }

    #[test]
    fn retry_lasts_until_next_open() {
        let retries = StaleRetries::default();
        assert!(!retries.contains(1));
        retries.add(1);
        assert!(retries.contains(1));
        retries.opened(1);
        assert!(!retries.contains(1));
        for tid in 1..2000 {
            retries.add(tid);
        }
        assert!(!retries.contains(1), "evicted");
        assert!(retries.contains(1999));
        assert!(retries.callers.lock().len() <= CALLERS_MAX);
    }

    #[test]
    fn caller_whose_lookup_failed_has_not_failed_to_open() {
        let retries = StaleRetries::default();
        assert!(!retries.looks_up_again(1));
        retries.add_lookup(1);
        assert!(retries.looks_up_again(1) && !retries.contains(1));
        retries.add(1);
        assert!(!retries.looks_up_again(1) && retries.contains(1));
    }
}
