//! Chooses passthrough, or the kernel's cache and the daemon, for each open file.
//!
//! The kernel accepts one backing file for a node, and no mixture of both ways at a time. So the way is chosen when a
//! node is first opened, and stays until all of its files are closed.
//!
//! A program that maps the disk's file by passthrough changes it without a request, and FUSE does not report that the
//! file is mapped. So the kernel must not cache the attributes for long of a file that may be mapped and written: it
//! must be open for reading and writing, and may stay mapped when it is closed.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::mount::tables::ttl::SHORT_TTL;
use crate::sys::file_id::FileId;
use crate::sys::fuse;

const SHARDS: usize = 64;

/// How each open node is opened.
#[derive(Debug, Default)]
pub(in crate::mount) struct Passthrough {
    possible: AtomicBool,
    shards: Shards,
    /// The connection to the kernel.
    device: OnceLock<Arc<OwnedFd>>,
}

/// A file that is registered with the kernel, until this is dropped.
#[derive(Debug)]
pub(in crate::mount) struct Backing {
    pub(in crate::mount) id: u32,
    device: Arc<OwnedFd>,
}

impl Drop for Backing {
    fn drop(&mut self) {
        // If the connection has ended, the kernel has closed it.
        if let Err(error) = fuse::close_backing(&self.device, self.id) {
            tracing::debug!(%error, "cannot close a backing file");
        }
    }
}

/// Whether a program may have mapped the disk's file of a node and write to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mapped {
    Never,
    /// The file is closed; it may have been mapped before.
    Perhaps,
    /// The file is open for reading and writing.
    Likely,
}

#[derive(Debug)]
struct Shards(Vec<Mutex<Shard>>);

#[derive(Debug, Default)]
struct Shard {
    open: FxHashMap<u64, Open>,
    /// Nodes that are closed, that the kernel still knows, and that may have been mapped.
    once_mapped: HashSet<u64>,
}

impl Default for Shards {
    fn default() -> Shards {
        Shards((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

#[derive(Debug)]
struct Open {
    /// `None`: through the kernel's cache.
    backing: Option<Arc<Backing>>,
    handles: usize,
    /// The file that was opened.
    file: FileId,
    /// Whether the node was opened for reading and writing.
    read_write: bool,
}

/// The way that was chosen for an open file.
#[derive(Debug)]
pub(in crate::mount) struct Choice {
    /// The backing file, if the node has one.
    pub(in crate::mount) backing: Option<Arc<Backing>>,
    /// Whether the file may be mapped and written from now on, but could not be before.
    pub(in crate::mount) becomes_mapped: bool,
}

impl Passthrough {
    /// Notes that the kernel has agreed to passthrough.
    pub(in crate::mount) fn enable(&self) {
        self.possible.store(true, Ordering::Relaxed);
    }

    /// Sets the connection by which files are registered. Only the first call counts: a mount is served once.
    pub(in crate::mount) fn connect(&self, device: Arc<OwnedFd>) {
        let _ = self.device.set(device);
    }

    /// Registers a file with the kernel.
    pub(in crate::mount) fn register(&self, file: impl AsFd) -> io::Result<Backing> {
        let device = self.device.get().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Backing {
            id: fuser::BackingId::create_raw(device, file)?,
            device: device.clone(),
        })
    }

    /// Notes that a file of a node is open that an earlier process has opened, with the kernel's number of the backing file.
    pub(in crate::mount) fn restore(
        &self,
        node: u64,
        file: FileId,
        read_write: bool,
        backing: Option<u32>,
    ) {
        let mut shard = self.shard(node).lock();
        let open = shard.open.entry(node).or_insert_with(|| Open {
            backing: backing.zip(self.device.get()).map(|(id, device)| {
                let device = device.clone();
                Arc::new(Backing { id, device })
            }),
            handles: 0,
            file,
            read_write: false,
        });
        open.handles += 1;
        open.read_write |= read_write;
    }

    /// Notes that a node is opened once more with these flags of `open`, and returns how. If it is not open yet and
    /// `wanted` is set, `register` registers the file with the kernel.
    ///
    /// Returns `None` if the node is open, but stood for another file then: the kernel would read or write that one.
    pub(in crate::mount) fn open(
        &self,
        node: u64,
        file: FileId,
        flags: i32,
        wanted: bool,
        register: impl FnOnce() -> io::Result<Backing>,
    ) -> Option<Choice> {
        let read_write = flags & libc::O_ACCMODE == libc::O_RDWR;
        let mut shard = self.shard(node).lock();
        if let Some(open) = shard.open.get_mut(&node) {
            if open.file != file {
                return None;
            }
            open.handles += 1;
            let was = open.read_write;
            open.read_write |= read_write;
            return Some(Choice {
                backing: open.backing.clone(),
                becomes_mapped: open.backing.is_some() && open.read_write && !was,
            });
        }
        // Under the lock, since another thread must not decide otherwise: `register` calls the kernel, not a disk.
        let backing = match wanted && self.possible.load(Ordering::Relaxed) {
            true => self.registered(register()),
            false => None,
        };
        let open = Open {
            backing: backing.clone(),
            handles: 1,
            file,
            read_write,
        };
        shard.open.insert(node, open);
        Some(Choice {
            becomes_mapped: backing.is_some() && read_write,
            backing,
        })
    }

    /// Whether a program may have mapped the disk's file of a node and write to it.
    fn mapped(&self, node: u64) -> Mapped {
        let shard = self.shard(node).lock();
        match shard.open.get(&node) {
            Some(open) if open.backing.is_some() && open.read_write => Mapped::Likely,
            _ if shard.once_mapped.contains(&node) => Mapped::Perhaps,
            _ => Mapped::Never,
        }
    }

    /// The upper bound for caching attributes of a node that programs may have mapped and may write to.
    pub(in crate::mount) fn ttl_max(&self, node: u64) -> Duration {
        match self.mapped(node) {
            Mapped::Never => Duration::MAX,
            Mapped::Perhaps => SHORT_TTL,
            Mapped::Likely => Duration::ZERO,
        }
    }

    /// Notes that the kernel has forgotten a node, which does not happen while the node is mapped.
    pub(in crate::mount) fn forget(&self, node: u64) {
        self.shard(node).lock().once_mapped.remove(&node);
    }

    fn registered(&self, registered: io::Result<Backing>) -> Option<Arc<Backing>> {
        match registered {
            Ok(backing) => Some(Arc::new(backing)),
            Err(error) => {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    // Registering needs CAP_SYS_ADMIN, which the daemon will not get.
                    self.possible.store(false, Ordering::Relaxed);
                }
                tracing::debug!(%error, "no passthrough: a file is read and written through the cache");
                None
            }
        }
    }

    /// Whether the kernel reads and writes an open node by itself.
    pub(in crate::mount) fn is_direct(&self, node: u64) -> bool {
        let shard = self.shard(node).lock();
        shard
            .open
            .get(&node)
            .is_some_and(|open| open.backing.is_some())
    }

    /// Notes that a node is closed once.
    pub(in crate::mount) fn close(&self, node: u64) {
        let mut shard = self.shard(node).lock();
        let Some(open) = shard.open.get_mut(&node) else {
            return;
        };
        open.handles -= 1;
        if open.handles == 0 {
            if open.backing.is_some() && open.read_write {
                shard.once_mapped.insert(node);
            }
            shard.open.remove(&node);
        }
    }

    fn shard(&self, node: u64) -> &Mutex<Shard> {
        &self.shards.0[(node % SHARDS as u64) as usize]
    }
}
