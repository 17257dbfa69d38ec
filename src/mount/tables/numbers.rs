//! Computes the numbers of nodes for the kernel, and the inode numbers that users see.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::mount::handover::record::{DisplacedRecord, Record};
use crate::mount::handover::recorder::Recorder;
use crate::sys::file_id::FileId;

/// The node of the mount's own root.
pub(in crate::mount) const ROOT: u64 = 1;

/// Numbers devices in the order of their first use, and computes node numbers from them.
///
/// All of a mount has one `st_dev`, so inode numbers of different devices must not collide: `tar`, `rsync -H` and `du`
/// would treat two files as one. The primary's device keeps its own numbers; numbers of other devices contain the
/// device's number in the upper bits.
#[derive(Debug)]
pub(in crate::mount) struct Devices {
    root: FileId,
    known: RwLock<Vec<u32>>,
    recorder: Arc<Recorder>,
}

/// Above the inode numbers of any disk in practice; a larger number is hashed.
const DEVICE_SHIFT: u32 = 48;
/// Marks numbers that are not composed of device and inode.
const SPECIAL: u64 = 1 << 63;

impl Devices {
    pub(in crate::mount) fn new(root: FileId, recorder: Arc<Recorder>) -> Devices {
        Devices {
            root,
            known: RwLock::new(vec![root.device()]),
            recorder,
        }
    }

    /// Numbers further devices, in their order in another process that has served the same root.
    pub(in crate::mount) fn restore(&self, devices: impl IntoIterator<Item = u32>) {
        self.known.write().extend(devices);
    }

    /// Returns the number of the node with an identity.
    pub(in crate::mount) fn node(&self, identity: &FileId) -> u64 {
        if (identity.device(), identity.inode()) == (self.root.device(), self.root.inode()) {
            return ROOT;
        }
        self.number(identity.device(), identity.inode())
    }

    /// Returns the inode number to show; the same as the node's, except for the root.
    pub(in crate::mount) fn inode(&self, identity: &FileId) -> u64 {
        self.number(identity.device(), identity.inode())
    }

    /// Returns the inode number to show for an entry of a directory on the same device as `like`.
    pub(in crate::mount) fn entry(&self, like: &FileId, inode: u64) -> u64 {
        self.number(like.device(), inode)
    }

    fn number(&self, device: u32, inode: u64) -> u64 {
        let index = self.index(device);
        if index == 0 && inode <= ROOT {
            return SPECIAL | inode;
        }
        if inode >> DEVICE_SHIFT == 0 && index < 1 << (63 - DEVICE_SHIFT) {
            return (index << DEVICE_SHIFT) | inode;
        }
        // The final step of splitmix64: no two inodes of one device collide, since each step is reversible.
        let mut mixed = inode ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) | SPECIAL
    }

    fn index(&self, device: u32) -> u64 {
        let position = |known: &[u32]| known.iter().position(|one| *one == device);
        if let Some(index) = position(&self.known.read()) {
            return index as u64;
        }
        let mut known = self.known.write();
        if let Some(index) = position(&known) {
            return index as u64;
        }
        self.recorder.record(&Record::Device(device));
        known.push(device);
        (known.len() - 1) as u64
    }
}

/// How many shards the table of nodes has.
pub(super) const SHARDS: usize = 64;

/// Nodes whose number is not derived from their inode.
///
/// 1. Another node that the kernel still knows has that number: the disk reuses the inode numbers of removed files at
///    once, and the kernel treats a number with another generation as a broken old node (`EIO`).
/// 2. A recovered directory keeps the number, and the generation, of the archived one, for the processes that are in it.
#[derive(Debug, Default)]
pub(super) struct Displaced {
    /// How many there are: usually none.
    count: AtomicUsize,
    /// How many numbers have been assigned so far.
    total: AtomicU64,
    numbers: Mutex<HashMap<FileId, Number>>,
    recorder: Arc<Recorder>,
}

