//! Decides how long the kernel may cache names and attributes.
//!
//! | what | how long |
//! | --- | --- |
//! | inside a job of a `backup` or `move` folder | 10 minutes: archives do not change |
//! | inside a job of a `use` folder | half the time since its last change, between 1 second and 1 minute |
//! | in the primary, if only this mount changes it (but not `jobs/` and tasks, if there are folders) | the same |
//! | a set-user-ID or set-group-ID file, wherever it lies | not at all: a write clears the bits |
//! | a file that may be mapped and written by passthrough | not at all while it is open, 1 second afterwards |
//! | the name and the attributes of a file that is locked or was locked lately (`lock_names`) | not at all |
//! | anything else | 1 second |
//!
//! Only this mount changes the primary if it is mounted in place, on a local file system, and no other process has
//! received the directory beneath. Programs that were in the directory before may still change the files that they have
//! open; hence the third row, which works as in NFS clients (`acregmin`, `acregmax` in nfs(5)).

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::Statx;

use crate::mount::tables::nodes::{INTERNAL, NodeRole};
use crate::settings::Mode;
use crate::sys::at;
use crate::view::{PRIMARY, View, location};

pub(in crate::mount) const SHORT_TTL: Duration = Duration::from_secs(1);
const LONG_TTL: Duration = Duration::from_secs(600);
const UNCHANGED_TTL_MAX: Duration = Duration::from_secs(60);

/// Decides how long the kernel may cache what lies in the view.
#[derive(Debug)]
pub(in crate::mount) struct Ttls {
    view: Arc<View>,
    /// Whether only this mount changes the primary.
    exclusive: AtomicBool,
}

impl Ttls {
    /// `alone`: whether no other mount of this machine serves the primary, which is mounted in place.
    pub(in crate::mount) fn new(view: Arc<View>, alone: bool) -> Ttls {
        let root = view.primary().root();
        let exclusive = alone && root.is_ok_and(|root| is_local(root.fd()));
        Ttls {
            view,
            exclusive: exclusive.into(),
        }
    }

    /// Notes that other processes may change the primary from now on; returns whether that is new.
    pub(in crate::mount) fn primary_is_shared(&self) -> bool {
        self.exclusive.swap(false, Ordering::Relaxed)
    }

    /// How long the kernel may cache a node that lies in `location`.
    pub(in crate::mount) fn of(&self, location: u8, role: NodeRole, stat: &Statx) -> Duration {
        // The kernel would still execute the file with these bits after a write has cleared them.
        if !at::is_dir(stat) && stat.stx_mode & at::SET_ID != 0 {
            return Duration::ZERO;
        }
        if location == INTERNAL {
            return SHORT_TTL;
        }
        if location != PRIMARY && role == NodeRole::Inside {
            return match self.view.location(location).map(|found| found.role()) {
                Some(location::Role::Folder(Mode::Use)) => unchanged_for(stat),
                _ => LONG_TTL,
            };
        }
        // Jobs in folders appear and disappear.
        let union =
            matches!(role, NodeRole::Jobs | NodeRole::Task) && !self.view.folders().is_empty();
        if location == PRIMARY && self.is_exclusive() && !union {
            return unchanged_for(stat);
        }
        SHORT_TTL
    }

    /// Whether only this mount changes the primary.
    fn is_exclusive(&self) -> bool {
        self.exclusive.load(Ordering::Relaxed)
    }

    /// How long the kernel may cache that a name does not exist.
    pub(in crate::mount) fn of_absence(&self, location: u8, role: NodeRole) -> Duration {
        let archived = location != PRIMARY && location != INTERNAL && role == NodeRole::Inside;
        if archived || (location == PRIMARY && self.is_exclusive()) {
            SHORT_TTL
        } else {
            Duration::ZERO
        }
    }
}

/// Half the time since the last change, within bounds.
fn unchanged_for(stat: &Statx) -> Duration {
    (age(stat) / 2).clamp(SHORT_TTL, UNCHANGED_TTL_MAX)
}

/// The time since the last change, in whole seconds.
pub(in crate::mount) fn age(stat: &Statx) -> Duration {
    let changed = stat.stx_mtime.tv_sec.max(stat.stx_ctime.tv_sec);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs().cast_signed());
    Duration::from_secs(u64::try_from(now.saturating_sub(changed)).unwrap_or(0))
}

/// Whether no other machine changes a file system: whether it is one of those that are known to be local, by their
/// magic numbers (statfs(2)).
pub(in crate::mount) fn is_local(fd: impl AsFd) -> bool {
    const LOCAL: [u32; 8] = [
        0x0000_ef53, // ext2, ext3, ext4
        0x5846_5342, // xfs
        0x9123_683e, // btrfs
        0x0102_1994, // tmpfs
        0x2fc1_2fc1, // zfs
        0xf2f5_2010, // f2fs
        0xca45_1a4e, // bcachefs
        0x794c_7630, // overlayfs
    ];
    rustix::fs::fstatfs(fd).is_ok_and(|stat| {
        let magic = stat.f_type as u32;
        LOCAL.contains(&magic)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat_of_age(seconds: u64) -> Statx {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut stat = crate::sys::at::stat_fd(file.as_file()).unwrap();
        stat.stx_mtime.tv_sec -= seconds.cast_signed();
        stat.stx_ctime.tv_sec -= seconds.cast_signed();
        stat
    }

    #[test]
    fn ttl_grows_with_time_since_change() {
        assert_eq!(unchanged_for(&stat_of_age(0)), SHORT_TTL);
        let some = unchanged_for(&stat_of_age(20));
        assert!((9..=11).contains(&some.as_secs()), "{some:?}");
        assert_eq!(unchanged_for(&stat_of_age(100_000)), UNCHANGED_TTL_MAX);
        let mut future = stat_of_age(0);
        future.stx_mtime.tv_sec += 1000;
        assert_eq!(unchanged_for(&future), SHORT_TTL);
    }

    #[test]
    fn only_disk_file_systems_are_local() {
        let directory = tempfile::tempdir().unwrap();
        assert!(is_local(std::fs::File::open(directory.path()).unwrap()));
        assert!(!is_local(std::fs::File::open("/proc").unwrap()));
    }
}
