//! The internal files of a job that a folder serves: in `<primary>/.xpmfs/internal/<task_id>/<hash>/`, laid out as in the
//! job.
//!
//! experimaestro opens and locks `<name>.lock` in every job of a plan that is run again. Because these files are separate,
//! such a run over archived jobs neither changes an archive nor copies one back.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::Mode;
use rustix::io::Result;

use super::View;
use crate::sys::name::Name;
use crate::sys::{at, shared_dir};
use crate::workspace::internal::{Class, classify, classify_nested, is_bookkeeping};
use crate::workspace::{jobs, layout};

/// A directory of a job that can have internal files in it.
#[derive(Debug, Clone)]
pub struct JobDir {
    /// The job's task.
    pub task: Name,
    /// The job's hash.
    pub hash: Name,
    /// Whether it is `.experimaestro/` in the job, where older layouts have the lock, and not the
    /// job's own directory.
    pub nested: bool,
}

impl JobDir {
    /// Whether an entry is an internal file; `directory`: it is a directory; `size`: in bytes.
    pub fn is_internal(&self, name: &OsStr, directory: bool, size: Option<u64>) -> bool {
        let job = jobs::name(&self.task).as_bytes();
        if !self.nested {
            return classify(name.as_bytes(), job, directory, size).is_internal();
        }
        let bookkeeping = !directory && is_bookkeeping(name.as_bytes());
        bookkeeping || classify_nested(name.as_bytes(), job, directory, size).is_internal()
    }

    /// Whether an internal file is one only as long as it is empty: a `*.lock` with content is the
    /// user's data, such as `uv.lock`.
    pub fn is_only_while_empty(&self, name: &OsStr) -> bool {
        let job = jobs::name(&self.task).as_bytes();
        let classify = match self.nested {
            true => classify_nested,
            false => classify,
        };
        classify(name.as_bytes(), job, false, None) == Class::EmptyLock
    }

    /// The directory of its internal files, from the top of the primary.
    fn path(&self) -> impl Iterator<Item = &OsStr> + Clone {
        let nested = self.nested.then_some(OsStr::new(layout::JOB_STATE));
        [
            layout::XPMFS.as_ref(),
            layout::INTERNAL_DIR.as_ref(),
            &*self.task,
            &*self.hash,
        ]
        .into_iter()
        .chain(nested)
    }
}

impl View {
    /// The directory of a job's internal files, if it has been made.
    ///
    /// # Errors
    ///
    /// An error of the primary's file system, except that it is missing.
    pub fn internal_dir(&self, holder: &JobDir) -> Result<Option<OwnedFd>> {
        let root = self.primary().root()?;
        at::absent(shared_dir::open_shared(root.fd(), holder.path()))
    }

    /// The directory of a job's internal files, made if missing, with the mode of the primary's own directory: users who may
    /// write to the workspace may lock its jobs.
    ///
    /// # Errors
    ///
    /// An error of the primary's file system.
    pub fn make_internal_dir(&self, holder: &JobDir) -> Result<OwnedFd> {
        let root = self.primary().root()?;
        let own = rustix::fs::fstat(root.fd())?;
        let rights = Mode::from_raw_mode(own.st_mode & 0o7777);
        let mut dir = rustix::io::fcntl_dupfd_cloexec(root.fd(), 0)?;
        for name in holder.path() {
            // If another process is making the parent, its group may not be the workspace's yet.
            dir = shared_dir::make_shared(&dir, name, own.st_gid, rights)?;
        }
        Ok(dir)
    }

    /// The directory of all jobs' internal files.
    ///
    /// # Errors
    ///
    /// An error of the primary's file system.
    pub fn internal_top(&self) -> Result<OwnedFd> {
        let root = self.primary().root()?;
        let names = [layout::XPMFS, layout::INTERNAL_DIR].map(OsStr::new);
        shared_dir::open_shared(root.fd(), names.into_iter())
    }
}
