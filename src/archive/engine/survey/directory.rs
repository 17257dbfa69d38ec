//! Detects whether a directory has changed, and reads its entries.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Mode, OFlags, Statx};
use rustix::io::Result;

use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::read_dir::{self, EntryBuffer};
use crate::workspace::jobs;
use crate::workspace::layout::STAGING_PREFIX;

/// A disk's timestamps move on at least this often.
const GRANULARITY: Duration = Duration::from_secs(2);

/// Clocks of machines that share a disk differ less than this.
const SKEW: Duration = Duration::from_secs(10 * 60);

/// Distinguishes the states of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::archive::engine) struct DirectoryStamp {
    identity: FileId,
    mtime: (i64, u32),
    ctime: (i64, u32),
}

impl From<&Statx> for DirectoryStamp {
    fn from(stat: &Statx) -> DirectoryStamp {
        let (mtime, ctime) = (&stat.stx_mtime, &stat.stx_ctime);
        DirectoryStamp {
            identity: FileId::of(stat),
            mtime: (mtime.tv_sec, mtime.tv_nsec),
            ctime: (ctime.tv_sec, ctime.tv_nsec),
        }
    }
}

impl DirectoryStamp {
    /// Whether it is so old, by this machine's clock, that a change now would make another stamp.
    fn is_old(&self, wall: SystemTime) -> bool {
        let now = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let latest = self.mtime.max(self.ctime).0;
        let quiet = now.saturating_sub(SKEW).as_secs();
        u64::try_from(latest).is_ok_and(|latest| latest < quiet) || latest < 0
    }
}

/// Decides whether a directory must be listed again.
///
/// Timestamps are coarse, and a directory may change again within one tick of its disk's clock. So a listing is
/// believed only if the directory had been seen with the same stamp long enough before. This goes by the time that
/// passes here, and not by the disk's clock, which may be another machine's and wrong.
#[derive(Debug, Default)]
pub(in crate::archive::engine) struct Watched {
    stamp: Option<DirectoryStamp>,
    since: Option<Instant>,
    believed: bool,
}

impl Watched {
    /// Notes the directory's state (`None`: it is not there), and returns whether it must be listed.
    pub(in crate::archive::engine) fn update(
        &mut self,
        stamp: Option<DirectoryStamp>,
        now: Instant,
    ) -> bool {
        if self.since.is_none() || self.stamp != stamp {
            *self = Watched {
                stamp,
                since: Some(now),
                // A missing directory has no entries, and gets a stamp when it appears.
                believed: false,
            };
        }
        !self.believed
    }

    /// Notes that the directory was listed completely after the update at `now`.
    pub(in crate::archive::engine) fn listed(&mut self, now: Instant, wall: SystemTime) {
        let known = self
            .since
            .is_some_and(|since| now.saturating_duration_since(since) > GRANULARITY);
        self.believed = known || self.stamp.is_none_or(|stamp| stamp.is_old(wall));
    }

    /// Makes the next check list the directory again.
    pub(in crate::archive::engine) fn invalidate(&mut self) {
        self.believed = false;
    }
}

const READ: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The state of the directory `name` in `dir`; `None` if it is not a directory.
///
/// # Errors
///
/// As `statx`, except that a missing directory is not an error.
pub(in crate::archive::engine) fn stamp(
    dir: impl AsFd,
    name: &OsStr,
) -> Result<Option<DirectoryStamp>> {
    let stat = at::absent(at::stat(dir, name))?;
    Ok(stat
        .filter(at::is_dir)
        .map(|stat| DirectoryStamp::from(&stat)))
}

/// Opens the directory `name` in `dir`, or `dir` itself (`.`), for reading.
///
/// # Errors
///
/// As `openat`.
pub(in crate::archive::engine) fn open(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    rustix::fs::openat(dir, name, READ, Mode::empty())
}

