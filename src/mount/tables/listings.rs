//! Keeps the directories that are being listed, by node.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;

use rustix::fs::{Mode, OFlags};
use rustix::io::Result;

use crate::mount::tables::cursor::Cursor;
use crate::mount::tables::nodes::Node;
use crate::mount::tables::positions::Positions;
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::view::listing::Source;

/// A directory that is being listed.
#[derive(Debug)]
pub(in crate::mount) struct Listing {
    pub(in crate::mount) sources: Vec<OpenSource>,
    pub(in crate::mount) kind: ListingKind,
    pub(in crate::mount) node: Node,
}

#[derive(Debug)]
pub(in crate::mount) struct OpenSource {
    pub(in crate::mount) cursor: Cursor,
    /// The same directory as `O_PATH`, to look names up in.
    pub(in crate::mount) source: Source,
    pub(in crate::mount) identity: FileId,
}

/// The kind of directory that is listed.
#[derive(Debug)]
pub(in crate::mount) enum ListingKind {
    Plain,
    Jobs,
    Task,
    /// A directory of a job that a folder serves, together with the internal files of the job in the primary.
    Holder,
}

pub(in crate::mount) const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl OpenSource {
    /// One source of a union.
    pub(in crate::mount) fn source(source: Source) -> Result<OpenSource> {
        let fd = rustix::fs::openat(&source.dir, ".", OPEN, Mode::empty())?;
        Ok(OpenSource {
            identity: FileId::of(&at::stat_fd(&fd)?),
            cursor: Cursor::new(fd.into()),
            source,
        })
    }

    /// The one source of a plain directory.
    pub(in crate::mount) fn plain(fd: Arc<OwnedFd>, node: &Node) -> OpenSource {
        OpenSource {
            identity: node.identity,
            source: Source {
                location: node.place,
                dir: fd.clone(),
            },
            cursor: Cursor::new(fd),
        }
    }
}

/// Limit of listings that are kept open, each with one or two descriptors for each location.
const KEPT_MAX: usize = 64;

/// Listings that were begun and may be continued, and the positions of unions.
#[derive(Debug, Default)]
pub(in crate::mount) struct Listings {
    kept: Mutex<Kept>,
    positions: Mutex<HashMap<u64, Arc<Mutex<Positions>>>>,
}

#[derive(Debug, Default)]
struct Kept {
    clock: u64,
    listings: HashMap<u64, (Arc<Listing>, u64)>,
}

impl Listings {
    pub(in crate::mount) fn get(&self, node: u64) -> Option<Arc<Listing>> {
        let mut kept = self.kept.lock();
        kept.clock += 1;
        let now = kept.clock;
        let (listing, used) = kept.listings.get_mut(&node)?;
        *used = now;
        Some(listing.clone())
    }

    /// Keeps a listing to be continued later, in place of one that was not used for long.
    pub(in crate::mount) fn keep(&self, node: u64, listing: Arc<Listing>) {
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
    pub(in crate::mount) fn positions(&self, node: u64) -> Arc<Mutex<Positions>> {
        self.positions.lock().entry(node).or_default().clone()
    }

    /// Closes a kept listing; it is opened again when it is continued.
    pub(in crate::mount) fn close(&self, node: u64) {
        let listing = self.kept.lock().listings.remove(&node);
        drop(listing);
    }

    /// Returns the directories whose listings are kept.
    pub(in crate::mount) fn kept(&self) -> Vec<u64> {
        self.kept.lock().listings.keys().copied().collect()
    }

    /// Removes and returns all state kept of a directory.
    pub(in crate::mount) fn forget(&self, node: u64) -> impl Sized + use<> {
        let listing = self.kept.lock().listings.remove(&node);
        let positions = self.positions.lock().remove(&node);
        (listing, positions)
    }
}
