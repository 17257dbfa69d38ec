//! Keeps the directories that are being listed, by node.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;

use rustc_hash::FxHashMap;
use rustix::fs::{Mode, OFlags};
use rustix::io::Result;

use crate::mount::tables::cursor::Cursor;
use crate::mount::tables::nodes::Node;
use crate::mount::tables::positions::Positions;
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::view::listing::ListingSource;

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
    pub(in crate::mount) source: ListingSource,
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
    pub(in crate::mount) fn source(source: ListingSource) -> Result<OpenSource> {
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
            source: ListingSource {
                location: node.location,
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
    positions: Mutex<FxHashMap<u64, Arc<Mutex<Positions>>>>,
}

#[derive(Debug, Default)]
struct Kept {
    clock: u64,
    listings: FxHashMap<u64, Slot>,
}

/// The listings of a node.
#[derive(Debug, Default)]
struct Slot {
    now: Option<Arc<Listing>>,
    /// The listing of the directory that the node stood for before its job was recovered, moved or released: positions of
    /// one directory mean nothing in the other one.
    before: Option<Arc<Listing>>,
    used: u64,
}

/// A listing that is continued.
#[derive(Debug)]
pub(in crate::mount) struct Continued {
    pub(in crate::mount) listing: Arc<Listing>,
    /// Whether the node stands for another directory now.
    pub(in crate::mount) is_replaced: bool,
}

impl Listings {
    /// Returns the listing that a position belongs to.
    pub(in crate::mount) fn get(&self, node: u64, position: u64) -> Option<Continued> {
        let mut kept = self.kept.lock();
        kept.clock += 1;
        let clock = kept.clock;
        let slot = kept.listings.get_mut(&node)?;
        slot.used = clock;
        let (now, before) = (slot.now.clone(), slot.before.clone());
        drop(kept);
        // A cursor may be locked by a thread that waits for the disk.
        let has = |listing: &Arc<Listing>| match listing.kind {
            ListingKind::Plain => {
                let source = listing.sources.first();
                source.is_some_and(|source| source.cursor.has(position))
            }
            _ => {
                let number = usize::try_from(position).ok();
                let positions = self.positions(node);
                number.is_some_and(|number| positions.lock().get(number).is_some())
            }
        };
        let continued = |listing, is_replaced| Continued {
            listing,
            is_replaced,
        };
        match (now, before) {
            (Some(now), Some(before)) if !has(&now) && has(&before) => {
                Some(continued(before, true))
            }
            (Some(now), _) => Some(continued(now, false)),
            (None, Some(before)) if has(&before) => Some(continued(before, true)),
            (None, _) => None,
        }
    }

    /// Returns the listing of a plain directory that was opened, and from which nothing has been read yet.
    pub(in crate::mount) fn unread(&self, node: u64) -> Option<Continued> {
        let kept = self.kept.lock();
        let listing = kept.listings.get(&node)?.now.clone()?;
        drop(kept);
        let is_unread = match (&listing.kind, &*listing.sources) {
            (ListingKind::Plain, [source]) => source.cursor.is_unread(),
            _ => false,
        };
        is_unread.then_some(Continued {
            listing,
            is_replaced: false,
        })
    }

    /// Whether the directory is known to end at a position, with all that it had read.
    pub(in crate::mount) fn end_at(&self, node: u64, position: u64) -> bool {
        let kept = self.kept.lock();
        let listing = kept.listings.get(&node).and_then(|slot| slot.now.clone());
        drop(kept);
        listing.is_some_and(|listing| match (&listing.kind, &*listing.sources) {
            (ListingKind::Plain, [source]) => source.cursor.ends_at(position),
            _ => false,
        })
    }

    /// Keeps a listing to be continued later, in place of one that was not used for long.
    pub(in crate::mount) fn keep(&self, node: u64, listing: Arc<Listing>) {
        let mut evicted = None;
        let mut kept = self.kept.lock();
        if kept.listings.len() >= KEPT_MAX {
            let oldest = kept.listings.iter().min_by_key(|(_, slot)| slot.used);
            if let Some(oldest) = oldest.map(|(node, _)| *node) {
                evicted = kept.listings.remove(&oldest);
            }
        }
        kept.clock += 1;
        let clock = kept.clock;
        let slot = kept.listings.entry(node).or_default();
        slot.used = clock;
        let replaced = slot.now.replace(listing);
        drop(kept);
        // Closing can block on a network file system, so it must not happen under the lock.
        drop((evicted, replaced));
    }

    /// Returns the positions that the listing of a union has used.
    pub(in crate::mount) fn positions(&self, node: u64) -> Arc<Mutex<Positions>> {
        self.positions.lock().entry(node).or_default().clone()
    }

    /// Enters the positions that an earlier process has used for a union.
    pub(in crate::mount) fn restore(&self, node: u64, positions: Positions) {
        let positions = Arc::new(Mutex::new(positions));
        self.positions.lock().insert(node, positions);
    }

    /// Closes a kept listing; it is opened again when it is continued.
    pub(in crate::mount) fn close(&self, node: u64) {
        let listing = self.kept.lock().listings.remove(&node);
        drop(listing);
    }

    /// Notes that a node stands for another directory from now on: its listing can only be continued.
    pub(in crate::mount) fn replace_directory(&self, node: u64) {
        let mut replaced = None;
        if let Some(slot) = self.kept.lock().listings.get_mut(&node)
            && let Some(now) = slot.now.take()
        {
            replaced = slot.before.replace(now);
        }
        drop(replaced);
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