/// An entry that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::archive::engine) enum JobEntry<'a> {
    /// A directory that may be a task's or a job's.
    Directory(&'a OsStr),
    /// A symlink in the place of one.
    Symlink(&'a OsStr),
    /// A guard or a directory of a staged copy, in progress or abandoned.
    Staging,
}

/// Reads the next entries of an open directory, as many as the kernel returns at a time. Returns false at the end.
///
/// # Errors
///
/// As `getdents`.
pub(in crate::archive::engine) fn read_on(
    fd: impl AsFd,
    mut each: impl FnMut(JobEntry<'_>),
) -> Result<bool> {
    let fd = fd.as_fd();
    read_dir::read_once(fd, &mut EntryBuffer::default(), |entry| {
        let name = entry.name();
        if name.as_bytes().starts_with(STAGING_PREFIX.as_bytes()) {
            return each(JobEntry::Staging);
        }
        let kind = match entry.kind() {
            FileType::Unknown => at::stat(fd, name).map_or(FileType::Unknown, |stat| {
                FileType::from_raw_mode(stat.stx_mode.into())
            }),
            kind => kind,
        };
        match kind {
            FileType::Directory if jobs::is_job_entry(name) => each(JobEntry::Directory(name)),
            FileType::Symlink if jobs::is_job_entry(name) => each(JobEntry::Symlink(name)),
            _ => {}
        }
    })
}

/// Reads a directory to its end; see [`read_on`].
///
/// # Errors
///
/// As `getdents`.
pub(in crate::archive::engine) fn read(
    fd: impl AsFd,
    mut each: impl FnMut(JobEntry<'_>),
) -> Result<()> {
    while read_on(&fd, &mut each)? {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp_at(seconds: i64) -> Option<DirectoryStamp> {
        Some(DirectoryStamp {
            identity: FileId::UNKNOWN,
            mtime: (seconds, 5),
            ctime: (seconds, 5),
        })
    }

    #[test]
    fn a_listing_is_believed_if_the_stamp_would_show_any_change() {
        let (start, wall) = (Instant::now(), UNIX_EPOCH + Duration::from_secs(100_000));
        let at = |seconds| start + Duration::from_secs(seconds);
        // Just changed; long ago; on a disk whose clock is ahead, and behind by less than clocks may be.
        for (stamp, believed) in [
            (stamp_at(100_000), false),
            (stamp_at(1), true),
            (stamp_at(-1), true),
            (stamp_at(9_000_000), false),
            (stamp_at(100_000 - 500), false),
            (None, true),
        ] {
            let mut watched = Watched::default();
            assert!(watched.update(stamp, at(0)));
            watched.listed(at(0), wall);
            assert_eq!(!watched.update(stamp, at(1)), believed, "{stamp:?}");
            watched.listed(at(1), wall);
            assert_eq!(!watched.update(stamp, at(3)), believed, "{stamp:?}");
            watched.listed(at(3), wall);
            assert!(!watched.update(stamp, at(4)), "{stamp:?}");
            assert!(watched.update(stamp_at(100_001), at(4)));
        }
    }

    #[test]
    fn only_directories_that_can_be_jobs_are_read() {
        let top = tempfile::tempdir().unwrap();
        for name in ["a", "b", ".tmp.c"] {
            std::fs::create_dir(top.path().join(name)).unwrap();
        }
        std::fs::write(top.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("a", top.path().join("moved")).unwrap();
        let odd = OsStr::from_bytes(b"\xff");
        std::fs::create_dir(top.path().join(odd)).unwrap();
        let dir = std::fs::File::open(top.path()).unwrap();
        let mut names = Vec::new();
        let (mut staging, mut linked) = (0, Vec::new());
        read(&dir, |entry| match entry {
            JobEntry::Directory(name) => names.push(name.to_owned()),
            JobEntry::Staging => staging += 1,
            JobEntry::Symlink(name) => linked.push(name.to_owned()),
        })
        .unwrap();
        names.sort();
        assert_eq!(names, [OsStr::new("a"), OsStr::new("b"), odd]);
        assert_eq!((staging, linked), (1, vec![OsStr::new("moved").to_owned()]));
    }
}
