//! Listing directories.
//!
//! A listing belongs to a node and not to an open directory: the kernel need not tell us of opening
//! and closing, and keeps what was listed. A plain directory is listed with the disk's own
//! positions. A union of several is listed source after source, with positions that count what was
//! given out; each remembers where it stands on the disk, so that a listing can go on from any of
//! them. What a union shows can change without its own directories changing, so the kernel is made
//! to forget it when it has been listed to the end.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, Statx};
use rustix::io::{Errno, Result};

use super::cursor::{self, Cursor};
use super::identity::{Identity, ROOT};
use super::lookup::{Entry, Found};
use super::nodes::{INTERNAL, Node, Role};
use super::{Mount, sys};
use crate::settings;
use crate::view::listing::{Shown, Source};
use crate::view::name::Name;
use crate::view::{PRIMARY, beneath, location};
use crate::workspace::layout;

/// A directory being listed.
#[derive(Debug)]
pub(super) struct Listing {
    sources: Vec<Open>,
    kind: Kind,
    node: Node,
}

#[derive(Debug)]
struct Open {
    cursor: Cursor,
    /// The same directory as `O_PATH`, to ask for names in.
    source: Source,
    identity: Identity,
}

/// Where a union's listing stands after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    location: u8,
    offset: u64,
}

/// What the listing is of.
#[derive(Debug)]
enum Kind {
    Plain,
    Jobs,
    Task,
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
    /// What stands under the name, if that is known already.
    found: Option<Found>,
}

const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The position after `jobs` at the top, where only folders have it; no disk gives it out.
const AFTER_JOBS: u64 = i64::MAX as u64 - 1;

/// What takes entries, until it says that it has enough (`false`).
type Taker<'a> = dyn FnMut(Item<'_>) -> bool + 'a;

impl Mount {
    /// Sees whether a directory can be listed; returns whether the kernel may keep the listing.
    pub(super) fn opendir(&self, id: u64) -> Result<bool> {
        let listing = Arc::new(self.new_listing(id)?);
        let plain = matches!(listing.kind, Kind::Plain);
        self.listings.keep(id, listing);
        Ok(plain)
    }

    fn new_listing(&self, id: u64) -> Result<Listing> {
        let node = self.node(id)?;
        let (sources, kind) = self.listing_of(id, &node)?;
        let sources = match kind {
            Kind::Plain => vec![Open::plain(self.open_listed(id)?, &node)],
            _ => self.open_sources(&node, sources)?,
        };
        Ok(Listing {
            sources,
            kind,
            node,
        })
    }

