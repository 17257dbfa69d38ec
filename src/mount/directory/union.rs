//! Reading several directories as one, source after source, with positions that count what was given out.

use std::cmp::Ordering;
use std::ffi::OsStr;

use rustix::fs::FileType;
use rustix::io::{Errno, Result};

use super::{Item, Kind, Listing, Open, Taker};
use crate::mount::Mount;
use crate::mount::cursor;
use crate::mount::identity::Identity;
use crate::mount::lookup::Found;
use crate::mount::nodes::Role;
use crate::settings;
use crate::view::listing::Shown;
use crate::view::name::Name;
use crate::view::{PRIMARY, beneath, location};

/// Where a union's listing stands after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mount) struct Position {
    location: u8,
    offset: u64,
}

impl Mount {
    /// Returns whether there was nothing left.
    pub(super) fn read_union(
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