#[derive(Debug, Clone, Copy)]
struct Number {
    number: u64,
    generation: u64,
}

/// Marks the numbers of displaced nodes.
const DISPLACED: u64 = 3 << 62;

impl Displaced {
    pub(super) fn new(recorder: Arc<Recorder>) -> Displaced {
        Displaced {
            recorder,
            ..Displaced::default()
        }
    }

    /// Enters a number that another process has assigned.
    pub(super) fn restore(&self, identity: FileId, number: DisplacedRecord) {
        let DisplacedRecord {
            number,
            generation,
            total,
        } = number;
        self.total.fetch_max(total, Ordering::Relaxed);
        self.insert(identity, Number { number, generation });
    }

    fn find(&self, identity: &FileId) -> Option<Number> {
        match self.count.load(Ordering::Acquire) {
            0 => None,
            _ => self.numbers.lock().get(identity).copied(),
        }
    }

    /// Returns the number of a displaced node.
    pub(super) fn get(&self, identity: &FileId) -> Option<u64> {
        Some(self.find(identity)?.number)
    }

    /// Returns the generation by which the kernel distinguishes the objects that have had the number of a node.
    pub(super) fn generation(&self, identity: &FileId) -> u64 {
        let found = self.find(identity);
        found.map_or(identity.birth(), |number| number.generation)
    }

    /// Assigns a number to a node whose own number, `id`, is in use.
    pub(super) fn add(&self, id: u64, identity: FileId) {
        let total = self.total.fetch_add(1, Ordering::Relaxed);
        let number = DISPLACED | (total * SHARDS as u64) | (id % SHARDS as u64);
        let generation = identity.birth();
        self.insert(identity, Number { number, generation });
    }

    /// Gives the number of one node to another, which the kernel must take for the same.
    pub(super) fn replace(&self, from: &FileId, to: FileId, number: u64) {
        let generation = self.generation(from);
        self.insert(to, Number { number, generation });
        self.forget(from, number);
    }

    fn insert(&self, identity: FileId, number: Number) {
        let mut numbers = self.numbers.lock();
        let record = DisplacedRecord {
            number: number.number,
            generation: number.generation,
            total: self.total.load(Ordering::Relaxed),
        };
        self.recorder
            .record(&Record::Displaced(identity.into(), record));
        numbers.insert(identity, number);
        self.count.store(numbers.len(), Ordering::Release);
    }

    /// Notes that the node with this number is no longer known.
    pub(super) fn forget(&self, identity: &FileId, number: u64) {
        if self.count.load(Ordering::Acquire) > 0 {
            let mut numbers = self.numbers.lock();
            if numbers
                .get(identity)
                .is_some_and(|one| one.number == number)
            {
                self.recorder.record(&Record::Replaced((*identity).into()));
                numbers.remove(identity);
            }
            self.count.store(numbers.len(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(device: u32, inode: u64) -> FileId {
        FileId::new(device, inode, 0)
    }

    #[test]
    fn primary_keeps_inode_numbers_without_collisions() {
        let devices = Devices::new(identity(8, 2), Arc::default());
        assert_eq!(devices.node(&identity(8, 2)), ROOT);
        assert_eq!(devices.inode(&identity(8, 2)), 2);
        assert_eq!(devices.node(&identity(8, 77)), 77);
        let other = devices.node(&identity(9, 77));
        assert_ne!(other, 77);
        assert_ne!(other, devices.node(&identity(10, 77)));
        assert_eq!(other, devices.node(&identity(9, 77)));
    }

    #[test]
    fn root_number_is_reserved() {
        let devices = Devices::new(identity(8, 2), Arc::default());
        for device in [8, 9] {
            for inode in [0, 1] {
                assert_ne!(devices.node(&identity(device, inode)), ROOT);
                assert_ne!(devices.node(&identity(device, inode)), 0);
            }
        }
        assert_ne!(
            devices.node(&identity(9, u64::MAX)),
            devices.node(&identity(9, u64::MAX - 1))
        );
    }
}
