//! Lists directories.
//!
//! A listing belongs to a node and not to an open directory: the kernel need not report opening and closing, and caches
//! the listed entries. A plain directory is listed with the disk's own positions. A union of several is listed source
//! after source, with positions that count the returned entries; each stores its position on the disk, so that a
//! listing can continue from any of them. The entries of a union can change without a change of its own directories, so
//! the kernel drops the cached listing once it is complete; of `jobs/` and its tasks before another process can go on in it.
//!
//! A listing that was begun before its job was recovered, moved or released goes on in the directory that it began in.
//!
//! - here: opening directories for listing, and returning entries with or without their attributes
//! - `plain`: reading one directory; `union`: reading several, with `positions`

mod plain;
mod union;

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

use crate::mount::Mount;
use crate::mount::find::Found;
use crate::mount::locate::MOVES_MAX;
use crate::mount::ops::lookup::NodeEntry;
use crate::mount::tables::listings::{Continued, Listing, ListingKind, OPEN, OpenSource};
use crate::mount::tables::nodes::{INTERNAL, Node, NodeRole};
use crate::mount::tables::numbers::ROOT;
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;
use crate::view::PRIMARY;
use crate::view::listing::ListingSource;

/// An entry, as the kernel receives it.
#[derive(Debug)]
pub(in crate::mount) struct ReaddirEntry<'a> {
    pub(in crate::mount) name: &'a OsStr,
    pub(in crate::mount) kind: FileType,
    pub(in crate::mount) inode: u64,
    /// Where the listing continues after this entry.
    pub(in crate::mount) next: u64,
    /// The file under the name, if already known.
    found: Option<Found>,
}

/// Accepts entries until it returns `false`, when it has enough.
type Emit<'a> = dyn FnMut(ReaddirEntry<'_>) -> bool + 'a;

impl Mount {
    /// Checks that a directory can be listed; returns whether the kernel may cache the listing.
    pub(in crate::mount) fn opendir(&self, id: u64) -> Result<bool> {
        let listing = Arc::new(self.new_listing(id)?);
        let plain = matches!(listing.kind, ListingKind::Plain);
        self.listings.keep(id, listing);
        Ok(plain)
    }

    fn new_listing(&self, id: u64) -> Result<Listing> {
        let node = self.node(id)?;
        let (sources, kind) = self.listing_of(id, &node)?;
        let sources = match kind {
            ListingKind::Plain => vec![OpenSource::plain(self.open_listed(id)?, &node)],
            _ => self.open_sources(&node, sources)?,
        };
        for source in &sources {
            self.apply_noatime(source.cursor.fd());
        }
        Ok(Listing {
            sources,
            kind,
            node,
        })
    }

