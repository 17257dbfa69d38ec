//! Listing directories.
//!
//! A plain directory is listed with the disk's own positions. A union of several is listed source
//! after source, with positions that count what was given out; each remembers where it stands on
//! the disk, so that a listing can go on from any of them.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Mode, OFlags, RawDir, SeekFrom, Statx};
use rustix::io::{Errno, Result};

use super::identity::Identity;
use super::lookup::Entry;
use super::nodes::{INTERNAL, Node, Role};
use super::{Mount, handles};
use crate::view::listing::Source;
use crate::view::{PRIMARY, beneath};
use crate::workspace::layout;

/// A directory being listed.
#[derive(Debug)]
pub(super) struct Listing {
    sources: Vec<Open>,
    kind: Kind,
    /// For a union: after the entry given out as position n + 1, reading goes on here.
    positions: Vec<Position>,
}

#[derive(Debug)]
struct Open {
    fd: OwnedFd,
    /// The same directories as `O_PATH`, to ask for names in.
    source: Source,
    identity: Identity,
}

#[derive(Debug, Clone, Copy)]
struct Position {
    source: usize,
    offset: u64,
}

/// What the listing is of.
#[derive(Debug)]
enum Kind {
    Plain {
        top: bool,
    },
    Jobs,
    Task(std::sync::Arc<OsStr>),
    /// A directory of a job that a folder serves, with the internal files that the primary has
    /// for it.
    Holder,
}

/// An entry, as the kernel is told of it.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) name: &'a OsStr,
    pub(super) kind: FileType,
    pub(super) inode: u64,
    /// Where the listing goes on after this entry.
    pub(super) next: u64,
}

const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

const BUFFER: usize = 32 * 1024;

impl Mount {
    pub(super) fn opendir(&self, id: u64) -> Result<u64> {
        let node = self.node(id)?;
        let (sources, kind) = self.listing_of(id, &node)?;
        let sources: Result<Vec<Open>> = sources.into_iter().map(open).collect();
        let listing = Listing {
            sources: sources?,
            kind,
            positions: Vec::new(),
        };
        Ok(self.handles.add_directory(handles::Directory {
            node: id,
            listing: listing.into(),
        }))
    }

    fn listing_of(&self, id: u64, node: &Node) -> Result<(Vec<Source>, Kind)> {
        match node.role {
            Role::Jobs => Ok((self.view.jobs_sources()?, Kind::Jobs)),
            Role::Task => {
                let sources = self.view.task_sources(&node.name)?;
                Ok((sources, Kind::Task(node.name.clone())))
            }
            _ => {
                let dir = self.open_verified(id, OFlags::PATH | OFlags::DIRECTORY)?;
                let mut sources = vec![Source {
                    location: node.place,
                    dir,
                }];
                if let Some(holder) = self.holder(node)?
                    && let Some(dir) = self.view.internal_dir(&holder)?
                {
                    sources.push(Source {
                        location: INTERNAL,
                        dir,
                    });
                    return Ok((sources, Kind::Holder));
                }
                let top = node.role == Role::Root;
                Ok((sources, Kind::Plain { top }))
            }
        }
    }

