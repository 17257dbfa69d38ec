//! Looks at open files regularly, so that programs that have them mapped see what others change.
//!
//! The kernel asks nothing of us for a mapped page that it has, and does not report that a file is mapped. Each location
//! is looked at by a thread of its own, since a disk that does not answer must not delay the others.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::backing::Backings;
use super::handles::{File, Handles};
use super::nodes::{Nodes, Version};
use super::notices::Notices;
use crate::sys::at;

/// How long a mapped file may show what it contained before.
const INTERVAL: Duration = Duration::from_secs(1);

/// What is needed to look at the open files of a mount.
#[derive(Debug)]
pub(super) struct Watch {
    /// It ends with the mount.
    pub(super) handles: Weak<Handles>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) backings: Arc<Backings>,
    pub(super) notices: Arc<Notices>,
}

impl Watch {
    /// Starts the thread that has each location looked at.
    pub(super) fn start(self) -> std::io::Result<()> {
        std::thread::Builder::new()
            .name("xpmfs-watch".to_owned())
            .spawn(move || self.run())?;
        Ok(())
    }

    fn run(self) {
        let mut busy: HashMap<u8, Arc<AtomicBool>> = HashMap::new();
        loop {
            std::thread::sleep(INTERVAL);
            let Some(files) = self.handles.upgrade().map(|handles| self.cached(&handles)) else {
                return;
            };
            for (place, files) in files {
                let busy = busy.entry(place).or_default();
                if !busy.swap(true, Ordering::AcqRel) {
                    self.look_at(files, busy.clone());
                }
            }
        }
    }

    /// The files by location that the kernel may have pages of, each node once.
    fn cached(&self, handles: &Handles) -> HashMap<u8, Vec<Arc<File>>> {
        let mut nodes = HashSet::new();
        let mut files: HashMap<u8, Vec<Arc<File>>> = HashMap::new();
        for file in handles.readable() {
            if nodes.insert(file.node)
                && !self.backings.is_direct(file.node)
                && let Some(way) = self.nodes.way(file.node)
            {
                files.entry(way.place).or_default().push(file);
            }
        }
        files
    }

    fn look_at(&self, files: Vec<Arc<File>>, busy: Arc<AtomicBool>) {
        let (nodes, notices) = (self.nodes.clone(), self.notices.clone());
        let done = busy.clone();
        let spawned = std::thread::Builder::new()
            .name("xpmfs-watch-one".to_owned())
            .spawn(move || {
                for file in files {
                    refresh(&file, &nodes, &notices);
                }
                busy.store(false, Ordering::Release);
            });
        if let Err(error) = spawned {
            tracing::debug!(%error, "open files are looked at later");
            done.store(false, Ordering::Release);
        }
    }
}

/// Makes the kernel forget what it has of a file that has changed.
fn refresh(file: &File, nodes: &Nodes, notices: &Notices) {
    // What the kernel has is looked up first: it may get something newer meanwhile.
    let Some(known) = nodes.version(file.node) else {
        return;
    };
    let Ok(stat) = at::stat_fd(&file.fd) else {
        return;
    };
    let version = Version::of(&stat);
    if version != known {
        notices.forget_pages_now(file.node);
        nodes.forgotten(file.node, known, version);
    }
}
