//! Keeps the directories that are being listed, by node.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::directory::{Listing, Positions};

/// Limit of listings that are kept open, each with one or two descriptors for each location.
const KEPT_MAX: usize = 64;

/// Listings that were begun and may be continued, and the positions of unions.
#[derive(Debug, Default)]
pub(super) struct Listings {
    kept: Mutex<Kept>,
    positions: Mutex<HashMap<u64, Arc<Mutex<Positions>>>>,
}

#[derive(Debug, Default)]
struct Kept {
    clock: u64,
    listings: HashMap<u64, (Arc<Listing>, u64)>,
}

impl Listings {
    pub(super) fn get(&self, node: u64) -> Option<Arc<Listing>> {
        let mut kept = self.kept.lock();
        kept.clock += 1;
        let now = kept.clock;
        let (listing, used) = kept.listings.get_mut(&node)?;
        *used = now;
        Some(listing.clone())
    }

    /// Keeps a listing to be continued later, in place of one that was not used for long.
    pub(super) fn keep(&self, node: u64, listing: Arc<Listing>) {
        let mut evicted = None;
        let mut kept = self.kept.lock();
        if kept.listings.len() >= KEPT_MAX {
            let oldest = kept.listings.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(node, _)| *node) {
                evicted = kept.listings.remove(&oldest);
            }
        }
        kept.clock += 1;
        let now = kept.clock;
        let replaced = kept.listings.insert(node, (listing, now));
        drop(kept);
        // Closing can block on a network file system, so it must not happen under the lock.
        drop((evicted, replaced));
    }

    /// Returns the positions that the listing of a union has used.
    pub(super) fn positions(&self, node: u64) -> Arc<Mutex<Positions>> {
        self.positions.lock().entry(node).or_default().clone()
    }

    /// Closes a kept listing; it is opened again when it is continued.
    pub(super) fn let_go(&self, node: u64) {
        let listing = self.kept.lock().listings.remove(&node);
        drop(listing);
    }

    /// Returns the directories whose listings are kept.
    pub(super) fn kept(&self) -> Vec<u64> {
        self.kept.lock().listings.keys().copied().collect()
    }

    /// Removes and returns all state kept of a directory.
    pub(super) fn forget(&self, node: u64) -> impl Sized + use<> {
        let listing = self.kept.lock().listings.remove(&node);
        let positions = self.positions.lock().remove(&node);
        (listing, positions)
    }
}