    /// Opens the directories of a union. A folder's directory that may not be listed is skipped: it must not hide the
    /// jobs of the other folders.
    fn open_sources(&self, node: &Node, sources: Vec<ListingSource>) -> Result<Vec<OpenSource>> {
        let mut opened = Vec::with_capacity(sources.len());
        let union = matches!(node.role, NodeRole::Jobs | NodeRole::Task);
        let task = (node.role == NodeRole::Task).then_some(&*node.name);
        for source in sources {
            let location = source.location;
            let asked = {
                let _asking = self.asking(location, node.role);
                OpenSource::source(source)
            };
            match asked {
                Ok(open) => {
                    opened.push(open);
                    if union {
                        self.view.note_listed(location, task);
                    }
                }
                Err(error) if union && location != PRIMARY => {
                    self.view.note_unlistable(location, task, error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(opened)
    }

    /// Opens a directory for listing, and for later lookups of names as well.
    fn open_listed(&self, id: u64) -> Result<Arc<OwnedFd>> {
        if let Some(removed) = self.dir_cache.removed(id) {
            // The kept descriptor is not open for reading (`O_PATH`).
            let path = at::proc_path(&removed);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            return Ok(Arc::new(rustix::fs::open(path, flags, Mode::empty())?));
        }
        if id == ROOT {
            let fd = rustix::fs::openat(self.primary_dir()?, ".", OPEN, Mode::empty())?;
            return Ok(Arc::new(fd));
        }
        let listed = OFlags::RDONLY | OFlags::DIRECTORY;
        let (fd, stat) = self.open_with_stat(id, listed)?;
        let fd = Arc::new(fd);
        self.dir_cache.insert(id, fd.clone(), FileId::of(&stat));
        Ok(fd)
    }

    fn listing_of(&self, id: u64, node: &Node) -> Result<(Vec<ListingSource>, ListingKind)> {
        match node.role {
            NodeRole::Jobs => Ok((self.view.jobs_sources()?, ListingKind::Jobs)),
            NodeRole::Task => Ok((self.view.task_sources(&node.name)?, ListingKind::Task)),
            _ => match self.holder(node)? {
                Some(holder) => match self.view.internal_dir(&holder)? {
                    Some(internal) => {
                        Ok((self.with_internal(id, node, internal)?, ListingKind::Holder))
                    }
                    None => Ok((Vec::new(), ListingKind::Plain)),
                },
                None => Ok((Vec::new(), ListingKind::Plain)),
            },
        }
    }

    fn with_internal(&self, id: u64, node: &Node, internal: OwnedFd) -> Result<Vec<ListingSource>> {
        let archived = ListingSource {
            location: node.location,
            dir: self.directory_fd(id)?,
        };
        let internal = ListingSource {
            location: INTERNAL,
            dir: internal.into(),
        };
        Ok(vec![archived, internal])
    }

    /// Makes the kernel drop what it has cached of a directory's listing, since a name in the directory is about to change. The kernel holds
    /// the directory locked.
    pub(in crate::mount) fn names_change(&self, directory: u64) {
        if self.cached_listings.take(directory) {
            self.invalidate.listing_now(directory);
        }
    }

    /// Passes the entries from a position on to `emit`, until it returns `false`. Returns whether the kernel must drop what it has cached of
    /// the listing before it receives the reply, which ends the listing.
    pub(in crate::mount) fn list(
        &self,
        id: u64,
        from: u64,
        mut emit: impl FnMut(&ReaddirEntry<'_>) -> bool,
    ) -> Result<bool> {
        self.list_there(id, from, |id| {
            self.read_listing(id, from, false, &mut |item| emit(&item))
        })
    }

    /// Lists a directory. If its job has been moved, released or purged since the kernel opened it, or its copy was replaced, lists it in
    /// its new place: the kernel does not look the directory up again for that.
    fn list_there(
        &self,
        id: u64,
        from: u64,
        mut list: impl FnMut(u64) -> Result<bool>,
    ) -> Result<bool> {
        let mut listed = Err(Errno::STALE);
        // Other processes may move the job, or put it back, between two steps.
        for _ in 0..MOVES_MAX {
            listed = match self.is_purged(id) || self.is_being_removed(id, from) {
                true => Err(Errno::STALE),
                false => list(id),
            };
            if let Err(Errno::STALE) = listed {
                listed = self.list_new_place(id, &mut list);
            }
            if !matches!(listed, Err(Errno::STALE)) {
                break;
            }
        }
        listed
    }

    /// Lists what the path of a directory in a job leads to now.
    fn list_new_place(&self, id: u64, list: &mut impl FnMut(u64) -> Result<bool>) -> Result<bool> {
        let listed_in = self.node(id)?.location;
        // Below the same job, another process has replaced the directory, which has nothing to do with the new one. A directory that was
        // found in a folder before its job was recovered is none of these.
        let is_another = |found: &Found, job: &Node| {
            [found.location, job.location, listed_in] != [PRIMARY; 3]
                || FileId::of(&found.stat) != job.identity
        };
        let entered = self.enter_again(id, is_another)?;
        let listed = entered
            .last()
            .map_or(Err(Errno::STALE), |there| list(*there));
        self.forget_each(&entered);
        listed
    }

    /// Whether a directory belongs to a job that has been moved or released from the primary, or to a copy in a folder that another
    /// process has replaced: the files in it are being removed. A listing of the primary that was begun before, so that it goes on `from`
    /// a later position, ends in the same directory.
    fn is_being_removed(&self, id: u64, from: u64) -> bool {
        let Some(node) = self.nodes.get(id) else {
            return false;
        };
        let is_asked = match (node.role, node.location) {
            (NodeRole::Job | NodeRole::Inside, PRIMARY) => from == 0,
            (NodeRole::Job | NodeRole::Inside, _) => from == 0 || !self.listings.end_at(id, from),
            _ => false,
        };
        is_asked && {
            let _asking = self.asking(node.location, node.role);
            self.is_moved(id, &node)
        }
    }

    /// As [`Mount::list`], with the result of a lookup of each entry. Entries for which the kernel has no more room are
    /// not counted as looked up.
    pub(in crate::mount) fn list_plus(
        &self,
        id: u64,
        from: u64,
        mut emit: impl FnMut(&OsStr, u64, &NodeEntry) -> bool,
    ) -> Result<bool> {
        self.list_there(id, from, |id| self.list_plus_of(id, from, &mut emit))
    }

    fn list_plus_of(
        &self,
        id: u64,
        from: u64,
        emit: &mut dyn FnMut(&OsStr, u64, &NodeEntry) -> bool,
    ) -> Result<bool> {
        self.read_listing(id, from, true, &mut |item| {
            if item.name == "." || item.name == ".." {
                // The kernel creates no node for these.
                return emit(
                    item.name,
                    item.next,
                    &NodeEntry::unknown(item.inode, item.kind),
                );
            }
            let (name, next) = (item.name, item.next);
            let entry = match self.entry_of(id, item) {
                Some(entry) => entry,
                None => return true,
            };
            let emitted = emit(name, next, &entry);
            if !emitted {
                self.forget(entry.id, 1);
            }
            emitted
        })
    }

    /// Returns the kernel's view of an entry; `None` if it has been removed since.
    fn entry_of(&self, parent: u64, mut item: ReaddirEntry<'_>) -> Option<NodeEntry> {
        let entry = match item.found.take() {
            Some(found) => self.enter_found(parent, item.name, found),
            None => self.lookup(parent, item.name),
        };
        match entry {
            Ok(entry) => Some(entry),
            Err(Errno::NOENT) => None,
            Err(_) => Some(self.enter_unknown(parent, &item)),
        }
    }

    /// Returns an entry of which only the name may be known, as in a directory that may be listed but not searched: the
    /// kernel must cache nothing else, and requests the attributes again when a process needs them.
    fn enter_unknown(&self, parent: u64, item: &ReaddirEntry<'_>) -> NodeEntry {
        let node = Node {
            identity: FileId::UNKNOWN,
            parent,
            name: Name::from(item.name),
            location: PRIMARY,
            role: NodeRole::Outside,
            directory: item.kind == FileType::Directory,
        };
        self.nodes.remember_unless_known(item.inode, node);
        NodeEntry::unknown(item.inode, item.kind)
    }

    fn read_listing(&self, id: u64, from: u64, plus: bool, emit: &mut Emit<'_>) -> Result<bool> {
        if from == 0 {
            self.cached_listings.begin(id);
        }
        let kept = match from {
            0 => self.listings.unread(id),
            _ => self.listings.get(id, from),
        };
        let Continued {
            listing,
            is_replaced,
        } = match kept {
            Some(continued) => continued,
            None => {
                let listing = Arc::new(self.new_listing(id)?);
                self.listings.keep(id, listing.clone());
                Continued {
                    listing,
                    is_replaced: false,
                }
            }
        };
        // The names are looked up where the directory is now.
        let plus = plus && !is_replaced;
        if from == 0 {
            self.read_ahead(id, &listing.node);
        }
        let at_end = match listing.kind {
            ListingKind::Plain => self.read_plain(&listing, from, plus, emit)?,
            _ => self.read_union(id, &listing, from, plus, emit)?,
        };
        if at_end && matches!(listing.kind, ListingKind::Holder) {
            self.invalidate.pages(id);
        }
        Ok(at_end && matches!(listing.kind, ListingKind::Jobs | ListingKind::Task))
    }

    /// Starts reading the next jobs ahead, if this is one step of a walk through the jobs of a task.
    fn read_ahead(&self, id: u64, node: &Node) {
        match node.role {
            NodeRole::Task => self.readahead.task_listed(id),
            NodeRole::Job => {
                if let Ok(task) = self.node(node.parent) {
                    self.readahead
                        .job_listed(node.parent, &task.name, &node.name);
                }
            }
            _ => {}
        }
    }

    pub(in crate::mount) fn fsyncdir(&self, id: u64, data_only: bool) -> Result<()> {
        let listing = self.new_listing(id)?;
        // Directories of folders need no sync: this mount has not changed them.
        let ours = |open: &&OpenSource| matches!(open.source.location, PRIMARY | INTERNAL);
        for open in listing.sources.iter().filter(ours) {
            if data_only {
                rustix::fs::fdatasync(open.cursor.fd())?;
            } else {
                rustix::fs::fsync(open.cursor.fd())?;
            }
        }
        Ok(())
    }
}
