//! Knows which directories' listings the kernel may have cached, so that it drops them before a name in the directory changes.
//!
//! The kernel caches what one process lists, and lets others go on in it. It compares the directory's version only where a listing begins
//! (`fuse_readdir_cached`): a process that begins after a name was made would miss the name, if another one that had begun before reached
//! the end meanwhile. While a name changes, the kernel holds the directory locked, and no process lists it: so the cache is dropped then.

use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::atomic::{AtomicBool, Ordering};

use rustc_hash::FxHasher;

/// The number of marks, which directories share: a change in one directory may make the kernel drop the listing of another.
const MARKS: usize = 4096;

/// The directories that were listed since a name in them last changed.
#[derive(Debug)]
pub(in crate::mount) struct CachedListings(Box<[AtomicBool]>);

impl Default for CachedListings {
    /// An earlier process that served the mount may have listed all of them.
    fn default() -> CachedListings {
        CachedListings((0..MARKS).map(|_| AtomicBool::new(true)).collect())
    }
}

impl CachedListings {
    /// Notes that the kernel begins to list a directory.
    pub(in crate::mount) fn begin(&self, node: u64) {
        if let Some(mark) = self.mark(node) {
            mark.store(true, Ordering::Release);
        }
    }

    /// Returns whether the kernel may have cached the listing of a directory, for a caller that makes it drop it.
    pub(in crate::mount) fn take(&self, node: u64) -> bool {
        self.mark(node)
            .is_some_and(|mark| mark.load(Ordering::Acquire) && mark.swap(false, Ordering::AcqRel))
    }

    fn mark(&self, node: u64) -> Option<&AtomicBool> {
        let hash = BuildHasherDefault::<FxHasher>::default().hash_one(node);
        self.0.get(usize::try_from(hash).ok()? % MARKS)
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
}
