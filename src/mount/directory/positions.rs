//! The positions that the listing of a union has given out, by number, without keeping those of listings long ago.
//!
//! The kernel goes on with a listing from a number. Where a source stands there takes all of 63 bits on some disks
//! (ext4: a hash), so that the location has no room beside it, and a table is needed:
//!
//! 1. The same position always has the same number ([`Table::number`]): a listing of a directory that has not
//!    changed adds nothing, and one of a directory that has changed adds what is new.
//! 2. When more has been added than a listing has entries, a new table is begun for the next listing
//!    ([`Positions::begin`]); the one before is kept for listings that are under way, the others are dropped.

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

/// Where a union's listing stands after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::mount) struct Position {
    pub(super) location: u8,
    pub(super) offset: u64,
}

/// A table may have so many positions beyond those of two listings.
const SLACK: usize = 16 * 1024;

/// A table in which no listing has come to its end has so many at most.
const UNFINISHED_MAX: usize = 4 * 1024 * 1024;

/// The positions of one directory.
#[derive(Debug, Default)]
pub(in crate::mount) struct Positions {
    before: Table,
    now: Table,
}

/// Positions with consecutive numbers, of which the first is one more than `base`.
#[derive(Debug, Default)]
struct Table {
    base: usize,
    positions: IndexSet<Position, FxBuildHasher>,
    /// How many there were when a listing first came to its end.
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
    /// The position of a number that was given out; none if that was too long ago.
    pub(super) fn get(&self, number: usize) -> Option<Position> {
        self.now.get(number).or_else(|| self.before.get(number))
    }

    /// The number of a position.
    pub(super) fn number(&mut self, position: Position) -> usize {
        let (at, _) = self.now.positions.insert_full(position);
        self.now.base + at + 1
    }

    /// A listing is begun from the start.
    pub(super) fn begin(&mut self) {
        if self.now.is_full() {
            let base = self.now.base + self.now.positions.len();
            let next = Table {
                base,
                ..Table::default()
            };
            self.before = std::mem::replace(&mut self.now, next);
        }
    }

    /// A listing has come to its end.
    pub(super) fn end(&mut self) {
        let length = self.now.positions.len();
        self.now.finished.get_or_insert(length);
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
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
    fn positions_keep_their_numbers_and_new_ones_get_new_numbers() {
        let mut positions = Positions::default();
        assert_eq!(positions.number(position(10)), 1);
        assert_eq!(positions.number(position(20)), 2);
        // The same listing once more, with a name that has come between.
        assert_eq!(positions.number(position(10)), 1);
        assert_eq!(positions.number(position(15)), 3);
        assert_eq!(positions.number(position(20)), 2);
        assert_eq!(positions.get(3), Some(position(15)));
        assert_eq!((positions.get(0), positions.get(4)), (None, None));
    }

    #[test]
    fn listings_of_a_directory_that_changes_all_the_time_keep_a_bounded_table() {
        const ENTRIES: u64 = 100;
        let mut positions = Positions::default();
        // A listing that was begun before a table was replaced goes on after that.
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
