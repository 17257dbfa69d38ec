//! Remembers the names of files that were locked lately, which the kernel must look up each time.
//!
//! A caller that has got a lock may compare its open file with the file that has the name now, since another process
//! may have replaced it through another mount or beneath. So when a lock is granted, the kernel drops what it has cached
//! of the file and its names (`lock_waiter`), and does not cache them while the file is locked. Afterwards the names
//! are remembered here for a while, so that processes that lock a file again and again need not wait each time for the
//! kernel to drop its name. Other names are cached by the usual rules (`ttl`), whatever they end in: a walk finds a lock
//! file in each job.
//!
//! The names of a file that gets one more link are noted as well: a protocol links a file of its own to the name of the
//! lock, and reads the link count of its own file.
//!
//! A lock that is the existence of a name (`O_EXCL`, `mkdir`, `symlink`) needs no rule: for a call that may only create a
//! name, the kernel ignores its cache (`LOOKUP_EXCL`).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use crate::sys::name::Name;

/// Half the limit of names that are remembered; the oldest are dropped first.
const NAMES_MAX: usize = 1024;

/// How long a name is remembered after its file was locked.
const LOCKED_LATELY: Duration = Duration::from_secs(60);

/// The names of files that were locked lately.
#[derive(Debug, Default)]
pub(in crate::mount) struct LockNames {
    /// Whether any name has been added.
    any: AtomicBool,
    known: RwLock<Names>,
}

/// Pairs of a directory's node and a name in it: the recent ones and the previous ones.
#[derive(Debug, Default)]
struct Names {
    recent: HashMap<(u64, Name), State>,
    old: HashMap<(u64, Name), State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// The time of the last lock.
    locked: Instant,
    /// Whether the kernel has dropped the name since it was added, and has not been sent another reply that allows
    /// caching it.
    dropped: bool,
}

impl Names {
    /// The state of a name, if it has not expired.
    fn state(&mut self, key: &(u64, Name)) -> Option<&mut State> {
        let state = self.recent.get_mut(key).or_else(|| self.old.get_mut(key));
        state.filter(|state| state.locked.elapsed() < LOCKED_LATELY)
    }

    fn contains(&self, key: &(u64, Name)) -> bool {
        let state = self.recent.get(key).or_else(|| self.old.get(key));
        state.is_some_and(|state| state.locked.elapsed() < LOCKED_LATELY)
    }
}

impl LockNames {
    /// Whether the kernel must look a name up each time.
    pub(in crate::mount) fn contains(&self, parent: u64, name: &OsStr) -> bool {
        self.any.load(Ordering::Acquire) && self.known.read().contains(&(parent, Name::from(name)))
    }

    /// Notes that a file of this name has been locked; returns whether the kernel may have cached the name. Also a
    /// second process that gets a lock must then wait until the kernel has dropped the name.
    pub(in crate::mount) fn add(&self, parent: u64, name: &Name) -> bool {
        let key = (parent, name.clone());
        let mut known = self.known.write();
        let dropped = known.state(&key).is_some_and(|state| state.dropped);
        if known.recent.len() >= NAMES_MAX && !known.recent.contains_key(&key) {
            known.old = std::mem::take(&mut known.recent);
        }
        let locked = Instant::now();
        known.recent.insert(key, State { locked, dropped });
        self.any.store(true, Ordering::Release);
        !dropped
    }

    /// Notes whether the kernel has dropped a known name, or may have cached it again.
    pub(in crate::mount) fn set_dropped(&self, parent: u64, name: &OsStr, dropped: bool) {
        if self.any.load(Ordering::Acquire)
            && let Some(state) = self.known.write().state(&(parent, Name::from(name)))
        {
            state.dropped = dropped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> Name {
        Name::from(OsStr::new(&format!("{number}.lock")))
    }

    #[test]
    fn latest_lock_names_are_kept() {
        let names = LockNames::default();
        assert!(!names.contains(1, &name(0)));
        for number in 0..10 * NAMES_MAX {
            assert!(names.add(1, &name(number)));
            names.set_dropped(1, &name(number), true);
            assert!(!names.add(1, &name(number)));
        }
        assert!(names.contains(1, &name(10 * NAMES_MAX - 1)));
        assert!(!names.contains(1, &name(0)), "forgotten");
        assert!(!names.contains(2, &name(10 * NAMES_MAX - 1)));
        let known = names.known.read();
        assert!(known.recent.len() + known.old.len() <= 2 * NAMES_MAX);
    }

    #[test]
    fn each_lock_waits_until_the_kernel_has_dropped_the_name() {
        let names = LockNames::default();
        assert!(names.add(1, &name(0)));
        assert!(names.add(1, &name(0)), "the kernel has not dropped it yet");
        names.set_dropped(1, &name(0), true);
        assert!(!names.add(1, &name(0)));
        names.set_dropped(1, &name(0), false);
        assert!(names.add(1, &name(0)));
    }

    #[test]
    fn name_is_forgotten_some_time_after_the_lock() {
        let names = LockNames::default();
        names.add(1, &name(0));
        names.set_dropped(1, &name(0), true);
        let Some(long_ago) = Instant::now().checked_sub(LOCKED_LATELY) else {
            // The machine has just started.
            return;
        };
        if let Some(state) = names.known.write().state(&(1, name(0))) {
            state.locked = long_ago;
        }
        assert!(!names.contains(1, &name(0)));
        assert!(
            names.add(1, &name(0)),
            "the kernel may have cached it since"
        );
        assert!(names.contains(1, &name(0)));
    }
}
