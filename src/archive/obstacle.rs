//! Explains `ENOTDIR`: finds the file or symlink that is in the place of an expected directory. Called only after a failure.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::places;
use crate::sys::at;
use crate::view::{Location, Root};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{JOBS, XPMFS};

/// An entry that is in the place of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    path: PathBuf,
    /// `a file`, `a symlink to …`.
    what: String,
    /// Whether it is a symlink.
    pub(super) is_link: bool,
    /// Whether it affects all jobs of the location.
    pub(super) of_all: bool,
}

impl Obstacle {
    /// The same obstacle, as one that affects all jobs.
    pub(super) fn of_every_job(self) -> Obstacle {
        Obstacle {
            of_all: true,
            ..self
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {}, where a directory should be: move it away for the next try",
            self.path.display(),
            self.what
        )
    }
}

/// The obstacle in the path of a job's directory in a location, if any.
#[must_use]
pub fn of(location: &Location, job: &JobId) -> Option<Obstacle> {
    let root = location.root().ok()?;
    let names = [job.task_id(), job.hash()];
    if let Ok(jobs) = root.jobs() {
        let path = places::path(location, job);
        let path = path.parent()?.parent()?.to_owned();
        return first(jobs.as_fd(), path, &names);
    }
    let path = location.path().to_owned();
    let found = first(root.fd(), path, &[OsStr::new(JOBS)])?;
    Some(found.of_every_job())
}

/// The obstacle in the path of a job's manifest in a folder with the directory `root`, if any.
pub(super) fn of_manifest(folder: &Location, root: &Root, job: &JobId) -> Option<Obstacle> {
    let own = [OsStr::new(XPMFS), OsStr::new(places::MANIFESTS)];
    let names = [own.as_slice(), &[job.task_id()]].concat();
    let found = first(root.fd(), folder.path().to_owned(), &names)?;
    let of_all = !found.path.ends_with(job.task_id());
    Some(Obstacle { of_all, ..found })
}

/// The obstacle in the path of nested directories in a location with the directory `root`, if any.
pub(super) fn in_path(location: &Location, root: &Root, names: &[&OsStr]) -> Option<Obstacle> {
    first(root.fd(), location.path().to_owned(), names)
}

/// The obstacle in the path of a directory below a location's `.xpmfs`, if any.
pub(super) fn of_own(location: &Location, names: &[&OsStr]) -> Option<Obstacle> {
    let root = location.root().ok()?;
    let names = [&[OsStr::new(XPMFS)], names].concat();
    first(root.fd(), location.path().to_owned(), &names)
}

/// The first of several nested names that exists and is not a directory.
fn first(dir: BorrowedFd<'_>, mut path: PathBuf, names: &[&OsStr]) -> Option<Obstacle> {
    let mut held: Option<OwnedFd> = None;
    for name in names {
        path.push(name);
        let dir = held.as_ref().map_or(dir, AsFd::as_fd);
        match at::open_dir(dir, name) {
            Ok(fd) => held = Some(fd),
            Err(Errno::NOTDIR) => {
                let what = what(dir, name)?;
                return Some(Obstacle {
                    path,
                    is_link: what.starts_with(LINK),
                    what,
                    of_all: false,
                });
            }
            Err(_) => return None,
        }
    }
    None
}

const LINK: &str = "a symlink";

fn what(dir: BorrowedFd<'_>, name: &OsStr) -> Option<String> {
    let itself = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let there = rustix::fs::openat(dir, name, itself, Mode::empty()).ok()?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&there).ok()?.st_mode);
    Some(match kind {
        FileType::RegularFile => "a file".to_owned(),
        FileType::Symlink => match rustix::fs::readlinkat(&there, "", Vec::new()) {
            Ok(target) => format!("{LINK} to {}", target.to_string_lossy()),
            Err(_) => LINK.to_owned(),
        },
        FileType::Fifo => "a fifo".to_owned(),
        FileType::Socket => "a socket".to_owned(),
        FileType::Directory => return None,
        _ => "a device".to_owned(),
    })
}
