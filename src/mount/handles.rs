//! Open files, by the number that the kernel gives back.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use rustix::io::{Errno, Result};

/// An open file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) fd: OwnedFd,
    pub(super) node: u64,
    /// Whether it may be written to.
    pub(super) writable: bool,
    /// Whether it must stay empty, being an internal file only as long as it is.
    pub(super) only_lock: bool,
}

const SHARDS: usize = 64;

/// All open files.
#[derive(Debug)]
pub(super) struct Handles {
    next: AtomicU64,
    files: Vec<RwLock<HashMap<u64, Arc<File>>>>,
    /// The open files of a node: what is open stays reachable when its name is gone.
    by_node: Vec<RwLock<HashMap<u64, Vec<u64>>>>,
}

impl Default for Handles {
    fn default() -> Handles {
        Handles {
            next: AtomicU64::new(1),
            files: (0..SHARDS).map(|_| RwLock::default()).collect(),
            by_node: (0..SHARDS).map(|_| RwLock::default()).collect(),
        }
    }
}

fn shard<T>(shards: &[T], key: u64) -> &T {
    &shards[(key % SHARDS as u64) as usize]
}

impl Handles {
    pub(super) fn add_file(&self, file: File) -> (u64, Arc<File>) {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        let node = file.node;
        let file = Arc::new(file);
        shard(&self.files, handle)
            .write()
            .insert(handle, file.clone());
        shard(&self.by_node, node)
            .write()
            .entry(node)
            .or_default()
            .push(handle);
        (handle, file)
    }

    pub(super) fn file(&self, handle: u64) -> Result<Arc<File>> {
        let files = shard(&self.files, handle).read();
        files.get(&handle).cloned().ok_or(Errno::BADF)
    }

    /// An open file of a node, if there is one.
    pub(super) fn file_of(&self, node: u64) -> Option<Arc<File>> {
        let handle = *shard(&self.by_node, node).read().get(&node)?.last()?;
        self.file(handle).ok()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.files.iter().map(|shard| shard.read().len()).sum()
    }

    pub(super) fn remove_file(&self, handle: u64) -> Option<Arc<File>> {
        let file = shard(&self.files, handle).write().remove(&handle)?;
        let mut by_node = shard(&self.by_node, file.node).write();
        if let Some(handles) = by_node.get_mut(&file.node) {
            handles.retain(|one| *one != handle);
            if handles.is_empty() {
                by_node.remove(&file.node);
            }
        }
        drop(by_node);
        Some(file)
    }
}
