//! Reads several directories as one, source after source; positions count the returned entries.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::hash::{Hash, Hasher};

use parking_lot::Mutex;
use rustix::fs::FileType;
use rustix::io::{Errno, Result};

use super::{Emit, ReaddirEntry};
use crate::mount::Mount;
use crate::mount::find::Found;
use crate::mount::handover::record::Record;
use crate::mount::tables::cursor;
use crate::mount::tables::listings::{Listing, ListingKind, OpenSource};
use crate::mount::tables::node::REMOVED;
use crate::mount::tables::nodes::{INTERNAL, NodeRole};
use crate::mount::tables::positions::{Position, Positions};
use crate::settings;
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;
use crate::view::listing::Shown;
use crate::view::{PRIMARY, Served, location};

/// The location in the positions of what is on record. No folder has this number, and no union has internal files.
const RECORDED: u8 = INTERNAL - 1;

/// Before the first entry.
const BEGINNING: Position = Position {
    location: PRIMARY,
    offset: 0,
};

/// Where the folder's number begins in such a position.
const FOLDER: u32 = 48;

/// An entry that is known from the record. Its inode number is one that no disk has.
fn recorded<'a>(listing: &Listing, name: &'a OsStr, found: Option<Found>) -> ReaddirEntry<'a> {
    let mut hasher = rustc_hash::FxHasher::default();
    (&*listing.node.name, name).hash(&mut hasher);
    ReaddirEntry {
        name,
        kind: FileType::Directory,
        inode: hasher.finish() >> 2 | 1 << 62,
        next: 0,
        found,
    }
}

impl Mount {
    /// Reads entries; returns whether the end was reached.
    pub(in crate::mount) fn read_union(
        &self,
        id: u64,
        listing: &Listing,
        from: u64,
        plus: bool,
        emit: &mut Emit<'_>,
    ) -> Result<bool> {
        let positions = self.listings.positions(id);
        let end = self.read_union_from(&positions, listing, from, plus, emit);
        // Before the kernel receives them.
        self.recorder.record_all(|| {
            let unrecorded = positions.lock().unrecorded();
            let records = unrecorded.into_iter();
            records.map(|(first, positions)| Record::Positions(id, first, positions))
        });
        end
    }

    fn read_union_from(
        &self,
        positions: &Mutex<Positions>,
        listing: &Listing,
        from: u64,
        plus: bool,
        emit: &mut Emit<'_>,
    ) -> Result<bool> {
        let start = match usize::try_from(from).map_err(|_| Errno::INVAL)? {
            0 => {
                positions.lock().begin();
                BEGINNING
            }
            last => match positions.lock().get(last).ok_or(Errno::INVAL)? {
                // In a folder that the settings do not list any more: no job may be missing, so some are listed again.
                Position {
                    location: REMOVED, ..
                } => BEGINNING,
                position => position,
            },
        };
        let mut emitted = false;
        for (at, open) in listing.sources.iter().enumerate() {
            let location = open.source.location;
            // A source that can no longer be listed is skipped.
            let offset = match location.cmp(&start.location) {
                Ordering::Less => continue,
                Ordering::Equal => start.offset,
                Ordering::Greater => 0,
            };
            let fetched = |entries: &[cursor::OwnedEntry]| {
                if plus && matches!(listing.kind, ListingKind::Jobs) {
                    self.view
                        .ask_times(entries.iter().map(cursor::OwnedEntry::name));
                }
                if plus {
                    self.find_jobs_without_copy(listing, open, entries);
                }
                self.check_ahead(listing, open, entries);
            };
            if self.is_offline(location) {
                continue;
            }
            let asking = || self.asking(location, listing.node.role);
            let read = open.cursor.read(offset, asking, fetched, |entry| {
                let name = entry.name();
                let Some(shown) = self.shows(listing, at, name, entry.kind) else {
                    return true;
                };
                let here = Position {
                    location,
                    offset: entry.next,
                };
                emitted = true;
                let next = positions.lock().number(here);
                emit(ReaddirEntry {
                    name,
                    kind: shown.kind,
                    inode: match &shown.stat {
                        Some(stat) => self.devices.inode(&FileId::of(stat)),
                        None => self.devices.entry(&open.identity, entry.inode),
                    },
                    next: next as u64,
                    found: match plus {
                        true => self.found_in(listing, open, name, shown),
                        false => None,
                    },
                })
            });
            let end = match read {
                // Removed meanwhile: the entries of the other sources are shown nevertheless.
                Err(Errno::NOENT) if !matches!(listing.kind, ListingKind::Holder) => true,
                // The jobs of the other locations show without those of this folder.
                Err(error) if self.goes_offline_after(location, error) => true,
                read => read?,
            };
            if !end {
                return Ok(false);
            }
        }
        let from = match start.location {
            RECORDED => start.offset,
            _ => 0,
        };
        let more = self.read_recorded(listing, from, &mut |item, offset| {
            emitted = true;
            let location = RECORDED;
            let next = positions.lock().number(Position { location, offset });
            emit(ReaddirEntry {
                next: next as u64,
                ..item
            })
        });
        if more {
            return Ok(false);
        }
        if !emitted {
            positions.lock().end();
        }
        Ok(!emitted)
    }

