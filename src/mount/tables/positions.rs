//! Stores the positions of a union's listing by number, and drops those of old listings.
//!
//! The kernel continues a listing from a number. On some disks, the position of a source needs all of 63 bits (ext4: a
//! hash), which leaves no room for the location, so a table is needed:
//!
//! 1. The same position always has the same number ([`Positions::number`]): a listing of an unchanged directory adds
//!    nothing, and one of a changed directory adds only the new entries.
//! 2. When more has been added than a listing has entries, a new table is begun for the next listing
//!    ([`Positions::begin`]); the previous one is kept for listings that are under way, older ones are dropped.

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

/// The position of a union's listing after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::mount) struct Position {
    pub(in crate::mount) location: u8,
    pub(in crate::mount) offset: u64,
}

/// How many positions a table may have beyond those of two listings.
const SLACK: usize = 16 * 1024;

/// Limit of positions in a table in which no listing has reached its end.
const UNFINISHED_MAX: usize = 4 * 1024 * 1024;

/// How many positions a record has at most.
const RECORDED_MAX: usize = 8192;

/// The positions of one directory.
#[derive(Debug, Default)]
pub(in crate::mount) struct Positions {
    before: Table,
    now: Table,
    /// How many positions of `now` are recorded for the next process, once any is.
    recorded: Option<usize>,
}

/// Positions with consecutive numbers; the first number is `base` plus one.
#[derive(Debug, Default)]
struct Table {
    base: usize,
    positions: IndexSet<Position, FxBuildHasher>,
    /// How many there were when a listing first reached its end.
    finished: Option<usize>,
}

impl Table {
    fn get(&self, number: usize) -> Option<Position> {
        let at = number.checked_sub(self.base + 1)?;
        self.positions.get_index(at).copied()
    }

    fn is_full(&self) -> bool {
        let max = self
            .finished
            .map_or(UNFINISHED_MAX, |finished| 2 * finished + SLACK);
        self.positions.len() > max
    }
}

impl Positions {
    /// Returns the position with a number; `None` if it was assigned too long ago.
    pub(in crate::mount) fn get(&self, number: usize) -> Option<Position> {
        self.now.get(number).or_else(|| self.before.get(number))
    }

    /// Returns the number of a position.
    pub(in crate::mount) fn number(&mut self, position: Position) -> usize {
        let (at, _) = self.now.positions.insert_full(position);
        self.now.base + at + 1
    }

    /// Notes that a listing begins from the start.
    pub(in crate::mount) fn begin(&mut self) {
        if self.now.is_full() {
            let base = self.now.base + self.now.positions.len();
            let next = Table {
                base,
                ..Table::default()
            };
            self.before = std::mem::replace(&mut self.now, next);
            self.recorded = None;
        }
    }

    /// Returns the positions that are to be recorded, with the number of the first; none at the beginning of a table.
    pub(in crate::mount) fn unrecorded(&mut self) -> Vec<(u64, Vec<(u8, u64)>)> {
        let mut parts = Vec::new();
        let length = self.now.positions.len();
        if length == 0 {
            return parts;
        }
        let recorded = self.recorded.replace(length);
        if recorded.is_none() {
            parts.push((self.now.base as u64 + 1, Vec::new()));
        }
        let from = recorded.unwrap_or_default();
        let new: Vec<_> = self.now.positions.iter().skip(from).collect();
        for (part, positions) in (0..).zip(new.chunks(RECORDED_MAX)) {
            let first = self.now.base + from + part * RECORDED_MAX + 1;
            let positions = positions.iter().map(|at| (at.location, at.offset));
            parts.push((first as u64, positions.collect()));
        }
        parts
    }

    /// Positions that an earlier process has assigned, with the number of the first.
    pub(in crate::mount) fn restored(first: u64, positions: &[(u8, u64)]) -> Positions {
        let position = |(location, offset): &(u8, u64)| Position {
            location: *location,
            offset: *offset,
        };
        let positions: IndexSet<_, _> = positions.iter().map(position).collect();
        Positions {
            recorded: Some(positions.len()),
            now: Table {
                base: usize::try_from(first).map_or(0, |first| first.saturating_sub(1)),
                positions,
                finished: None,
            },
            before: Table::default(),
        }
    }

    /// Notes that a listing has reached its end.
    pub(in crate::mount) fn end(&mut self) {
        let length = self.now.positions.len();
        self.now.finished.get_or_insert(length);
    }

    /// Returns how many positions there are.
    #[cfg(test)]
    pub(in crate::mount) fn count(&self) -> usize {
        self.before.positions.len() + self.now.positions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(offset: u64) -> Position {
        Position {
            location: 0,
            offset,
        }
    }

    #[test]
    fn same_position_has_same_number() {
        let mut positions = Positions::default();
        assert_eq!(positions.number(position(10)), 1);
        assert_eq!(positions.number(position(20)), 2);
        // The same listing once more, with a new name between the others.
        assert_eq!(positions.number(position(10)), 1);
        assert_eq!(positions.number(position(15)), 3);
        assert_eq!(positions.number(position(20)), 2);
        assert_eq!(positions.get(3), Some(position(15)));
        assert_eq!((positions.get(0), positions.get(4)), (None, None));
    }

    #[test]
    fn table_of_changing_directory_is_bounded() {
        const ENTRIES: u64 = 100;
        let mut positions = Positions::default();
        // A listing that was begun before a table was replaced continues after that.
        let mut under_way = None;
        for first in 0..100_000_u64 {
            positions.begin();
            let numbers: Vec<usize> = (first..first + ENTRIES)
                .map(|offset| positions.number(position(offset)))
                .collect();
            for (number, offset) in numbers.iter().zip(first..) {
                assert_eq!(positions.get(*number), Some(position(offset)));
            }
            positions.end();
            if let Some((number, offset)) = under_way.replace((numbers[50], first + 50)) {
                assert_eq!(positions.get(number), Some(position(offset)));
            }
            assert!(positions.count() < 3 * SLACK, "{}", positions.count());
        }
        assert_eq!(positions.get(1), None);
    }
}
