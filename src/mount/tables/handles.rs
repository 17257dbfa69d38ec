//! Keeps open files, by the number that the kernel sends back.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use rustix::io::{Errno, Result};

use crate::mount::handover::record::{OpenedRecord, Record};
use crate::mount::handover::recorder::{KeptFile, Recorder};
use crate::sys::file_id::FileId;

/// An open file.
#[derive(Debug)]
pub(in crate::mount) struct File {
    pub(in crate::mount) fd: OwnedFd,
    /// The file that was opened. The node may stand for another one since.
    pub(in crate::mount) identity: FileId,
    pub(in crate::mount) node: u64,
    pub(in crate::mount) readable: bool,
    /// Whether the file may be written to.
    pub(in crate::mount) writable: bool,
    /// Whether the file must stay empty, since it is internal only as long as it is empty.
    pub(in crate::mount) only_lock: bool,
    pub(in crate::mount) lock: Lock,
    pub(in crate::mount) kept: Kept,
}

/// The number of an open file, and whether the supervisor keeps its descriptor for the next process.
#[derive(Debug, Default)]
pub(in crate::mount) struct Kept {
    number: AtomicU64,
    kept: AtomicBool,
}

/// The state of the lock on an open file.
#[derive(Debug, Default)]
pub(in crate::mount) struct Lock {
    held: AtomicBool,
    /// A descriptor of the file has been closed since; possibly the last one.
    closing: AtomicBool,
    /// The kernel does not report that descriptors of the file are closed: only that all are, a moment after the last one was.
    unreported: AtomicBool,
}

impl Lock {
    /// Sets whether the lock is held; returns whether it was held before.
    fn set_held(&self, held: bool) -> bool {
        self.closing.store(false, Ordering::Release);
        self.held.swap(held, Ordering::AcqRel)
    }

    pub(in crate::mount) fn set_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(in crate::mount) fn set_unreported(&self) {
        self.unreported.store(true, Ordering::Release);
    }

    pub(in crate::mount) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Whether the lock may be about to be released.
    fn may_be_released(&self) -> bool {
        let is_closing = || self.closing.load(Ordering::Acquire);
        self.is_held() && (is_closing() || self.unreported.load(Ordering::Acquire))
    }
}

const SHARDS: usize = 64;

/// All open files.
#[derive(Debug)]
pub(in crate::mount) struct Handles {
    next: AtomicU64,
    files: Vec<RwLock<FxHashMap<u64, Arc<File>>>>,
    /// The open files of a node: an open file stays reachable when its name is gone.
    by_node: Vec<RwLock<FxHashMap<u64, Vec<u64>>>>,
    locked: Locked,
    recorder: Arc<Recorder>,
    /// The numbers of files that an earlier process had open, and that could not be opened again.
    lost: Mutex<HashSet<u64>>,
    /// The files that an earlier process has opened, by the number of the request.
    by_request: Mutex<FxHashMap<u64, u64>>,
}

/// How many open files of each node hold a lock.
#[derive(Debug, Default)]
struct Locked {
    /// How many nodes have a locked file: usually few.
    count: AtomicUsize,
    nodes: Mutex<FxHashMap<u64, usize>>,
}

impl Locked {
    fn contains(&self, node: u64) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.nodes.lock().contains_key(&node)
    }

    fn change(&self, node: u64, held: bool) {
        let mut nodes = self.nodes.lock();
        let files = nodes.entry(node).or_default();
        *files = match held {
            true => *files + 1,
            false => files.saturating_sub(1),
        };
        if *files == 0 {
            nodes.remove(&node);
        }
        self.count.store(nodes.len(), Ordering::Release);
    }
}

impl Default for Handles {
    fn default() -> Handles {
        Handles {
            next: AtomicU64::new(1),
            files: (0..SHARDS).map(|_| RwLock::default()).collect(),
            by_node: (0..SHARDS).map(|_| RwLock::default()).collect(),
            locked: Locked::default(),
            recorder: Arc::default(),
            lost: Mutex::default(),
            by_request: Mutex::default(),
        }
    }
}

