//! Names that several fight over.
//!
//! A node holds no descriptor, so a file that is replaced between being looked up and being opened
//! cannot be opened any more: that is `ESTALE`, upon which the kernel looks the name up again, once.
//! Where files are replaced all the time, that can happen twice in a row. So whatever is looked up
//! under a name for which it has happened is held open until the kernel forgets it: then it can be
//! opened, as on a disk, whatever becomes of its name.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// Names that are known as contended at most; the oldest go first.
const NAMES_MAX: usize = 64;
/// Descriptors that are held at most.
const HELD_MAX: usize = 256;

/// The names, and what is held open because of them.
#[derive(Debug, Default)]
pub(super) struct Contended {
    /// Whether there has been any: as a rule there is none.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// A directory's node and a name in it.
    names: VecDeque<(u64, Arc<OsStr>)>,
    held: HashMap<u64, Arc<OwnedFd>>,
}

impl Contended {
    /// Notes that what a name led to could not be found any more.
    pub(super) fn note(&self, parent: u64, name: Arc<OsStr>) {
        let mut state = self.state.lock();
        if state.contains(parent, &name) {
            return;
        }
        if state.names.len() >= NAMES_MAX {
            state.names.pop_front();
        }
        state.names.push_back((parent, name));
        self.any.store(true, Ordering::Relaxed);
    }

    /// Whether what is looked up under a name is to be held open.
    pub(super) fn contains(&self, parent: u64, name: &OsStr) -> bool {
        self.any.load(Ordering::Relaxed) && self.state.lock().contains(parent, name)
    }

    /// Holds a node open (`O_PATH`).
    pub(super) fn hold(&self, node: u64, fd: OwnedFd) {
        let mut state = self.state.lock();
        let replaced = match state.held.len() < HELD_MAX {
            true => state.held.insert(node, Arc::new(fd)),
            false => None,
        };
        drop(state);
        // Closing can block on a network file system: not under the lock.
        drop(replaced);
    }

    /// The descriptor of a node that is held open.
    pub(super) fn held(&self, node: u64) -> Option<Arc<OwnedFd>> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        self.state.lock().held.get(&node).cloned()
    }

    /// The kernel has forgotten a node.
    pub(super) fn forget(&self, node: u64) {
        if self.any.load(Ordering::Relaxed) {
            let held = self.state.lock().held.remove(&node);
            drop(held);
        }
    }
}

impl State {
    fn contains(&self, parent: u64, name: &OsStr) -> bool {
        let mut names = self.names.iter();
        names.any(|(of, known)| *of == parent && **known == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_goes_with_the_node() {
        let contended = Contended::default();
        let name = |number: u64| Arc::from(OsStr::new(&number.to_string()));
        assert!(!contended.contains(1, OsStr::new("0")));
        for number in 0..1000 {
            contended.note(1, name(number));
            contended.hold(number, std::fs::File::open("/").unwrap().into());
        }
        assert!(contended.contains(1, OsStr::new("999")));
        assert!(!contended.contains(1, OsStr::new("0")));
        assert!(!contended.contains(2, OsStr::new("999")));
        assert_eq!(contended.state.lock().held.len(), HELD_MAX);
        assert!(contended.held(7).is_some());
        contended.forget(7);
        assert!(contended.held(7).is_none());
    }
}