    /// Opens the directories of a union. A folder's that may not be listed is passed over: it must not
    /// take the others' jobs with it.
    fn open_sources(&self, node: &Node, sources: Vec<Source>) -> Result<Vec<Open>> {
        let mut opened = Vec::with_capacity(sources.len());
        let union = matches!(node.role, Role::Jobs | Role::Task);
        let task = (node.role == Role::Task).then_some(&*node.name);
        for source in sources {
            let location = source.location;
            match Open::source(source) {
                Ok(open) => {
                    opened.push(open);
                    if union {
                        self.view.is_listed(location, task);
                    }
                }
                Err(error) if union && location != PRIMARY => {
                    self.view.cannot_be_listed(location, task, error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(opened)
    }

    /// A directory, open to be listed, and from then on to look for names in as well.
    fn open_listed(&self, id: u64) -> Result<Arc<OwnedFd>> {
        if let Some(removed) = self.directories.removed(id) {
            // That is not open for reading (`O_PATH`).
            let path = sys::proc_path(&removed);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            return Ok(Arc::new(rustix::fs::open(path, flags, Mode::empty())?));
        }
        let listed = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = Arc::new(match id {
            ROOT => rustix::fs::openat(self.primary_dir()?, ".", OPEN, Mode::empty())?,
            _ => self.open_verified(id, listed)?,
        });
        if id != ROOT {
            self.directories.insert(id, fd.clone());
        }
        Ok(fd)
    }

    fn listing_of(&self, id: u64, node: &Node) -> Result<(Vec<Source>, Kind)> {
        match node.role {
            Role::Jobs => Ok((self.view.jobs_sources()?, Kind::Jobs)),
            Role::Task => Ok((self.view.task_sources(&node.name)?, Kind::Task)),
            _ => match self.holder(node)? {
                Some(holder) => match self.view.internal_dir(&holder)? {
                    Some(internal) => Ok((self.with_internal(id, node, internal)?, Kind::Holder)),
                    None => Ok((Vec::new(), Kind::Plain)),
                },
                None => Ok((Vec::new(), Kind::Plain)),
            },
        }
    }

    fn with_internal(&self, id: u64, node: &Node, internal: OwnedFd) -> Result<Vec<Source>> {
        let archived = Source {
            location: node.place,
            dir: self.directory_fd(id)?,
        };
        let internal = Source {
            location: INTERNAL,
            dir: internal.into(),
        };
        Ok(vec![archived, internal])
    }

    /// Gives the entries from a position on to `give`, until it says that it has enough.
    pub(super) fn list(
        &self,
        id: u64,
        from: u64,
        mut give: impl FnMut(&Item<'_>) -> bool,
    ) -> Result<()> {
        self.list_there(id, |id| {
            self.read_listing(id, from, false, &mut |item| give(&item))
        })
    }

    /// Lists a directory; one of a job that has been moved since the kernel opened it, where it is now: the
    /// kernel does not look it up again for that.
    fn list_there(&self, id: u64, mut list: impl FnMut(u64) -> Result<()>) -> Result<()> {
        match list(id) {
            Err(Errno::STALE) => {
                let entered = self.enter_moved(id)?;
                let listed = entered
                    .last()
                    .map_or(Err(Errno::STALE), |there| list(*there));
                self.forget_each(&entered);
                listed
            }
            listed => listed,
        }
    }

    /// Like [`Mount::list`], with what a lookup of each entry would tell. What the kernel has no
    /// more room for is not counted as looked up.
    pub(super) fn list_plus(
        &self,
        id: u64,
        from: u64,
        mut give: impl FnMut(&OsStr, u64, &Entry) -> bool,
    ) -> Result<()> {
        self.list_there(id, |id| self.list_plus_of(id, from, &mut give))
    }

    fn list_plus_of(
        &self,
        id: u64,
        from: u64,
        give: &mut dyn FnMut(&OsStr, u64, &Entry) -> bool,
    ) -> Result<()> {
        self.read_listing(id, from, true, &mut |item| {
            if item.name == "." || item.name == ".." {
                // The kernel makes no node of these.
                return give(item.name, item.next, &Entry::unknown(item.inode, item.kind));
            }
            let (name, next) = (item.name, item.next);
            let entry = match self.entry_of(id, item) {
                Some(entry) => entry,
                None => return true,
            };
            let taken = give(name, next, &entry);
            if !taken {
                self.forget(entry.id, 1);
            }
            taken
        })
    }

    /// What the kernel is told of an entry; `None` if it has gone since.
    fn entry_of(&self, parent: u64, mut item: Item<'_>) -> Option<Entry> {
        let entry = match item.found.take() {
            Some(found) => self.enter(parent, item.name, found),
            None => self.lookup(parent, item.name),
        };
        match entry {
            Ok(entry) => Some(entry),
            Err(Errno::NOENT) => None,
            Err(_) => Some(self.enter_unknown(parent, &item)),
        }
    }

    /// An entry of which only the name may be known, as in a directory that may be listed but not
    /// searched: the kernel is to believe nothing else, and asks again if somebody wants to know.
    fn enter_unknown(&self, parent: u64, item: &Item<'_>) -> Entry {
        let node = Node {
            identity: Identity::UNKNOWN,
            parent,
            name: Name::from(item.name),
            place: PRIMARY,
            role: Role::Outside,
            directory: item.kind == FileType::Directory,
        };
        self.nodes.remember_unless_known(item.inode, node);
        Entry::unknown(item.inode, item.kind)
    }

    fn read_listing(&self, id: u64, from: u64, plus: bool, give: &mut Taker<'_>) -> Result<()> {
        let kept = match from {
            0 => None,
            _ => self.listings.get(id),
        };
        let listing = match kept {
            Some(listing) => listing,
            None => {
                let listing = Arc::new(self.new_listing(id)?);
                self.listings.keep(id, listing.clone());
                listing
            }
        };
        if from == 0 {
            self.read_ahead(id, &listing.node);
        }
        let at_end = match listing.kind {
            Kind::Plain => self.read_plain(&listing, from, plus, give)?,
            _ => self.read_union(id, &listing, from, plus, give)?,
        };
        if at_end && !matches!(listing.kind, Kind::Plain) {
            self.notices.forget_pages(id);
        }
        Ok(())
    }

    /// Has read what comes next, if this is one step of a walk through the jobs of a task.
    fn read_ahead(&self, id: u64, node: &Node) {
        match node.role {
            Role::Task => self.ahead.begun(id),
            Role::Job => {
                if let Ok(task) = self.node(node.parent) {
                    self.ahead.listed(node.parent, &task.name, &node.name);
                }
            }
            _ => {}
        }
    }

    /// Returns whether there was nothing left.
    fn read_plain(
        &self,
        listing: &Listing,
        from: u64,
        plus: bool,
        give: &mut Taker<'_>,
    ) -> Result<bool> {
        if from == AFTER_JOBS {
            return Ok(true);
        }
        let open = listing.sources.first().ok_or(Errno::STALE)?;
        let node = &listing.node;
        let role = match node.role {
            Role::Job | Role::Inside => Role::Inside,
            _ => Role::Outside,
        };
        // At the top, and where internal files may have been made meanwhile, names mean more.
        let holder = self.holder(node)?;
        let internal = |name: &OsStr, stat: &Statx| {
            holder.as_ref().is_some_and(|holder| {
                holder.is_internal(name, beneath::is_dir(stat), Some(stat.stx_size))
            })
        };
        let mut given = false;
        let fd = open.cursor.fd();
        let end = open.cursor.read(
            from,
            |_| (),
            |entry| {
                let name = entry.name();
                if node.role == Role::Root && name == layout::XPMFS {
                    return true;
                }
                given = true;
                let asked = plus && node.role != Role::Root && name != "." && name != "..";
                let found = match asked {
                    true => beneath::stat_at(fd, name).ok(),
                    false => None,
                };
                let found = found.filter(|stat| !internal(name, stat));
                give(Item {
                    name,
                    kind: entry.kind,
                    inode: self.devices.entry(&open.identity, entry.inode),
                    next: entry.next,
                    found: found.map(|stat| Found {
                        place: node.place,
                        role,
                        stat,
                    }),
                })
            },
        )?;
        if end && node.role == Role::Root {
            return Ok(!self.give_jobs_of_folders(give)? && !given);
        }
        Ok(end && !given)
    }

    /// Gives `jobs` at the end of the top, if it is there because a folder has jobs and not because
    /// the primary has the directory. Returns whether there was anything to give.
    fn give_jobs_of_folders(&self, give: &mut Taker<'_>) -> Result<bool> {
        let Some(jobs) = self.find_jobs()?.filter(|jobs| jobs.place != PRIMARY) else {
            return Ok(false);
        };
        if beneath::absent(beneath::stat(self.primary_dir()?, OsStr::new(layout::JOBS)))?.is_some()
        {
            return Ok(false);
        }
        // The top itself does not change when it goes.
        self.notices.forget_pages(ROOT);
        give(Item {
            name: OsStr::new(layout::JOBS),
            kind: FileType::Directory,
            inode: self.devices.inode(&Identity::of(&jobs.stat)),
            next: AFTER_JOBS,
            found: Some(jobs),
        });
        Ok(true)
    }

    /// Returns whether there was nothing left.
    fn read_union(
        &self,
        id: u64,
        listing: &Listing,
        from: u64,
        plus: bool,
        give: &mut Taker<'_>,
    ) -> Result<bool> {
        let positions = self.listings.positions(id);
        let mut position = usize::try_from(from).map_err(|_| Errno::INVAL)?;
        let start = match position.checked_sub(1) {
            None => Position {
                location: PRIMARY,
                offset: 0,
            },
            Some(last) => *positions.lock().get(last).ok_or(Errno::INVAL)?,
        };
        let mut given = false;
        for (at, open) in listing.sources.iter().enumerate() {
            let location = open.source.location;
            // One that can be listed no more is passed over.
            let offset = match location.cmp(&start.location) {
                Ordering::Less => continue,
                Ordering::Equal => start.offset,
                Ordering::Greater => 0,
            };
            let fetched = |entries: &[cursor::Entry]| self.check_ahead(listing, open, entries);
            let read = open.cursor.read(offset, fetched, |entry| {
                let name = entry.name();
                let Some(shown) = self.shows(listing, at, name, entry.kind) else {
                    return true;
                };
                let here = Position {
                    location,
                    offset: entry.next,
                };
                given = true;
                let next = number(&mut positions.lock(), position, here);
                let taken = give(Item {
                    name,
                    kind: shown.kind,
                    inode: match &shown.stat {
                        Some(stat) => self.devices.inode(&Identity::of(stat)),
                        None => self.devices.entry(&open.identity, entry.inode),
                    },
                    next: next as u64,
                    found: match plus {
                        true => found_in(listing, open, name, shown),
                        false => None,
                    },
                });
                position = next;
                taken
            });
            let end = match read {
                // Removed meanwhile: what the others have shows all the same.
                Err(Errno::NOENT) if !matches!(listing.kind, Kind::Holder) => true,
                read => read?,
            };
            if !end {
                return Ok(false);
            }
        }
        Ok(!given)
    }

    /// In a `use` folder, each job is looked into when it is listed: has that done for several at the
    /// same time.
    fn check_ahead(&self, listing: &Listing, open: &Open, entries: &[cursor::Entry]) {
        let location = self.view.location(open.source.location);
        let checked = location
            .is_some_and(|location| location.role() == location::Role::Folder(settings::Mode::Use));
        if !matches!(listing.kind, Kind::Task) || !checked {
            return;
        }
        let directories = entries
            .iter()
            .filter(|entry| entry.kind == FileType::Directory);
        let names = directories.map(|entry| Name::from(entry.name()));
        let (dir, task) = (&open.source.dir, &listing.node.name);
        self.ahead.check(dir, task, names.collect());
    }

    /// What an entry of source number `at` shows as, if it does.
    fn shows(&self, listing: &Listing, at: usize, name: &OsStr, entry: FileType) -> Option<Shown> {
        if name == "." || name == ".." {
            return (at == 0).then_some(FileType::Directory.into());
        }
        let sources = &listing.sources;
        let source = &sources.get(at)?.source;
        match listing.kind {
            Kind::Plain => Some(entry.into()),
            Kind::Jobs => {
                let earlier = sources.iter().take(at).map(|open| &open.source);
                let shown = self.view.shows_in_jobs(source, earlier, name, entry);
                shown.map(Shown::from)
            }
            Kind::Task => {
                let task = &listing.node.name;
                self.view.shows_in_task(source.location, task, name, entry)
            }
            Kind::Holder => {
                let first = &sources.first()?.source.dir;
                let twice = at > 0 && beneath::stat(first, name).is_ok();
                (!twice).then_some(entry.into())
            }
        }
    }

    pub(super) fn fsyncdir(&self, id: u64, data_only: bool) -> Result<()> {
        let listing = self.new_listing(id)?;
        // What a folder has, we have not changed.
        let ours = |open: &&Open| matches!(open.source.location, PRIMARY | INTERNAL);
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

/// What a task's entry stands for, where showing it has told that.
fn found_in(listing: &Listing, open: &Open, name: &OsStr, shown: Shown) -> Option<Found> {
    if !matches!(listing.kind, Kind::Task) || name == "." || name == ".." {
        return None;
    }
    let (place, stat) = match (shown.stat, shown.location) {
        (Some(stat), Some(location)) => (location, *stat),
        // A directory of the primary: nothing comes before it.
        _ => {
            let stat = beneath::stat(&open.source.dir, name).ok()?;
            if beneath::is_symlink(&stat) {
                // Moved to a folder since its name was read: what it leads to counts.
                return None;
            }
            (open.source.location, stat)
        }
    };
    let job = shown.kind == FileType::Directory && beneath::is_dir(&stat);
    let role = if job { Role::Job } else { Role::Outside };
    Some(Found { place, role, stat })
}

/// The number of a position that comes after position number `last`: the same as before if the
/// directories are as they were, a new one otherwise. Numbers that were given out stay good.
fn number(positions: &mut Vec<Position>, last: usize, position: Position) -> usize {
    if positions.get(last) == Some(&position) {
        return last + 1;
    }
    positions.push(position);
    positions.len()
}

impl Open {
    /// One source of a union.
    fn source(source: Source) -> Result<Open> {
        let fd = rustix::fs::openat(&source.dir, ".", OPEN, Mode::empty())?;
        Ok(Open {
            identity: Identity::of(&beneath::stat_fd(&fd)?),
            cursor: Cursor::new(fd.into()),
            source,
        })
    }

    /// The one source of a plain directory.
    fn plain(fd: Arc<OwnedFd>, node: &Node) -> Open {
        Open {
            identity: node.identity,
            source: Source {
                location: node.place,
                dir: fd.clone(),
            },
            cursor: Cursor::new(fd),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_keep_their_numbers_and_new_ones_get_new_numbers() {
        let position = |offset| Position {
            location: 0,
            offset,
        };
        let mut positions = Vec::new();
        assert_eq!(number(&mut positions, 0, position(10)), 1);
        assert_eq!(number(&mut positions, 1, position(20)), 2);
        // The same listing once more.
        assert_eq!(number(&mut positions, 0, position(10)), 1);
        assert_eq!(number(&mut positions, 1, position(20)), 2);
        // A name has come between.
        assert_eq!(number(&mut positions, 1, position(15)), 3);
        assert_eq!(number(&mut positions, 3, position(20)), 4);
        assert_eq!(positions[1], position(20));
    }
}