fn shard<T>(shards: &[T], key: u64) -> &T {
    &shards[(key % SHARDS as u64) as usize]
}

impl Handles {
    pub(in crate::mount) fn new(recorder: Arc<Recorder>) -> Handles {
        Handles {
            recorder,
            ..Handles::default()
        }
    }

    /// Assigns numbers after this one, which an earlier process has assigned last.
    pub(in crate::mount) fn continue_after(&self, last: u64) {
        self.next.fetch_max(last + 1, Ordering::Relaxed);
    }

    /// Records an open file for the next process. The file must be closed by [`Handles::remove_file`].
    /// `request`: the number of the request that has opened it.
    pub(in crate::mount) fn record(
        &self,
        handle: u64,
        file: &File,
        backing: Option<u32>,
        request: u64,
    ) {
        // Under the lock of the table: the record of the closing comes after this one.
        let files = shard(&self.files, handle).write();
        if files.contains_key(&handle) {
            let opened = OpenedRecord {
                node: file.node,
                identity: file.identity.into(),
                readable: file.readable,
                writable: file.writable,
                only_lock: file.only_lock,
                locked: file.lock.is_held(),
                backing,
                request,
            };
            self.recorder.record(&Record::Opened(handle, opened));
        }
    }

    pub(in crate::mount) fn add_file(&self, file: File) -> (u64, Arc<File>) {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        let file = self.insert(handle, file);
        (handle, file)
    }

    /// Enters an open file that an earlier process has opened. `kept`: its descriptor is that of the earlier process;
    /// `locked`: it holds a lock.
    pub(in crate::mount) fn restore(&self, handle: u64, file: File, kept: bool, locked: bool) {
        file.kept.kept.store(kept, Ordering::Relaxed);
        let file = self.insert(handle, file);
        if locked && !file.lock.set_held(true) {
            self.locked.change(file.node, true);
        }
    }

    /// Notes which request of an earlier process has opened a file.
    pub(in crate::mount) fn restore_request(&self, request: u64, handle: u64) {
        self.by_request.lock().insert(request, handle);
    }

    /// Returns the file that an earlier process has opened for this request, which the kernel has sent again: the kernel has not
    /// received the number of the file, and will not close it.
    pub(in crate::mount) fn take_unanswered(&self, request: u64) -> Option<u64> {
        self.by_request.lock().remove(&request)
    }

    fn insert(&self, handle: u64, file: File) -> Arc<File> {
        let node = file.node;
        file.kept.number.store(handle, Ordering::Relaxed);
        let file = Arc::new(file);
        shard(&self.files, handle)
            .write()
            .insert(handle, file.clone());
        shard(&self.by_node, node)
            .write()
            .entry(node)
            .or_default()
            .push(handle);
        file
    }

    pub(in crate::mount) fn file(&self, handle: u64) -> Result<Arc<File>> {
        let files = shard(&self.files, handle).read();
        if let Some(file) = files.get(&handle) {
            return Ok(file.clone());
        }
        drop(files);
        Err(match self.lost.lock().contains(&handle) {
            true => Errno::IO,
            false => Errno::BADF,
        })
    }

    /// Notes that a file of an earlier process could not be opened again: its calls fail until it is closed.
    pub(in crate::mount) fn lose(&self, handle: u64) {
        self.lost.lock().insert(handle);
    }

    /// Keeps the descriptor of an open file for the next process, which could not open the file again.
    pub(in crate::mount) fn keep(&self, file: &File) {
        if !file.kept.kept.swap(true, Ordering::AcqRel) {
            let number = file.kept.number.load(Ordering::Relaxed);
            self.recorder
                .keep_file(KeptFile::Open(number), file.fd.as_fd());
            if !shard(&self.files, number).read().contains_key(&number) {
                // Closed meanwhile, possibly before it was kept.
                self.recorder.drop_file(KeptFile::Open(number));
            }
        }
    }

