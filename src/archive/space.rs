//! Claims free space of a disk for a copy, so that copies of one process do not count on the same bytes.
//!
//! What is free on a disk says nothing about copies that have just begun. So each copy claims all bytes that it needs, for as long as it
//! writes them:
//!
//! 1. A copy that fits beside all claimed bytes claims its own, and begins.
//! 2. A copy that does not fit, but would if the claimed bytes were already among those that are used, waits for the end of another copy:
//!    until then, it is unknown how many of the claimed bytes are written.
//! 3. A copy that does not fit into what is free is refused.
//!
//! Other processes are not asked: a copy that fails with `ENOSPC` is removed, and tried again.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use indicatif::HumanBytes;
use parking_lot::{Condvar, Mutex};
use rustix::io::{Errno, Result as SysResult};

use crate::view::Location;

/// How often a copy that waits checks whether it is cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(200);

/// The claims on one disk.
#[derive(Debug, Default, Clone, Copy)]
struct Claimed {
    bytes: u64,
    /// How many claims have ended.
    ended: u64,
}

/// The claims on each disk, by its device number. Bounded by the number of disks.
static CLAIMS: Mutex<BTreeMap<u64, Claimed>> = Mutex::new(BTreeMap::new());

/// Signalled when a claim ends.
static ENDED: Condvar = Condvar::new();

/// Claimed bytes of a disk; the claim ends when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Claim {
    device: u64,
    bytes: u64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(claimed) = CLAIMS.lock().get_mut(&self.device) {
            claimed.bytes = claimed.bytes.saturating_sub(self.bytes);
            claimed.ended = claimed.ended.wrapping_add(1);
        }
        ENDED.notify_all();
    }
}

/// Why no space was claimed.
#[derive(Debug)]
pub(super) enum Refused {
    /// Too little is free.
    Lacking {
        /// The bytes that the copy needs.
        needed: u64,
        /// The bytes that are free.
        free: u64,
    },
    /// The operation was cancelled meanwhile.
    Cancelled,
    /// The disk cannot be looked at.
    System(Errno),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Lacking { needed, free } => write!(
                f,
                "no space: {} are needed, and {} are free: make room there and try again",
                HumanBytes(*needed),
                HumanBytes(*free)
            ),
            Refused::Cancelled => f.write_str("cancelled"),
            Refused::System(errno) => write!(f, "cannot look at its space: {errno}"),
        }
    }
}

/// The disk that a location's jobs are on: `jobs` may be a symlink to another one than the location's own.
pub(super) struct Disk {
    directory: Arc<OwnedFd>,
    device: u64,
}

impl Disk {
    /// The disk of the jobs.
    pub(super) fn of_jobs(location: &Location) -> SysResult<Disk> {
        let root = location.root()?;
        let directory = match root.jobs() {
            Ok(jobs) => jobs,
            Err(_) => return Disk::of(location),
        };
        Disk::at(directory)
    }

    /// The disk of everything else.
    pub(super) fn of(location: &Location) -> SysResult<Disk> {
        Disk::at(Arc::new(rustix::io::fcntl_dupfd_cloexec(
            location.root()?.fd(),
            0,
        )?))
    }

    fn at(directory: Arc<OwnedFd>) -> SysResult<Disk> {
        let device = rustix::fs::fstat(&directory)?.st_dev;
        Ok(Disk { directory, device })
    }

    /// The bytes that are free and not claimed, as far as is known.
    pub(super) fn unclaimed(&self) -> SysResult<u64> {
        let free = free(&self.directory)?;
        Ok(free.saturating_sub(self.claimed().bytes))
    }

    /// Claims `needed` bytes. Waits while that depends on copies in progress.
    pub(super) fn claim(
        &self,
        needed: u64,
        is_cancelled: impl Fn() -> bool,
    ) -> Result<Claim, Refused> {
        loop {
            let before = self.claimed();
            // Not under the lock: a disk that hangs must not delay copies to others.
            let free = free(&self.directory).map_err(Refused::System)?;
            let mut claims = CLAIMS.lock();
            let claimed = claims.entry(self.device).or_default();
            if claimed.ended != before.ended {
                // What ended meanwhile may have been written after the look at the disk.
                continue;
            }
            if needed <= free.saturating_sub(claimed.bytes) {
                claimed.bytes = claimed.bytes.saturating_add(needed);
                let (device, bytes) = (self.device, needed);
                return Ok(Claim { device, bytes });
            }
            if needed > free {
                return Err(Refused::Lacking { needed, free });
            }
            ENDED.wait_for(&mut claims, CANCEL_POLL);
            drop(claims);
            if is_cancelled() {
                return Err(Refused::Cancelled);
            }
        }
    }

    fn claimed(&self) -> Claimed {
        CLAIMS.lock().get(&self.device).copied().unwrap_or_default()
    }
}

fn free(directory: impl AsFd) -> SysResult<u64> {
    let space = rustix::fs::fstatvfs(directory)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A disk of memory in place of a real one: its device number is of no disk.
    fn disk(dir: &tempfile::TempDir, device: u64) -> Disk {
        let directory = Arc::new(OwnedFd::from(File::open(dir.path()).unwrap()));
        Disk { directory, device }
    }

    #[test]
    fn a_copy_waits_for_another_one_and_is_refused_if_it_can_never_fit() {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk(&dir, u64::MAX);
        let free = free(&disk.directory).unwrap();
        let never = || false;
        let half = free / 2;
        let first = disk.claim(half, never).unwrap();
        // Of other disks, nothing is claimed.
        let other = Disk {
            directory: disk.directory.clone(),
            device: u64::MAX - 1,
        };
        drop(other.claim(half, never).unwrap());
        let refused = disk.claim(u64::MAX, never).unwrap_err();
        assert!(refused.to_string().starts_with("no space: "), "{refused}");
        let began = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let claim = disk.claim(free / 4 * 3, never).unwrap();
                began.store(true, Ordering::SeqCst);
                claim
            });
            // A smaller one goes first.
            drop(disk.claim(free / 16, never).unwrap());
            assert!(!began.load(Ordering::SeqCst));
            drop(first);
            drop(waiting.join().unwrap());
        });
        assert_eq!(disk.claimed().bytes, 0);
        let first = disk.claim(half, never).unwrap();
        let cancelled = disk.claim(free / 4 * 3, || true);
        assert!(matches!(cancelled, Err(Refused::Cancelled)));
        drop(first);
    }
}
