//! Checks open files regularly, so that programs that have mapped them see changes by other processes.
//!
//! The kernel sends no request for a mapped page in its cache, and does not report that a file is mapped. Each
//! location is checked by a thread of its own, since a disk that does not answer must not delay the others. A file that is written
//! through this mount is checked when that has paused for one interval ([`OwnWrites`]).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::mount::tables::handles::{File, Handles};
use crate::mount::tables::invalidate::Invalidator;
use crate::mount::tables::nodes::{Nodes, Version};
use crate::mount::tables::own_writes::{OwnWrites, Snapshot};
use crate::mount::tables::passthrough::Passthrough;
use crate::sys::at;

/// How long a mapped file may show its previous contents.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The parts of a mount that are needed to check its open files.
#[derive(Debug)]
pub(super) struct Watch {
    /// Dropped when the mount ends.
    pub(super) handles: Weak<Handles>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) passthrough: Arc<Passthrough>,
    pub(super) invalidate: Arc<Invalidator>,
    pub(super) own_writes: Arc<OwnWrites>,
}

impl Watch {
    /// Starts the thread that starts a check of each location at intervals.
    pub(super) fn start(self) -> std::io::Result<()> {
        std::thread::Builder::new()
            .name("xpmfs-watch".to_owned())
            .spawn(move || self.run())?;
        Ok(())
    }

    fn run(self) {
        let mut busy: HashMap<u8, Arc<AtomicBool>> = HashMap::new();
        let mut last = self.own_writes.snapshot();
        loop {
            std::thread::sleep(POLL_INTERVAL);
            let Some(files) = self.handles.upgrade().map(|handles| self.cached(&handles)) else {
                return;
            };
            let now = self.own_writes.snapshot();
            let files = self.not_written_since(&last, files);
            last = now;
            for (location, files) in files {
                let busy = busy.entry(location).or_default();
                if !busy.swap(true, Ordering::AcqRel) {
                    self.check(files, busy.clone());
                }
            }
        }
    }

    /// Returns the files, by location, of which the kernel may have cached pages, each node once.
    fn cached(&self, handles: &Handles) -> HashMap<u8, Vec<Arc<File>>> {
        let mut nodes = HashSet::new();
        let mut files: HashMap<u8, Vec<Arc<File>>> = HashMap::new();
        for file in handles.readable() {
            if nodes.insert(file.node)
                && !self.passthrough.is_direct(file.node)
                && let Some(link) = self.nodes.link(file.node)
            {
                files.entry(link.location).or_default().push(file);
            }
        }
        files
    }

    /// Returns those files that were not written since a snapshot, each with the number of writes.
    fn not_written_since(
        &self,
        last: &Snapshot,
        files: HashMap<u8, Vec<Arc<File>>>,
    ) -> HashMap<u8, Vec<Quiet>> {
        let quiet = |file: Arc<File>| {
            let writes = self.own_writes.count(file.node)?;
            let unchanged = last.is_unchanged(file.node, writes);
            unchanged.then_some(Quiet { file, writes })
        };
        let files = files.into_iter();
        files
            .map(|(location, files)| (location, files.into_iter().filter_map(quiet).collect()))
            .collect()
    }

    fn check(&self, files: Vec<Quiet>, busy: Arc<AtomicBool>) {
        let (nodes, invalidate) = (self.nodes.clone(), self.invalidate.clone());
        let own_writes = self.own_writes.clone();
        let done = busy.clone();
        let spawned = std::thread::Builder::new()
            .name("xpmfs-watch-one".to_owned())
            .spawn(move || {
                for quiet in files {
                    refresh(&quiet, &nodes, &invalidate, &own_writes);
                }
                busy.store(false, Ordering::Release);
            });
        if let Err(error) = spawned {
            tracing::debug!(%error, "open files are checked later: starting a thread failed");
            done.store(false, Ordering::Release);
        }
    }
}

/// A file that is not being written through this mount.
struct Quiet {
    file: Arc<File>,
    /// The number of writes so far.
    writes: u64,
}

/// Makes the kernel drop its cached pages of a file that has changed, unless it is being written again.
fn refresh(quiet: &Quiet, nodes: &Nodes, invalidate: &Invalidator, own_writes: &OwnWrites) {
    let file = &quiet.file;
    // The version that the kernel has is read first: the kernel may receive a newer one meanwhile.
    let Some(known) = nodes.version(file.node) else {
        return;
    };
    let Ok(stat) = at::stat_fd(&file.fd) else {
        return;
    };
    let version = Version::of(&stat);
    if version != known && own_writes.count(file.node) == Some(quiet.writes) {
        invalidate.pages_now(file.node);
        nodes.cache_dropped(file.node, known, version);
    }
}
