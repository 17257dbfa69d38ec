//! A set of locations, by their numbers, as small as a number: there is one for each of a hundred thousand jobs.

/// The most locations that are distinguished. Copies in later folders do not count.
const LOCATIONS_MAX: u8 = 64;

/// A set of locations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LocationSet(u64);

impl LocationSet {
    fn bit(location: u8) -> u64 {
        match location < LOCATIONS_MAX {
            true => 1 << location,
            false => 0,
        }
    }

    /// Adds a location.
    pub fn insert(&mut self, location: u8) {
        self.0 |= Self::bit(location);
    }

    /// Removes a location.
    pub fn remove(&mut self, location: u8) {
        self.0 &= !Self::bit(location);
    }

    /// Whether it has a location.
    #[must_use]
    pub fn has(self, location: u8) -> bool {
        self.0 & Self::bit(location) != 0
    }

    /// What is in either set.
    #[must_use]
    pub fn union(self, other: LocationSet) -> LocationSet {
        LocationSet(self.0 | other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub fn and(self, other: LocationSet) -> LocationSet {
        LocationSet(self.0 & other.0)
    }

    /// How many locations it has.
    #[must_use]
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its locations, in order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..LOCATIONS_MAX).filter(move |location| self.has(*location))
    }
}

impl FromIterator<u8> for LocationSet {
    fn from_iter<I: IntoIterator<Item = u8>>(locations: I) -> LocationSet {
        let mut set = LocationSet::default();
        locations
            .into_iter()
            .for_each(|location| set.insert(location));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_added_and_no_location_beyond_its_size() {
        let mut set: LocationSet = [0, 3, 63, 64, 255].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 3, 63]);
        set.remove(3);
        set.remove(200);
        assert_eq!((set.len(), set.has(3), set.has(63)), (2, false, true));
        let other = [63, 5].into_iter().collect();
        assert_eq!(set.and(other).iter().collect::<Vec<_>>(), [63]);
        assert_eq!(set.union(other).len(), 3);
        assert!(LocationSet::default().is_empty());
    }
}
