//! Caches a bounded number of directory descriptors, by node.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::mount::handover::recorder::{KeptFile, Recorder};
use crate::sys::file_id::FileId;

const SHARDS: usize = 16;
/// Limit of descriptors in a shard; 1,024 in all, unless that is a large part of the process's limit of open files.
const SHARD_MAX: usize = 64;

/// The part of the process's limit of descriptors that is for directories: a quarter.
const PART: u64 = 4;

/// Limit of kept descriptors of renamed directories.
const PINNED_MAX: usize = 64;

fn shard_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let fair = limit.map_or(u64::MAX, |limit| limit / PART / SHARDS as u64);
    usize::try_from(fair)
        .unwrap_or(SHARD_MAX)
        .clamp(4, SHARD_MAX)
}

/// Descriptors of recently used directories (`O_PATH`, checked to be their node's).
#[derive(Debug)]
pub(in crate::mount) struct DirCache {
    shard_max: usize,
    shards: [Mutex<Shard>; SHARDS],
    removed: Mutex<FxHashMap<u64, Removed>>,
    recorder: Arc<Recorder>,
    /// Directories that were renamed to a place without a node, the latest last.
    pinned: Mutex<VecDeque<(u64, Arc<OwnedFd>)>>,
}

/// A descriptor of what has lost its name.
#[derive(Debug)]
struct Removed {
    fd: Arc<OwnedFd>,
    /// Whether it is the directory of a job that an archiver has moved or released, and that is somewhere else.
    is_moved_job: bool,
}

#[derive(Debug, Default)]
struct Shard {
    clock: u64,
    entries: FxHashMap<u64, Cached>,
}

#[derive(Debug)]
struct Cached {
    fd: Arc<OwnedFd>,
    /// The directory, which must be that of the node: a node can come to stand for another directory.
    identity: FileId,
    used: u64,
}

impl Default for DirCache {
    fn default() -> DirCache {
        DirCache {
            shard_max: shard_max(),
            shards: Default::default(),
            removed: Mutex::default(),
            recorder: Arc::default(),
            pinned: Mutex::default(),
        }
    }
}

impl DirCache {
    pub(in crate::mount) fn new(recorder: Arc<Recorder>) -> DirCache {
        DirCache {
            recorder,
            ..DirCache::default()
        }
    }

    fn shard(&self, id: u64) -> &Mutex<Shard> {
        &self.shards[(id % SHARDS as u64) as usize]
    }

    /// Returns a descriptor of a node that stands for this directory.
    pub(in crate::mount) fn get(&self, id: u64, identity: &FileId) -> Option<Arc<OwnedFd>> {
        let mut shard = self.shard(id).lock();
        shard.clock += 1;
        let now = shard.clock;
        if let Some(cached) = shard.entries.get_mut(&id)
            && cached.identity == *identity
        {
            cached.used = now;
            return Some(cached.fd.clone());
        }
        drop(shard);
        let pinned = self.pinned.lock();
        let found = pinned.iter().find(|(known, _)| *known == id);
        found.map(|(_, fd)| fd.clone())
    }

    /// Keeps the descriptor of a directory that cannot be opened by a name, until the kernel forgets the directory or
    /// many others are kept.
    pub(in crate::mount) fn pin(&self, id: u64, fd: Arc<OwnedFd>) {
        let mut pinned = self.pinned.lock();
        let before = pinned.iter().position(|(known, _)| *known == id);
        let again = before.and_then(|at| pinned.remove(at));
        let evicted = match pinned.len() >= PINNED_MAX {
            true => pinned.pop_front(),
            false => None,
        };
        pinned.push_back((id, fd));
        drop(pinned);
        drop((again, evicted));
    }

