//! Remembers names that other processes, beneath the mount, keep replacing.
//!
//! A node holds no descriptor, so a file that is replaced beneath between lookup and open can no longer be opened: the
//! open fails with `ESTALE`, and the kernel looks the name up again, once. Where names change all the time, that can
//! happen twice in a row. So once that has happened for a name, every file that is looked up under the name is held
//! open until the kernel forgets it: then the file can be opened, as on a disk, even if its name is gone.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_names_are_known() {
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
}
