//! Limits the bytes per second of all copies of a process together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a waiting copy sleeps before it checks again whether it was cancelled.
const SLICE: Duration = Duration::from_millis(50);

/// How much time's worth of bytes may be moved at once after a pause.
const BURST: Duration = Duration::from_millis(100);

/// A limit on bytes per second, shared by all copies that use it. A token bucket, stored as the time at which all bytes
/// that were permitted so far are paid for.
#[derive(Debug)]
pub struct Bandwidth {
    /// Bytes per second; 0 means no limit.
    rate: AtomicU64,
    paid: Mutex<Instant>,
}

impl Bandwidth {
    /// A limit in bytes per second; `None` means no limit.
    #[must_use]
    pub fn new(rate: Option<u64>) -> Bandwidth {
        Bandwidth {
            rate: AtomicU64::new(rate.unwrap_or(0)),
            paid: Mutex::new(Instant::now()),
        }
    }

    /// Changes the limit, also for running copies.
    pub fn set(&self, rate: Option<u64>) {
        self.rate.store(rate.unwrap_or(0), Ordering::Relaxed);
        *self.paid.lock() = Instant::now();
    }

    /// Waits until that many bytes may be moved, or until `ended` returns true.
    pub(super) fn take(&self, bytes: u64, ended: impl Fn() -> bool) {
        let Some(until) = self.book(bytes, Instant::now()) else {
            return;
        };
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if left.is_zero() || ended() {
                break;
            }
            std::thread::sleep(left.min(SLICE));
        }
    }

    /// Books bytes, and returns the time from which they may be moved; `None` means at once.
    fn book(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return None;
        }
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut paid = self.paid.lock();
        let from = now
            .checked_sub(BURST)
            .map_or(*paid, |floor| floor.max(*paid));
        *paid = from.checked_add(cost).unwrap_or(from);
        (*paid > now).then_some(*paid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_booked_is_paid_for_in_turn() {
        let bandwidth = Bandwidth::new(Some(1_000));
        let now = Instant::now() + Duration::from_secs(10);
        // Only a tenth of a second's worth has accumulated.
        assert_eq!(bandwidth.book(100, now), None);
        let second = Duration::from_secs(1);
        assert_eq!(bandwidth.book(1_000, now), Some(now + second));
        assert_eq!(bandwidth.book(2_000, now), Some(now + 3 * second));
        assert_eq!(
            bandwidth.book(1_000, now + 3 * second),
            Some(now + 4 * second)
        );
    }

    #[test]
    fn no_limit_never_waits() {
        let bandwidth = Bandwidth::new(None);
        assert_eq!(bandwidth.book(u64::MAX, Instant::now()), None);
        bandwidth.set(Some(1));
        assert!(bandwidth.book(u64::MAX, Instant::now()).is_some());
        bandwidth.set(None);
        assert_eq!(bandwidth.book(u64::MAX, Instant::now()), None);
    }

    #[test]
    fn waiting_can_be_cancelled() {
        let bandwidth = Bandwidth::new(Some(1));
        bandwidth.take(1_000_000, || true);
    }
}
