//! Whether the kernel reads and writes an open file by itself, on the disk's file (passthrough), or
//! through its own cache and us.
//!
//! The kernel takes one backing file for a node, and no mixture of both ways at a time. So it is
//! decided for a node when it is opened first, and holds until it is closed everywhere.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::BackingId;
use parking_lot::Mutex;

const SHARDS: usize = 64;

/// How the nodes are opened that are open.
#[derive(Debug, Default)]
pub(super) struct Backings {
    possible: AtomicBool,
    shards: Shards,
}

#[derive(Debug)]
struct Shards(Vec<Mutex<HashMap<u64, Open>>>);

impl Default for Shards {
    fn default() -> Shards {
        Shards((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

#[derive(Debug)]
struct Open {
    /// `None`: through the kernel's cache.
    backing: Option<Arc<BackingId>>,
    handles: usize,
}

impl Backings {
    /// The kernel has agreed to read and write by itself.
    pub(super) fn enable(&self) {
        self.possible.store(true, Ordering::Relaxed);
    }

    /// Notes that a node is opened once more, and tells on which backing file, if on one. If it is
    /// not open yet and `wanted`, `register` makes the file known to the kernel.
    pub(super) fn open(
        &self,
        node: u64,
        wanted: bool,
        register: impl FnOnce() -> io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        let mut shard = self.shard(node).lock();
        if let Some(open) = shard.get_mut(&node) {
            open.handles += 1;
            return open.backing.clone();
        }
        // Under the lock, since another must not decide otherwise: it asks the kernel, not a disk.
        let backing = match wanted && self.possible.load(Ordering::Relaxed) {
            true => self.registered(register()),
            false => None,
        };
        let open = Open {
            backing: backing.clone(),
            handles: 1,
        };
        shard.insert(node, open);
        backing
    }

    fn registered(&self, registered: io::Result<BackingId>) -> Option<Arc<BackingId>> {
        match registered {
            Ok(backing) => Some(Arc::new(backing)),
            Err(error) => {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    // It takes CAP_SYS_ADMIN, which we will not get.
                    self.possible.store(false, Ordering::Relaxed);
                }
                tracing::debug!(%error, "a file is read and written through the cache");
                None
            }
        }
    }

    /// Whether the kernel reads and writes an open node by itself.
    pub(super) fn is_direct(&self, node: u64) -> bool {
        let shard = self.shard(node).lock();
        shard.get(&node).is_some_and(|open| open.backing.is_some())
    }

    /// Notes that a node is closed once.
    pub(super) fn close(&self, node: u64) {
        let mut shard = self.shard(node).lock();
        if let Some(open) = shard.get_mut(&node) {
            open.handles -= 1;
            if open.handles == 0 {
                shard.remove(&node);
            }
        }
    }

    fn shard(&self, node: u64) -> &Mutex<HashMap<u64, Open>> {
        &self.shards.0[(node % SHARDS as u64) as usize]
    }
}
