//! Knows which directories' listings the kernel may have cached, so that it drops them before a name in the directory changes.
//!
//! The kernel caches what one process lists, and lets others go on in it. It compares the directory's version only where a listing begins
//! (`fuse_readdir_cached`): a process that begins after a name was made would miss the name, if another one that had begun before reached
//! the end meanwhile. While a name changes, the kernel holds the directory locked, and no process lists it: so the cache is dropped then.

use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::atomic::{AtomicU64, Ordering};

use rustc_hash::FxHasher;

/// The number of slots, which directories share. A directory that another one has put out of its slot counts as listed.
const SLOTS: usize = 4096;

/// The directories of which the kernel has no listing, one in each slot: it has dropped the listing, and begun no other.
#[derive(Debug)]
pub(in crate::mount) struct CachedListings(Box<[AtomicU64]>);

/// No directory has this number.
const NONE: u64 = 0;

impl Default for CachedListings {
    /// An earlier process that served the mount may have listed every directory.
    fn default() -> CachedListings {
        CachedListings((0..SLOTS).map(|_| AtomicU64::new(NONE)).collect())
    }
}

impl CachedListings {
    /// Notes that the kernel begins to list a directory.
    pub(in crate::mount) fn begin(&self, node: u64) {
        if let Some(slot) = self.slot(node) {
            let _ = slot.compare_exchange(node, NONE, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Returns whether the kernel may have cached the listing of a directory, for a caller that makes it drop it.
    pub(in crate::mount) fn take(&self, node: u64) -> bool {
        self.slot(node)
            .is_none_or(|slot| slot.swap(node, Ordering::AcqRel) != node)
    }

    fn slot(&self, node: u64) -> Option<&AtomicU64> {
        let hash = BuildHasherDefault::<FxHasher>::default().hash_one(node);
        self.0.get(usize::try_from(hash).ok()? % SLOTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_dropped_once() {
        let cached = CachedListings::default();
        assert!(cached.take(7), "of an earlier process");
        assert!(!cached.take(7));
        cached.begin(7);
        assert!(cached.take(7));
        assert!(!cached.take(7));
    }

    #[test]
    fn a_change_of_one_directory_leaves_no_listing_of_another() {
        let cached = CachedListings::default();
        // More than there are slots, so that some share one.
        for node in 1..=3 * SLOTS as u64 {
            cached.begin(node);
        }
        for node in 1..=3 * SLOTS as u64 {
            assert!(cached.take(node), "{node}");
        }
    }
}