    /// Keeps the descriptors of a node's open files for the next process, as [`Handles::keep`] does.
    pub(in crate::mount) fn keep_all(&self, node: u64) {
        let handles = shard(&self.by_node, node).read().get(&node).cloned();
        let files = handles.into_iter().flatten();
        for file in files.filter_map(|one| self.file(one).ok()) {
            self.keep(&file);
        }
    }

    /// Returns an open file of a node, if there is one.
    pub(in crate::mount) fn file_of(&self, node: u64) -> Option<Arc<File>> {
        let by_node = shard(&self.by_node, node).read();
        let mut handles = by_node.get(&node)?.iter().rev();
        // One may be closed at this moment (`remove_file`).
        handles.find_map(|handle| self.file(*handle).ok())
    }

    /// Returns a file of a node that is open for writing, if there is one.
    pub(in crate::mount) fn writable_file_of(&self, node: u64) -> Option<Arc<File>> {
        let handles = shard(&self.by_node, node).read().get(&node).cloned();
        let mut files = handles?.into_iter().filter_map(|one| self.file(one).ok());
        files.find(|file| file.writable)
    }

    /// Returns the files that are open for writing.
    pub(in crate::mount) fn writable(&self) -> Vec<Arc<File>> {
        self.filtered(|file| file.writable)
    }

    /// Returns the files that are open for reading.
    pub(in crate::mount) fn readable(&self) -> Vec<Arc<File>> {
        self.filtered(|file| file.readable)
    }

    fn filtered(&self, wanted: impl Fn(&File) -> bool) -> Vec<Arc<File>> {
        let of_shard = |shard: &RwLock<FxHashMap<u64, Arc<File>>>| {
            let shard = shard.read();
            let files = shard.values().filter(|file| wanted(file));
            files.cloned().collect::<Vec<_>>()
        };
        self.files.iter().flat_map(of_shard).collect()
    }

    /// How many files are open.
    pub(in crate::mount) fn count(&self) -> usize {
        self.files.iter().map(|shard| shard.read().len()).sum()
    }

    /// Notes whether an open file holds a lock.
    pub(in crate::mount) fn set_locked(&self, file: &File, held: bool) {
        if file.lock.set_held(held) != held {
            self.locked.change(file.node, held);
            let number = file.kept.number.load(Ordering::Relaxed);
            self.recorder.record(&Record::Locked(number, held));
        }
        if held {
            // The lock is released when all descriptors of the open file are closed.
            self.keep(file);
        }
    }

    /// Whether an open file of a node holds a lock.
    pub(in crate::mount) fn is_locked(&self, node: u64) -> bool {
        self.locked.contains(node)
    }

    /// Whether a lock on a node may be about to be released by closing the file.
    pub(in crate::mount) fn lock_may_be_released(&self, node: u64) -> bool {
        let handles = shard(&self.by_node, node).read().get(&node).cloned();
        let mut files = handles.into_iter().flatten();
        files.any(|handle| {
            self.file(handle)
                .is_ok_and(|file| file.lock.may_be_released())
        })
    }

    pub(in crate::mount) fn remove_file(&self, handle: u64) -> Option<Arc<File>> {
        let file = {
            let mut files = shard(&self.files, handle).write();
            let file = files.remove(&handle);
            if file.is_some() || self.lost.lock().remove(&handle) {
                self.recorder.record(&Record::Closed(handle));
            }
            file?
        };
        if file.kept.kept.load(Ordering::Acquire) {
            self.recorder.drop_file(KeptFile::Open(handle));
        }
        self.set_locked(&file, false);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_file_is_found_while_another_of_the_node_is_closed() {
        let handles = Handles::default();
        let open = || {
            handles.add_file(File {
                fd: std::fs::File::open("/").unwrap().into(),
                identity: FileId::UNKNOWN,
                node: 7,
                readable: true,
                writable: false,
                only_lock: false,
                lock: Lock::default(),
                kept: Kept::default(),
            })
        };
        let ((_, kept), (closed, _)) = (open(), open());
        // The first step of `remove_file`.
        shard(&handles.files, closed).write().remove(&closed);
        let found = handles.file_of(7).unwrap();
        assert!(Arc::ptr_eq(&found, &kept));
    }
}