    /// Gives the entries from a position on to `give`, until it says that it has enough.
    pub(super) fn list(
        &self,
        handle: u64,
        from: u64,
        mut give: impl FnMut(&Item<'_>) -> bool,
    ) -> Result<()> {
        let directory = self.handles.directory(handle)?;
        let mut listing = directory.listing.lock();
        let listing = &mut *listing;
        match listing.kind {
            Kind::Plain { top } => self.list_plain(&listing.sources, top, from, &mut give),
            _ => self.list_union(listing, from, &mut give),
        }
    }

    /// Like [`Mount::list`], with what a lookup of each entry would tell. What the kernel has no
    /// more room for is not counted as looked up.
    pub(super) fn list_plus(
        &self,
        handle: u64,
        parent: u64,
        from: u64,
        mut give: impl FnMut(&OsStr, u64, &Entry) -> bool,
    ) -> Result<()> {
        self.list(handle, from, |item| {
            if item.name == "." || item.name == ".." {
                // The kernel makes no node of these.
                return give(item.name, item.next, &Entry::unknown(item.inode, item.kind));
            }
            let entry = match self.lookup(parent, item.name) {
                Ok(entry) => entry,
                Err(Errno::NOENT) => return true,
                Err(_) => self.enter_unknown(parent, item),
            };
            let taken = give(item.name, item.next, &entry);
            if !taken {
                self.forget(entry.id, 1);
            }
            taken
        })
    }

    /// An entry of which only the name may be known, as in a directory that may be listed but not
    /// searched: the kernel is to believe nothing else, and asks again if somebody wants to know.
    fn enter_unknown(&self, parent: u64, item: &Item<'_>) -> Entry {
        let node = Node {
            identity: Identity::UNKNOWN,
            parent,
            name: super::place::owned(item.name),
            place: PRIMARY,
            role: Role::Outside,
            directory: item.kind == FileType::Directory,
        };
        self.nodes.remember_unless_known(item.inode, node);
        Entry::unknown(item.inode, item.kind)
    }

    fn list_plain(
        &self,
        sources: &[Open],
        top: bool,
        from: u64,
        give: &mut impl FnMut(&Item<'_>) -> bool,
    ) -> Result<()> {
        let open = sources.first().ok_or(Errno::STALE)?;
        read(open, from, |entry| {
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if top && name == layout::XPMFS {
                return Ok(true);
            }
            Ok(give(&Item {
                name,
                kind: entry.file_type(),
                inode: self.devices.entry(&open.identity, entry.ino()),
                next: entry.next_entry_cookie(),
            }))
        })
        .map(|_| ())
    }

    fn list_union(
        &self,
        listing: &mut Listing,
        from: u64,
        give: &mut impl FnMut(&Item<'_>) -> bool,
    ) -> Result<()> {
        let mut given = usize::try_from(from).map_err(|_| Errno::INVAL)?;
        let start = match given.checked_sub(1) {
            None => Position {
                source: 0,
                offset: 0,
            },
            Some(last) => *listing.positions.get(last).ok_or(Errno::INVAL)?,
        };
        let mut offset = start.offset;
        for at in start.source..listing.sources.len() {
            let open = listing.sources.get(at).ok_or(Errno::STALE)?;
            let (positions, sources, kind) =
                (&mut listing.positions, &listing.sources, &listing.kind);
            let more = read(open, offset, |entry| {
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                let Some(shown) = self.shows(kind, sources, at, name, entry.file_type()) else {
                    return Ok(true);
                };
                let item = Item {
                    name,
                    kind: shown,
                    inode: self.devices.entry(&open.identity, entry.ino()),
                    next: given as u64 + 1,
                };
                if !give(&item) {
                    return Ok(false);
                }
                let position = Position {
                    source: at,
                    offset: entry.next_entry_cookie(),
                };
                match positions.get_mut(given) {
                    Some(known) => *known = position,
                    None => positions.push(position),
                }
                given += 1;
                Ok(true)
            })?;
            if !more {
                return Ok(());
            }
            offset = 0;
        }
        Ok(())
    }

    /// What an entry of source number `at` shows as, if it does.
    fn shows(
        &self,
        kind: &Kind,
        sources: &[Open],
        at: usize,
        name: &OsStr,
        entry: FileType,
    ) -> Option<FileType> {
        if name == "." || name == ".." {
            return (at == 0).then_some(FileType::Directory);
        }
        let source = &sources.get(at)?.source;
        match kind {
            Kind::Plain { .. } => Some(entry),
            Kind::Jobs => {
                let earlier = sources.iter().take(at).map(|open| &open.source);
                self.view.shows_in_jobs(source, earlier, name, entry)
            }
            Kind::Task(task) => self.view.shows_in_task(source.location, task, name, entry),
            Kind::Holder => {
                let first = &sources.first()?.source.dir;
                let twice = at > 0 && beneath::stat(first, name).is_ok();
                (!twice).then_some(entry)
            }
        }
    }

    pub(super) fn releasedir(&self, handle: u64) {
        drop(self.handles.remove_directory(handle));
    }

    pub(super) fn fsyncdir(&self, handle: u64, data_only: bool) -> Result<()> {
        let directory = self.handles.directory(handle)?;
        let listing = directory.listing.lock();
        // What a folder has, we have not changed.
        let ours = |open: &&Open| matches!(open.source.location, PRIMARY | INTERNAL);
        for open in listing.sources.iter().filter(ours) {
            if data_only {
                rustix::fs::fdatasync(&open.fd)?;
            } else {
                rustix::fs::fsync(&open.fd)?;
            }
        }
        Ok(())
    }
}

impl Listing {
    /// The attributes of the directory itself.
    pub(super) fn stat(&self) -> Result<Statx> {
        let first = self.sources.first().ok_or(Errno::STALE)?;
        beneath::stat_fd(&first.fd)
    }
}

fn open(source: Source) -> Result<Open> {
    let fd = rustix::fs::openat(&source.dir, ".", OPEN, Mode::empty())?;
    Ok(Open {
        identity: Identity::of(&beneath::stat_fd(&fd)?),
        fd,
        source,
    })
}

/// Reads the entries of a directory from a position on until `each` has enough (`false`); returns
/// whether the end was reached.
fn read(
    open: &Open,
    from: u64,
    mut each: impl FnMut(&rustix::fs::RawDirEntry<'_>) -> Result<bool>,
) -> Result<bool> {
    rustix::fs::seek(&open.fd, SeekFrom::Start(from))?;
    let mut buffer = [MaybeUninit::uninit(); BUFFER];
    let mut entries = RawDir::new(&open.fd, &mut buffer);
    while let Some(entry) = entries.next() {
        if !each(&entry?)? {
            return Ok(false);
        }
    }
    Ok(true)
}