    pub(in crate::mount) fn insert(&self, id: u64, fd: Arc<OwnedFd>, identity: FileId) {
        let mut evicted = None;
        let mut shard = self.shard(id).lock();
        if shard.entries.len() >= self.shard_max {
            let oldest = shard.entries.iter().min_by_key(|(_, cached)| cached.used);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                evicted = shard.entries.remove(&oldest);
            }
        }
        shard.clock += 1;
        let used = shard.clock;
        let cached = Cached { fd, identity, used };
        let before = shard.entries.insert(id, cached);
        drop(shard);
        // Closing can block on a network file system: not under the lock.
        drop((evicted, before));
    }

    /// Closes the cached descriptor of a directory; it is opened again when it is needed.
    pub(in crate::mount) fn close(&self, id: u64) {
        let kept = self.shard(id).lock().entries.remove(&id);
        drop(kept);
    }

    /// Returns the directories with a kept descriptor.
    pub(in crate::mount) fn kept(&self) -> Vec<u64> {
        let ids = |shard: &Mutex<Shard>| shard.lock().entries.keys().copied().collect::<Vec<_>>();
        self.shards.iter().flat_map(ids).collect()
    }

    /// Removes and returns all descriptors kept for a node: closing them can block.
    pub(in crate::mount) fn forget(&self, id: u64) -> impl Sized + use<> {
        let kept = self.shard(id).lock().entries.remove(&id);
        let removed = match self.removed.lock() {
            removed if removed.is_empty() => None,
            mut removed => removed.remove(&id),
        };
        if removed.is_some() {
            self.recorder.drop_file(KeptFile::Removed(id));
        }
        let pinned = {
            let mut pinned = self.pinned.lock();
            let at = pinned.iter().position(|(known, _)| *known == id);
            at.and_then(|at| pinned.remove(at))
        };
        (kept, removed, pinned)
    }

    /// Keeps the descriptor of a removed directory or pipe, or of a file under a contended name, until the kernel forgets
    /// it, since a process may still be in it or is about to open it.
    pub(in crate::mount) fn keep_removed(&self, id: u64, fd: Arc<OwnedFd>) {
        self.keep(id, fd, false);
    }

    /// Keeps the descriptor of a job's directory that an archiver has moved or released, as [`DirCache::keep_removed`].
    pub(in crate::mount) fn keep_moved_job(&self, id: u64, fd: Arc<OwnedFd>) {
        self.keep(id, fd, true);
    }

    /// Notes that the directory of a job is in its place again, after [`DirCache::keep_moved_job`].
    pub(in crate::mount) fn put_back(&self, id: u64) {
        let mut removed = self.removed.lock();
        let kept = match removed.get(&id) {
            Some(kept) if kept.is_moved_job => removed.remove(&id),
            _ => None,
        };
        drop(removed);
        if kept.is_some() {
            self.recorder.drop_file(KeptFile::Removed(id));
        }
    }

    fn keep(&self, id: u64, fd: Arc<OwnedFd>, is_moved_job: bool) {
        self.recorder.keep_file(KeptFile::Removed(id), fd.as_fd());
        self.removed.lock().insert(id, Removed { fd, is_moved_job });
    }

    /// Enters a descriptor that an earlier process has kept.
    pub(in crate::mount) fn restore_removed(&self, id: u64, fd: Arc<OwnedFd>) {
        let is_moved_job = false;
        self.removed.lock().insert(id, Removed { fd, is_moved_job });
    }

    /// Returns the descriptor kept by [`DirCache::keep_removed`] or [`DirCache::keep_moved_job`].
    pub(in crate::mount) fn removed(&self, id: u64) -> Option<Arc<OwnedFd>> {
        let removed = self.removed.lock();
        removed.get(&id).map(|removed| removed.fd.clone())
    }

    /// Whether a node is the directory of a job that an archiver has moved or released.
    pub(in crate::mount) fn is_moved_job(&self, id: u64) -> bool {
        let removed = self.removed.lock();
        removed.get(&id).is_some_and(|removed| removed.is_moved_job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_is_bounded_and_evicts_least_recently_used() {
        let cache = DirCache::default();
        let fd = || Arc::new(OwnedFd::from(std::fs::File::open("/").unwrap()));
        let directory = FileId::new(1, 1, 0);
        cache.insert(0, fd(), directory);
        for id in 1..10_000_u64 {
            cache.insert(id * SHARDS as u64, fd(), directory);
            let kept = cache.get(0, &directory);
            assert!(kept.is_some(), "used each time, evicted at {id}");
        }
        assert!(cache.get(0, &FileId::new(1, 2, 0)).is_none());
        let kept: usize = cache.shards.iter().map(|s| s.lock().entries.len()).sum();
        assert!(kept <= SHARD_MAX, "{kept} descriptors in one shard");
    }
}
