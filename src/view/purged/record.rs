//! Records how a job compares with its copies, and the times on which that depends.
//!
//! The record of a job is `<primary>/.xpmfs/archive/stamps/<task_id>/<hash>`. It has the modification time and the change time
//! of each directory of the job; if the job is purged, of each file that is left as well. While these are the same, no file was
//! added, removed or changed since. Without a record, or with one that is damaged, the job is compared again.
//!
//! A disk may keep times in whole seconds: a file that is removed in the second in which its directory was last changed leaves the
//! time as it is. So a record is written only if the directories had been unchanged for longer than that ([`PurgedRecord::is_settled`]).

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags, Statx};
use rustix::io::{Errno, Result};

use crate::sys::at;
use crate::sys::disk_time::Time;
use crate::view::{Root, record_files};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{ARCHIVE, STAMPS, XPMFS};

/// The first line of a record.
const HEAD: &str = "xpmfs-stamps 1";

/// The last line: a record without it is incomplete.
const END: &[u8] = b"end\n";

/// The most entries of a record, and its most bytes. A job with more is compared each time.
const ENTRIES_MAX: usize = 1 << 14;
const BYTES_MAX: u64 = 4 << 20;

/// How long a directory must have been unchanged before its time shows every later change. Longer than the coarsest step of a disk's
/// times, and than the difference of two clocks.
const COARSE_SETTLED: Duration = Duration::from_secs(5);

/// The same for a disk whose times have fractions of a second.
const FINE_SETTLED: Duration = Duration::from_secs(1);

/// The times of an entry that change when it is changed; those of a directory, when a name in it is added or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stamp {
    mtime: Time,
    ctime: Time,
}

impl Stamp {
    pub(super) fn of(stat: &Statx) -> Stamp {
        Stamp {
            mtime: Time::of(stat.stx_mtime),
            ctime: Time::of(stat.stx_ctime),
        }
    }

    /// Whether every change from `now` on shows in the modification time.
    fn is_settled(&self, now: SystemTime) -> bool {
        let Time {
            seconds,
            nanoseconds,
        } = self.mtime;
        let at = Duration::new(u64::try_from(seconds).unwrap_or(0), nanoseconds);
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let settled = match nanoseconds % 10_000_000 {
            0 => COARSE_SETTLED,
            _ => FINE_SETTLED,
        };
        now.abs_diff(at) > settled
    }
}

/// How a job compares with its copies, as a record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PurgedVerdict {
    /// It is whole, or differs from its copies: the primary serves it.
    Living,
    /// It is what a purge has left.
    Purged {
        /// The folder that has the job: see [`folder_name`](crate::workspace::layout::folder_name).
        folder: String,
    },
}

/// How a job compares with its copies, and on what that depends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PurgedRecord {
    pub(super) verdict: PurgedVerdict,
    /// The entries, by their paths in the job; the empty path is the job's directory.
    pub(super) seen: Vec<(PathBuf, Stamp)>,
}

impl PurgedRecord {
    /// Whether every later change shows in the recorded times. `began`: when the comparison began.
    pub(super) fn is_settled(&self, began: SystemTime) -> bool {
        !self.seen.is_empty()
            && self.seen.len() <= ENTRIES_MAX
            && self.seen.iter().all(|(_, stamp)| stamp.is_settled(began))
    }

