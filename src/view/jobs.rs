//! Lists the jobs of a location.

use std::ffi::OsString;
use std::fmt::{Display, Formatter};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::{Errno, Result as SysResult};

use super::Location;
use super::location::explain;
use crate::sys::at;
use crate::workspace::jobs::{JobId, is_job_entry};

/// A task's directory whose jobs could not be listed.
#[derive(Debug, PartialEq, Eq)]
pub struct Unlisted {
    /// Where it is.
    path: PathBuf,
    /// The error; `None` if it is a symlink, which leads out of its location.
    errno: Option<Errno>,
}

impl Unlisted {
    /// A symlink in the place of a task's directory. No symlink is followed on the way to a job, because the job could then be
    /// written to a place that no other process reads.
    #[must_use]
    pub fn linked(path: PathBuf) -> Unlisted {
        Unlisted { path, errno: None }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The error; `None` if it is a symlink.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }

    /// A directory that cannot be read.
    pub(super) fn failed(path: PathBuf, errno: Errno) -> Unlisted {
        let errno = Some(errno);
        Unlisted { path, errno }
    }
}

impl Display for Unlisted {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let path = self.path.display();
        match self.errno {
            Some(errno) => write!(f, "cannot read {path}: {}", explain(errno)),
            None => write!(
                f,
                "{path} is a symlink, and jobs behind it are skipped: put the directory itself in its place"
            ),
        }
    }
}

impl Location {
    /// Its jobs, in order, without deleted ones; those of the primary include moved jobs. And the directories of tasks that could not be listed.
    ///
    /// # Errors
    ///
    /// The location cannot be opened, or its tasks cannot be listed.
    pub fn jobs(&self) -> SysResult<(Vec<JobId>, Vec<Unlisted>)> {
        let root = self.root()?;
        let (mut jobs, mut unlisted) = (Vec::new(), Vec::new());
        let Some(directory) = at::absent(root.jobs())? else {
            return Ok((jobs, unlisted));
        };
        for task in names(&*directory)? {
            let path = self.path().join("jobs").join(&task);
            if at::stat(&*directory, &task).is_ok_and(|stat| at::is_symlink(&stat)) {
                unlisted.push(Unlisted::linked(path));
                continue;
            }
            let listed = root.task(&task).and_then(|task| names(&*task));
            match at::absent(listed) {
                // A file is not a task, and has no jobs.
                Ok(hashes) => {
                    let hashes = hashes.into_iter().flatten();
                    let hashes = hashes.filter(|hash| !self.has_deleted(&task, hash));
                    jobs.extend(hashes.filter_map(|hash| JobId::new(&task, hash).ok()));
                }
                Err(errno) => unlisted.push(Unlisted {
                    path,
                    errno: Some(errno),
                }),
            }
        }
        Ok((jobs, unlisted))
    }
}

/// The names in a directory that may be a task's or a job's, in order.
///
/// # Errors
///
/// It cannot be listed.
pub fn names(directory: impl AsFd) -> SysResult<Vec<OsString>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
    let mut found = Vec::new();
    for entry in Dir::new(opened)? {
        let entry = entry?;
        let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
        if is_job_entry(&name) {
            found.push(name);
        }
    }
    found.sort_unstable();
    Ok(found)
}
