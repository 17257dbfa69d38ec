//! Records which files of a job were removed through a mount, on purpose.
//!
//! The record of a job is `<primary>/.xpmfs/archive/removed/<task_id>/<hash>`: paths in the job, each followed by a NUL byte. It is
//! durable before the first file is removed, so that neither a power cut nor another machine takes the removal for a purge. One path is
//! enough: the job is the primary's as long as that file is missing. A file that is there again, as after a recovery, has no effect, and
//! neither has one that the job's copy does not have.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

use crate::sys::at;
use crate::view::{Root, record_files};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{ARCHIVE, XPMFS};

/// The directory of the records, in `.xpmfs/archive`.
const REMOVED: &str = "removed";

/// The most bytes of a record that are read.
const BYTES_MAX: u64 = 1 << 20;

/// What was removed from a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Removed {
    paths: Vec<PathBuf>,
    /// The record is incomplete, as after a power cut: something was removed, and it is unknown what.
    unknown: bool,
}

impl Removed {
    /// Whether a file of this path that is missing was removed on purpose, itself or with its directory.
    pub(super) fn contains(&self, path: &Path) -> bool {
        self.unknown || self.paths.iter().any(|removed| path.starts_with(removed))
    }

    /// Whether nothing was removed.
    pub(super) fn is_empty(&self) -> bool {
        !self.unknown && self.paths.is_empty()
    }

    fn from_bytes(bytes: &[u8]) -> Removed {
        let mut paths: Vec<&[u8]> = bytes.split(|byte| *byte == 0).collect();
        // What follows the last NUL.
        let rest = paths.pop().unwrap_or_default();
        let known = paths.iter().filter(|path| !path.is_empty());
        let known = known.map(|path| PathBuf::from(OsString::from_vec(path.to_vec())));
        Removed {
            unknown: !rest.is_empty() || paths.is_empty() || paths.iter().any(|it| it.is_empty()),
            paths: known.collect(),
        }
    }
}

/// Reads what was removed from a job.
pub(super) fn read(primary: &Root, job: &JobId) -> Result<Removed> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let Some(file) = at::absent(at::open_below(primary.fd(), &path(job), flags))? else {
        return Ok(Removed::default());
    };
    let mut bytes = Vec::new();
    let read = File::from(file).take(BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(Removed::from_bytes(&bytes))
}

/// Records that a file or directory of a job is removed, durably.
///
/// On a full disk the record may lack the path: then it is incomplete, and counts for all that is missing. A file without contents needs
/// no space but that of its name.
pub(super) fn note(primary: &Root, job: &JobId, removed: &Path) -> Result<()> {
    let dir = record_files::make_dir(primary, REMOVED, job.task_id())?;
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&dir, job.hash(), flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            let mode = Mode::RUSR | Mode::WUSR;
            let made = rustix::fs::openat(&dir, job.hash(), flags | OFlags::CREATE, mode)?;
            record_files::share(primary, &dir, &made)?;
            made
        }
        opened => opened?,
    };
    let mut bytes = removed.as_os_str().as_bytes().to_vec();
    bytes.push(0);
    // Where blocks are allocated late, `fsync` fails.
    let written = record_files::write_all(&file, &bytes).and_then(|()| rustix::fs::fsync(&file));
    match written {
        Err(Errno::NOSPC | Errno::DQUOT) => {
            rustix::fs::ftruncate(&file, 0)?;
            rustix::fs::fsync(&file)?;
        }
        written => written?,
    }
    let list = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = rustix::fs::openat(&dir, OsStr::new("."), list, Mode::empty())?;
    rustix::fs::fsync(listed)
}

/// Removes the record of a job.
pub(super) fn forget(primary: &Root, job: &JobId) -> Result<()> {
    record_files::unlink(primary, REMOVED, job)
}

/// The path of the record of a job, from the top of the primary.
fn path(job: &JobId) -> PathBuf {
    let mut path = PathBuf::from(XPMFS);
    path.extend([
        OsStr::new(ARCHIVE),
        OsStr::new(REMOVED),
        job.task_id(),
        job.hash(),
    ]);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_directories_contain_their_files_and_an_incomplete_record_contains_all() {
        let removed = Removed::from_bytes(b"a/b\0c\0");
        for (path, contained) in [("a/b", true), ("a/b/x", true), ("c", true), ("a", false)] {
            assert_eq!(removed.contains(Path::new(path)), contained, "{path}");
        }
        for damaged in [&b""[..], b"\0\0\0", b"a\0b"] {
            let removed = Removed::from_bytes(damaged);
            assert!(removed.contains(Path::new("any")), "{damaged:?}");
        }
        assert!(Removed::default().is_empty());
    }
}
