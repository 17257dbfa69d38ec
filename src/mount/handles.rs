//! Open files, by the number that the kernel gives back.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    pub(super) lock: Lock,
}

/// What is known of the lock that is taken on an open file.
#[derive(Debug, Default)]
pub(super) struct Lock {
    held: AtomicBool,
    /// A descriptor of the file has been closed since; perhaps it was the last one.
    closing: AtomicBool,
}

impl Lock {
    pub(super) fn set_held(&self, held: bool) {
        self.held.store(held, Ordering::Release);
        self.closing.store(false, Ordering::Release);
    }

    pub(super) fn set_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Whether the lock may be about to be given up.
    fn may_go(&self) -> bool {
        self.is_held() && self.closing.load(Ordering::Acquire)
    }
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

    /// The files that are open for writing.
    pub(super) fn writable(&self) -> Vec<Arc<File>> {
        let of_shard = |shard: &RwLock<HashMap<u64, Arc<File>>>| {
            let shard = shard.read();
            let writable = shard.values().filter(|file| file.writable);
            writable.cloned().collect::<Vec<_>>()
        };
        self.files.iter().flat_map(of_shard).collect()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.files.iter().map(|shard| shard.read().len()).sum()
    }

    /// Whether a lock on a node may be about to be given up by closing the file.
    pub(super) fn lock_may_go(&self, node: u64) -> bool {
        let handles = shard(&self.by_node, node).read().get(&node).cloned();
        let mut files = handles.into_iter().flatten();
        files.any(|handle| self.file(handle).is_ok_and(|file| file.lock.may_go()))
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
