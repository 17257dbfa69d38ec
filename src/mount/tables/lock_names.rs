//! Remembers the names of lock files, which the kernel must look up each time.
//!
//! A caller that has got a lock may compare its open file with the file that has the name now, since another process
//! may have replaced it through another mount or beneath.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use crate::sys::name::Name;

/// The usual suffix of lock files.
const SUFFIX: &[u8] = b".lock";

/// Half the limit of other names that are remembered; the oldest are dropped first.
const NAMES_MAX: usize = 1024;

/// The names of files that have been locked, other than those that end in `.lock`.
#[derive(Debug, Default)]
pub(in crate::mount) struct LockNames {
    /// Whether any name has been added.
    any: AtomicBool,
    known: RwLock<Names>,
}

/// Pairs of a directory's node and a name in it: the recent ones and the previous ones.
#[derive(Debug, Default)]
struct Names {
    recent: HashSet<(u64, Name)>,
    old: HashSet<(u64, Name)>,
}

impl LockNames {
    /// Whether a name is that of a lock file.
    pub(in crate::mount) fn contains(&self, parent: u64, name: &OsStr) -> bool {
        if name.as_bytes().ends_with(SUFFIX) {
            return true;
        }
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let (key, known) = ((parent, Name::from(name)), self.known.read());
        known.recent.contains(&key) || known.old.contains(&key)
    }

    /// Notes that a file of this name has been locked; returns whether the name was unknown before.
    pub(in crate::mount) fn add(&self, parent: u64, name: &Name) -> bool {
        if name.as_bytes().ends_with(SUFFIX) {
            return false;
        }
        let key = (parent, name.clone());
        if self.known.read().recent.contains(&key) {
            return false;
        }
        let mut known = self.known.write();
        if known.recent.len() >= NAMES_MAX {
            known.old = std::mem::take(&mut known.recent);
        }
        let was = known.old.contains(&key);
        known.recent.insert(key);
        self.any.store(true, Ordering::Release);
        !was
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_lock_names_are_kept() {
        let names = LockNames::default();
        let name = |number: usize| Name::from(OsStr::new(&number.to_string()));
        assert!(names.contains(1, OsStr::new("train.lock")));
        assert!(!names.contains(1, &name(0)));
        assert!(!names.add(1, &Name::from(OsStr::new("train.lock"))));
        for number in 0..10 * NAMES_MAX {
            assert!(names.add(1, &name(number)));
            assert!(!names.add(1, &name(number)));
        }
        assert!(names.contains(1, &name(10 * NAMES_MAX - 1)));
        assert!(!names.contains(1, &name(0)), "forgotten");
        assert!(!names.contains(2, &name(10 * NAMES_MAX - 1)));
        let known = names.known.read();
        assert!(known.recent.len() + known.old.len() <= 2 * NAMES_MAX);
    }
}
