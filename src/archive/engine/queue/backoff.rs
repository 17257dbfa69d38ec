//! How long to wait before something is tried again.

use std::time::Duration;

/// Waits that double from a first to a longest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::archive::engine) struct Backoff {
    /// The wait after the first failure.
    pub(in crate::archive::engine) first: Duration,
    /// No wait is longer.
    pub(in crate::archive::engine) most: Duration,
}

impl Backoff {
    /// Waits of `first` to `most` seconds.
    pub(in crate::archive::engine) const fn seconds(first: u64, most: u64) -> Backoff {
        Backoff {
            first: Duration::from_secs(first),
            most: Duration::from_secs(most),
        }
    }

    /// The wait after so many failures in a row.
    pub(in crate::archive::engine) fn after(&self, tries: u32) -> Duration {
        let doublings = tries.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.most)
    }
}

/// The engine's waits.
#[derive(Debug, Clone, Copy)]
pub(in crate::archive::engine) struct Pace {
    /// A finished job that a process still uses.
    pub(in crate::archive::engine) look: Backoff,
    /// A job that another process archives, or that changed while it was copied.
    pub(in crate::archive::engine) busy: Backoff,
    /// A job that cannot be archived as it is.
    pub(in crate::archive::engine) job: Backoff,
    /// A folder that accepts no job.
    pub(in crate::archive::engine) folder: Backoff,
    /// How often the engine checks whether a missing folder is back, while jobs wait for it.
    pub(in crate::archive::engine) tick: Duration,
    /// How often all archived jobs are checked again.
    pub(in crate::archive::engine) recheck: Duration,
    /// How often the markers of all archived jobs are compared with those of the copies.
    pub(in crate::archive::engine) markers: Duration,
    /// The pause after each few jobs that are checked again.
    pub(in crate::archive::engine) breath: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            look: Backoff::seconds(1, 60),
            busy: Backoff::seconds(2, 60),
            job: Backoff::seconds(10, 60 * 60),
            folder: Backoff::seconds(5, 10 * 60),
            tick: Duration::from_secs(1),
            recheck: Duration::from_secs(24 * 60 * 60),
            markers: Duration::from_secs(60 * 60),
            breath: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<u64> = [0, 1, 2, 3, 4, 5, 100, u32::MAX]
            .map(|tries| Backoff::seconds(10, 100).after(tries).as_secs())
            .to_vec();
        assert_eq!(waits, [10, 10, 20, 40, 80, 100, 100, 100]);
    }
}