    /// Whether all entries still have the recorded times. `top` are the attributes of the job's directory, `dir`.
    pub(super) fn holds(&self, dir: impl AsFd, top: &Statx) -> bool {
        self.seen.iter().all(|(path, stamp)| {
            let now = match path.as_os_str().is_empty() {
                true => Stamp::of(top),
                false => match at::stat_below(&dir, path) {
                    Ok(stat) => Stamp::of(&stat),
                    Err(_) => return false,
                },
            };
            now == *stamp
        })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{HEAD}\n");
        match &self.verdict {
            PurgedVerdict::Living => text.push_str("living\n"),
            PurgedVerdict::Purged { folder } => {
                let _ = writeln!(text, "purged {folder}");
            }
        }
        let mut bytes = text.into_bytes();
        for (path, Stamp { mtime, ctime }) in &self.seen {
            let times = format!(
                "{}.{:09} {}.{:09} ",
                mtime.seconds, mtime.nanoseconds, ctime.seconds, ctime.nanoseconds
            );
            bytes.extend_from_slice(times.as_bytes());
            bytes.extend_from_slice(path.as_os_str().as_bytes());
            // The one byte that no path has.
            bytes.push(0);
        }
        bytes.extend_from_slice(END);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<PurgedRecord> {
        let rest = bytes.strip_prefix(HEAD.as_bytes())?.strip_prefix(b"\n")?;
        let line = rest.iter().position(|byte| *byte == b'\n')?;
        let (verdict, entries) = rest.split_at_checked(line)?;
        let verdict = match std::str::from_utf8(verdict).ok()? {
            "living" => PurgedVerdict::Living,
            verdict => PurgedVerdict::Purged {
                folder: verdict.strip_prefix("purged ")?.to_owned(),
            },
        };
        let entries = entries.strip_prefix(b"\n")?.strip_suffix(END)?;
        let mut seen = Vec::new();
        for entry in entries.split_inclusive(|byte| *byte == 0) {
            let mut parts = entry.strip_suffix(b"\0")?.splitn(3, |byte| *byte == b' ');
            let (mtime, ctime) = (time(parts.next()?)?, time(parts.next()?)?);
            let path = OsString::from_vec(parts.next()?.to_vec());
            seen.push((PathBuf::from(path), Stamp { mtime, ctime }));
        }
        (!seen.is_empty()).then_some(PurgedRecord { verdict, seen })
    }
}

fn time(text: &[u8]) -> Option<Time> {
    let (seconds, nanoseconds) = std::str::from_utf8(text).ok()?.split_once('.')?;
    Some(Time {
        seconds: seconds.parse().ok()?,
        nanoseconds: nanoseconds.parse().ok()?,
    })
}

/// Reads the record of a job; `None` if there is none that can be used.
pub(super) fn read(primary: &Root, job: &JobId) -> Option<PurgedRecord> {
    let file = at::open_below(primary.fd(), &path(job), OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
    let mut bytes = Vec::with_capacity(1024);
    let mut file = File::from(file).take(BYTES_MAX);
    file.read_to_end(&mut bytes).ok()?;
    PurgedRecord::from_bytes(&bytes)
}

/// The directory of the records of a task's jobs, if it exists.
pub(super) fn dir_of_task(primary: &Root, task: &OsStr) -> Option<OwnedFd> {
    let names = [XPMFS, ARCHIVE, STAMPS].map(OsStr::new);
    at::open_dirs(primary.fd(), names.into_iter().chain([task])).ok()
}

/// Whether a job has a record: whether a folder has, or had, a copy of it.
pub(super) fn exists(primary: &Root, job: &JobId) -> bool {
    at::open_below(primary.fd(), &path(job), OFlags::PATH).is_ok()
}

/// Writes the record of a job, atomically. It need not be durable.
pub(super) fn write(primary: &Root, job: &JobId, record: &PurgedRecord) -> Result<()> {
    let bytes = record.to_bytes();
    if bytes.len() as u64 >= BYTES_MAX {
        return Err(Errno::FBIG);
    }
    let dir = record_files::make_dir(primary, STAMPS, job.task_id())?;
    let thread = std::thread::current().id();
    let mut staged = OsString::from(format!(".new-{}-{thread:?}-", std::process::id()));
    // Shortened, since a hash may be as long as the file system allows.
    staged.push(blake3::hash(job.hash().as_bytes()).to_hex().as_str());
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&dir, &staged, flags, Mode::RUSR | Mode::WUSR)?;
    let written = record_files::share(primary, &dir, &file)
        .and_then(|()| record_files::write_all(&file, &bytes))
        .and_then(|()| rustix::fs::renameat(&dir, &staged, &dir, job.hash()));
    if written.is_err() {
        let _ = rustix::fs::unlinkat(&dir, &staged, AtFlags::empty());
    }
    written
}

/// Removes the record of a job.
pub(super) fn forget(primary: &Root, job: &JobId) -> Result<()> {
    record_files::unlink(primary, STAMPS, job)
}

/// The path of the record of a job, from the top of the primary.
fn path(job: &JobId) -> PathBuf {
    let mut path = PathBuf::from(XPMFS);
    path.extend([
        OsStr::new(ARCHIVE),
        OsStr::new(STAMPS),
        job.task_id(),
        job.hash(),
    ]);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(seconds: i64, nanoseconds: u32) -> Stamp {
        let mtime = Time {
            seconds,
            nanoseconds,
        };
        Stamp {
            mtime,
            ctime: mtime,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_not_if_it_is_damaged() {
        let weird = OsString::from_vec(b"a b\n\xff/c".to_vec());
        let seen = vec![
            (PathBuf::new(), stamp(-5, 7)),
            (PathBuf::from(weird), stamp(1_700_000_000, 999_999_999)),
        ];
        let folder = "ab".to_owned();
        for verdict in [PurgedVerdict::Living, PurgedVerdict::Purged { folder }] {
            let record = PurgedRecord {
                verdict,
                seen: seen.clone(),
            };
            let bytes = record.to_bytes();
            assert_eq!(PurgedRecord::from_bytes(&bytes), Some(record));
            for length in 0..bytes.len() {
                assert_eq!(PurgedRecord::from_bytes(&bytes[..length]), None, "{length}");
            }
            assert_eq!(PurgedRecord::from_bytes(&vec![0; bytes.len()]), None);
        }
    }

    #[test]
    fn times_that_may_hide_a_later_change_are_not_settled() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for (seconds, nanoseconds, settled) in [
            (1_699_999_990, 0, true),
            (1_699_999_998, 0, false),
            (1_699_999_998, 123_456_789, true),
            (1_699_999_999, 923_456_789, false),
            (1_700_000_000, 0, false),
            (1_700_000_900, 0, true),
        ] {
            let stamp = stamp(seconds, nanoseconds);
            assert_eq!(stamp.is_settled(now), settled, "{stamp:?}");
        }
    }
}
