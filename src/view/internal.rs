//! Where the internal files of a job live that a folder serves:
//! `<primary>/.xpmfs/internal/<task_id>/<hash>/`, laid out as in the job.
//!
//! experimaestro opens and locks `<name>.lock` in every job of a plan that is run again. Kept apart
//! like this, such a run over archived jobs neither touches an archive nor copies one back.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::Mode;
use rustix::io::{Errno, Result};

use super::{Location, View};
use crate::sys::name::Name;
use crate::sys::{at, shared_dir};
use crate::workspace::internal::{Class, classify, classify_nested, is_bookkeeping};
use crate::workspace::{jobs, layout};

const INTERNAL_DIR: &str = "internal";
const INTERNAL_PATH: &str = ".xpmfs/internal";

/// A directory of a job that can have internal files in it.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The job's task.
    pub task: Name,
    /// The job's hash.
    pub hash: Name,
    /// Whether it is `.experimaestro/` in the job, where older layouts have the lock, and not the
    /// job's own directory.
    pub nested: bool,
}

impl Holder {
    /// Whether an entry is an internal file's, given what is there: whether it is a directory, and
    /// its size in bytes.
    pub fn is_internal(&self, name: &OsStr, directory: bool, size: Option<u64>) -> bool {
        let job = jobs::name(&self.task).as_bytes();
        if !self.nested {
            return classify(name.as_bytes(), job, directory, size).is_internal();
        }
        let bookkeeping = !directory && is_bookkeeping(name.as_bytes());
        bookkeeping || classify_nested(name.as_bytes(), job, directory, size).is_internal()
    }

    /// Whether an internal file is one only as long as it is empty: a `*.lock` that somebody writes
    /// into is the user's data, such as `uv.lock`.
    pub fn is_only_while_empty(&self, name: &OsStr) -> bool {
        let job = jobs::name(&self.task).as_bytes();
        let classify = match self.nested {
            true => classify_nested,
            false => classify,
        };
        classify(name.as_bytes(), job, false, None) == Class::EmptyLock
    }

    /// Where its internal files live, from the top of the primary.
    fn path(&self) -> impl Iterator<Item = &OsStr> + Clone {
        let nested = self.nested.then_some(OsStr::new(layout::JOB_STATE));
        [
            layout::XPMFS.as_ref(),
            INTERNAL_DIR.as_ref(),
            &*self.task,
            &*self.hash,
        ]
        .into_iter()
        .chain(nested)
    }
}

/// What there is in the primary in place of one of our own directories, by its name there; a symlink counts, too, since
/// it is never followed.
pub(super) fn in_the_way(primary: &Location) -> Option<&'static Path> {
    let root = primary.root().ok()?;
    let mut dir = rustix::io::fcntl_dupfd_cloexec(root.fd(), 0).ok()?;
    for (name, path) in [
        (layout::XPMFS, layout::XPMFS),
        (INTERNAL_DIR, INTERNAL_PATH),
    ] {
        match at::open_dir(&dir, OsStr::new(name)) {
            Ok(next) => dir = next,
            Err(Errno::NOTDIR) => return Some(Path::new(path)),
            Err(_) => return None,
        }
    }
    None
}

impl View {
    /// The directory of a job's internal files, if it has been made.
    ///
    /// # Errors
    ///
    /// What the primary's file system gave, other than that there is none.
    pub fn internal_dir(&self, holder: &Holder) -> Result<Option<OwnedFd>> {
        let root = self.primary().root()?;
        at::absent(at::open_dirs(root.fd(), holder.path()))
    }

    /// The directory of a job's internal files, made if need be, with the rights of the primary's
    /// own directory: whoever may work in the workspace may lock its jobs.
    ///
    /// # Errors
    ///
    /// What the primary's file system gave.
    pub fn make_internal_dir(&self, holder: &Holder) -> Result<OwnedFd> {
        let root = self.primary().root()?;
        let own = rustix::fs::fstat(root.fd())?;
        let rights = Mode::from_raw_mode(own.st_mode & 0o7777);
        let mut dir = rustix::io::fcntl_dupfd_cloexec(root.fd(), 0)?;
        for name in holder.path() {
            // The group of the directory that it is in may not be the workspace's yet, if another process is making that.
            dir = shared_dir::make_shared(&dir, name, own.st_gid, rights)?;
        }
        Ok(dir)
    }

    /// The directory that the directories of all jobs' internal files are in.
    ///
    /// # Errors
    ///
    /// What the primary's file system gave.
    pub fn internal_top(&self) -> Result<OwnedFd> {
        let root = self.primary().root()?;
        let names = [layout::XPMFS, INTERNAL_DIR].map(OsStr::new);
        at::open_dirs(root.fd(), names.into_iter())
    }
}
