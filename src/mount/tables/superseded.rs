//! Remembers which file of a recovered job has taken the place of a file that the kernel still knows.
//!
//! A file of an archived job may be open, or mapped, when the job is recovered: its node stays with what was opened, and
//! the recovered file gets a node of its own. Calls on open descriptors that change the file must change the recovered one, until the
//! archived file serves its job again: a job that was recovered and not changed is moved or released with the copy that the folder has.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::mount::handover::record::Record;
use crate::mount::handover::recorder::Recorder;
use crate::sys::name::Name;

/// The nodes of files of archived jobs, and of the files that were recovered from them.
#[derive(Debug, Default)]
pub(in crate::mount) struct Superseded {
    /// How many there are: usually none.
    count: AtomicUsize,
    /// Bounded by the nodes that the kernel knows.
    nodes: Mutex<HashMap<u64, Recovered>>,
    recorder: Arc<Recorder>,
}

#[derive(Debug)]
struct Recovered {
    node: u64,
    /// The directory and the name that lead the kernel to the old node, until it looks the name up.
    name: Option<(u64, Name)>,
}

impl Superseded {
    pub(in crate::mount) fn new(recorder: Arc<Recorder>) -> Superseded {
        Superseded {
            recorder,
            ..Superseded::default()
        }
    }

    /// Enters a node that has taken the place of another in an earlier process. The kernel has been asked to look all
    /// names up anew.
    pub(in crate::mount) fn restore(&self, node: u64, recovered: u64) {
        let mut nodes = self.nodes.lock();
        let recovered = Recovered {
            node: recovered,
            name: None,
        };
        nodes.insert(node, recovered);
        self.count.store(nodes.len(), Ordering::Release);
    }

    /// Notes that the file `recovered` has taken the place of a node that the kernel knows by a name. Returns the node
    /// that did so before.
    pub(in crate::mount) fn add(
        &self,
        node: u64,
        recovered: u64,
        name: (u64, Name),
    ) -> Option<u64> {
        let name = Some(name);
        let mut nodes = self.nodes.lock();
        self.recorder.record(&Record::Superseded(node, recovered));
        let recovered = Recovered {
            node: recovered,
            name,
        };
        let before = nodes.insert(node, recovered);
        self.count.store(nodes.len(), Ordering::Release);
        before.map(|before| before.node)
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Returns the node that has taken the place of another.
    pub(in crate::mount) fn successor(&self, node: u64) -> Option<u64> {
        match self.is_empty() {
            true => None,
            false => self.nodes.lock().get(&node).map(|recovered| recovered.node),
        }
    }

    /// Whether a node has taken the place of another. It is then kept for the other one, also if the kernel does not know it.
    pub(in crate::mount) fn is_successor(&self, node: u64) -> bool {
        !self.is_empty() && self.nodes.lock().values().any(|it| it.node == node)
    }

    /// Notes that the kernel looks a name up, and replaces the node that it led to.
    pub(in crate::mount) fn looked_up(&self, parent: u64, name: &OsStr) {
        if self.is_empty() {
            return;
        }
        for recovered in self.nodes.lock().values_mut() {
            if recovered.is_named(parent, name) {
                recovered.name = None;
            }
        }
    }

    /// Whether a name may still lead the kernel to an old node. Takes time proportional to the number of old nodes.
    pub(in crate::mount) fn is_cached(&self, parent: u64, name: &OsStr) -> bool {
        !self.is_empty()
            && self
                .nodes
                .lock()
                .values()
                .any(|recovered| recovered.is_named(parent, name))
    }

    /// Notes that a node stands for its own file again, or that the kernel has forgotten it, and returns the one that had taken its place.
    /// The number of a forgotten node may soon be that of another file.
    pub(in crate::mount) fn end(&self, node: u64) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        let mut nodes = self.nodes.lock();
        let recovered = nodes.remove(&node)?;
        self.recorder.record(&Record::Current(node));
        self.count.store(nodes.len(), Ordering::Release);
        Some(recovered.node)
    }
}

impl Recovered {
    fn is_named(&self, parent: u64, name: &OsStr) -> bool {
        let known = self.name.as_ref();
        known.is_some_and(|(known, its)| *known == parent && **its == *name)
    }
}