    /// Passes what folders that cannot be used now have on record and no other location has, with the position after each, from a position
    /// on, until `emit` returns `false`; returns whether it did. Of the jobs, only the names are known.
    fn read_recorded(
        &self,
        listing: &Listing,
        from: u64,
        emit: &mut dyn FnMut(ReaddirEntry<'_>, u64) -> bool,
    ) -> bool {
        let (first, offset) = (from >> FOLDER, from & ((1 << FOLDER) - 1));
        for folder in self.view.folders() {
            let number = u64::from(folder.index());
            if !folder.is_away() || number < first {
                continue;
            }
            let offset = if number == first { offset } else { 0 };
            let end = match listing.kind {
                ListingKind::Jobs => {
                    let tasks = self.view.recorded_tasks(folder);
                    let tasks = (1..).zip(&tasks).skip(usize::try_from(offset).unwrap_or(0));
                    let mut shown = tasks.filter_map(|(at, task)| {
                        let found = self.find_task(task).ok()?;
                        (found.location == folder.index()).then_some((at, task, found))
                    });
                    shown.all(|(at, task, found): (u64, _, _)| {
                        emit(recorded(listing, task, Some(found)), number << FOLDER | at)
                    })
                }
                ListingKind::Task => {
                    let task = &listing.node.name;
                    let mut each = |name: &OsStr, next| match self.view.resolve(task, name) {
                        Err(Errno::IO) => {
                            emit(recorded(listing, name, None), number << FOLDER | next)
                        }
                        _ => true,
                    };
                    self.view.recorded_jobs(folder, task, offset, &mut each)
                }
                ListingKind::Plain | ListingKind::Holder => true,
            };
            if !end {
                return true;
            }
        }
        false
    }

    /// Finds out at once which of the primary's jobs no folder has: those that a folder has may be purged.
    fn find_jobs_without_copy(
        &self,
        listing: &Listing,
        open: &OpenSource,
        entries: &[cursor::OwnedEntry],
    ) {
        if matches!(listing.kind, ListingKind::Task) && open.source.location == PRIMARY {
            let directories = entries
                .iter()
                .filter(|entry| entry.kind == FileType::Directory);
            let task = &listing.node.name;
            self.view
                .find_jobs_without_copy(task, directories.map(cursor::OwnedEntry::name));
        }
    }

    /// Checks several jobs of a `use` folder at the same time, since each job in it must be checked before it is
    /// listed.
    fn check_ahead(&self, listing: &Listing, open: &OpenSource, entries: &[cursor::OwnedEntry]) {
        let location = self.view.location(open.source.location);
        let checked = location
            .is_some_and(|location| location.role() == location::Role::Folder(settings::Mode::Use));
        if !matches!(listing.kind, ListingKind::Task) || !checked {
            return;
        }
        let directories = entries
            .iter()
            .filter(|entry| entry.kind == FileType::Directory);
        let names = directories.map(|entry| Name::from(entry.name()));
        let (dir, task) = (&open.source.dir, &listing.node.name);
        self.readahead.check(dir, task, names.collect());
    }

    /// Returns how an entry of source number `at` is shown; `None` if it is hidden.
    fn shows(&self, listing: &Listing, at: usize, name: &OsStr, entry: FileType) -> Option<Shown> {
        if name == "." || name == ".." {
            return (at == 0).then_some(FileType::Directory.into());
        }
        let sources = &listing.sources;
        let source = &sources.get(at)?.source;
        match listing.kind {
            ListingKind::Plain => Some(entry.into()),
            ListingKind::Jobs => {
                let earlier = sources.iter().take(at).map(|open| &open.source);
                let shown = self.view.shows_in_jobs(source, earlier, name, entry);
                shown.map(Shown::from)
            }
            ListingKind::Task => {
                let task = &listing.node.name;
                self.view.shows_in_task(source.location, task, name, entry)
            }
            ListingKind::Holder => {
                let first = &sources.first()?.source.dir;
                let twice = at > 0 && at::stat(first, name).is_ok();
                (!twice).then_some(entry.into())
            }
        }
    }

    /// Returns the node behind a task's entry, if showing the entry has already found it.
    fn found_in(
        &self,
        listing: &Listing,
        open: &OpenSource,
        name: &OsStr,
        shown: Shown,
    ) -> Option<Found> {
        if !matches!(listing.kind, ListingKind::Task) || name == "." || name == ".." {
            return None;
        }
        let (location, stat) = match (shown.stat, shown.location) {
            (Some(stat), Some(location)) => (location, *stat),
            // A directory of the primary: no other location takes precedence, unless a purge has left it.
            _ => {
                let stat = at::stat(&open.source.dir, name).ok()?;
                if at::is_symlink(&stat) {
                    // Moved to a folder since its name was read: the symlink's target counts.
                    return None;
                }
                let task = &listing.node.name;
                match at::is_dir(&stat) && open.source.location == PRIMARY {
                    true => match self
                        .view
                        .serves(&open.source.dir, task, name, Box::new(stat))
                    {
                        Served::Job { location, stat } | Served::AsItIs { location, stat } => {
                            if location == PRIMARY {
                                let dir = &open.source.dir;
                                self.view.expect_no_purge(dir, task, name, &stat).ok()?;
                            }
                            (location, *stat)
                        }
                    },
                    false => (open.source.location, stat),
                }
            }
        };
        let job = shown.kind == FileType::Directory && at::is_dir(&stat);
        let role = if job {
            NodeRole::Job
        } else {
            NodeRole::Outside
        };
        Some(Found {
            location,
            role,
            stat,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::mount::testing::Fixture;
    use crate::settings::Mode;

    #[test]
    fn positions_of_changing_task_are_bounded() {
        const JOBS: usize = 300;
        const CHANGES: usize = 100;
        let fixture = Fixture::new(Mode::Backup, &["folder/jobs/t/archived"]);
        let job = |number: usize| fixture.primary(&format!("jobs/t/job-{number}"));
        for number in 0..JOBS {
            fs::create_dir_all(job(number)).unwrap();
        }
        let (mount, task) = (&fixture.mount, fixture.look_up("jobs/t")[2]);
        for change in 0..CHANGES {
            fs::remove_dir(job(change)).unwrap();
            fs::create_dir(job(JOBS + change)).unwrap();
            // As the kernel does: some entries at a time, and once more at the end.
            let (mut next, mut listed) = (0, 0);
            loop {
                let (from, before) = (next, listed);
                let mut room = 50;
                let emit = |item: &ReaddirEntry<'_>| {
                    room -= 1;
                    next = item.next;
                    listed += 1;
                    room > 0
                };
                mount.list(task, from, emit).unwrap();
                if listed == before {
                    break;
                }
            }
            assert_eq!(listed, JOBS + 3, "with the folder's, and `.` and `..`");
        }
        let kept = mount.listings.positions(task).lock().count();
        assert!(kept < JOBS + 10 * CHANGES, "{kept}");
    }
}
