//! Compares times as disks keep them: some keep whole seconds, or less. The present time of a disk.

use std::cmp::Ordering;

use rustix::fs::{StatxTimestamp, Timespec, UTIME_NOW};

/// Sets a time of a file to that of the call, by the file system's clock.
pub const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: UTIME_NOW,
};

/// A time with nanoseconds, as a file system stores it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds after that, less than a thousand million.
    pub nanoseconds: u32,
}

/// Steps in which disks keep times, in nanoseconds, each a multiple of the previous one: CIFS and NTFS, several FUSE
/// file systems, exFAT, ext3 and small inodes of ext4.
const STEPS: [i128; 4] = [100, 1_000, 10_000_000, SECOND];

/// vfat.
const TWO_SECONDS: i128 = 2 * SECOND;

const SECOND: i128 = 1_000_000_000;

impl Time {
    /// The time in the attributes that `statx` returns.
    #[must_use]
    pub fn of(stamp: StatxTimestamp) -> Time {
        Time {
            seconds: stamp.tv_sec,
            nanoseconds: stamp.tv_nsec,
        }
    }

    /// Compares with another time, where a disk may have truncated one of the two: equal if one is the other, truncated
    /// to a step in which disks keep times. Two changes of a file that are archived separately are further apart than
    /// that.
    #[must_use]
    pub fn order(self, other: Time) -> Ordering {
        match self.is_kept_of(other) || other.is_kept_of(self) {
            true => Ordering::Equal,
            false => self.cmp(&other),
        }
    }

    /// Whether a disk may have stored `whole` as this time.
    fn is_kept_of(self, whole: Time) -> bool {
        let (kept, whole) = (self.total(), whole.total());
        let cut = |step| kept.rem_euclid(step) == 0 && (kept..kept + step).contains(&whole);
        // `whole` must have a fraction of a second: two different times in whole seconds are two changes.
        let is_fine = whole.rem_euclid(SECOND) != 0;
        kept == whole || STEPS.into_iter().any(cut) || (is_fine && cut(TWO_SECONDS))
    }

    fn total(self) -> i128 {
        i128::from(self.seconds) * SECOND + i128::from(self.nanoseconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanoseconds: u32) -> Time {
        Time {
            seconds,
            nanoseconds,
        }
    }

    #[test]
    fn times_are_compared_as_disks_keep_them() {
        let time = at(1_000_003, 987_654_321);
        let kept = [
            at(1_000_003, 987_654_300),
            at(1_000_003, 987_654_000),
            at(1_000_003, 980_000_000),
            at(1_000_003, 0),
            at(1_000_002, 0),
        ];
        for kept in kept {
            assert_eq!(time.order(kept), Ordering::Equal, "{kept:?}");
            assert_eq!(kept.order(time), Ordering::Equal, "{kept:?}");
        }
        for earlier in [
            at(1_000_001, 0),
            at(1_000_003, 987_654_320),
            at(1_000_003, 987_000_001),
            at(1_000_002, 987_654_321),
        ] {
            assert_eq!(time.order(earlier), Ordering::Greater, "{earlier:?}");
            assert_eq!(earlier.order(time), Ordering::Less, "{earlier:?}");
        }
        // Both are in whole seconds.
        assert_eq!(at(1_000_003, 0).order(at(1_000_002, 0)), Ordering::Greater);
        assert_eq!(at(1_000_004, 0).order(time), Ordering::Greater);
        // Before 1970.
        assert_eq!(at(-3, 5).order(at(-3, 0)), Ordering::Equal);
    }
}
