//! Reads a job, only to bring it into the page cache.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::Result;

use crate::sys::at;
use crate::sys::name::Name;
use crate::sys::read_dir::{self, EntryBuffer};
use crate::view::View;
use crate::workspace::{jobs, markers};

/// Limit of subdirectories that are read with a job.
const BELOW_MAX: usize = 4;

/// A job that will be read.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) source: Arc<OwnedFd>,
    pub(super) task: Name,
    pub(super) name: Name,
    pub(super) kind: FileType,
}

/// Jobs to be checked for whether they are finished.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) source: Arc<OwnedFd>,
    pub(super) task: Name,
    pub(super) names: Vec<Name>,
}

impl Check {
    /// Looks for the jobs' markers.
    pub(super) fn read(&self) -> Result<()> {
        for name in &self.names {
            let job = at::open_dir(&self.source, name)?;
            // The result is not kept: the check is repeated when its result is needed.
            let _ = markers::is_done(job, jobs::name(&self.task));
        }
        Ok(())
    }
}

impl Job {
    /// Reads the directories of a job, in any location.
    pub(super) fn read(&self, view: &View) -> Result<()> {
        if self.kind == FileType::Directory {
            return read_job(&self.source, &self.name);
        }
        let Some(served) = view.resolve(&self.task, &self.name)? else {
            return Ok(());
        };
        match view.location(served.location()) {
            Some(location) => read_job(&*location.root()?.task(&self.task)?, &self.name),
            None => Ok(()),
        }
    }
}

/// Reads as much as a walk would: the names in a job's directories, and the attributes of the entries.
fn read_job(source: impl AsFd, name: &OsStr) -> Result<()> {
    let buffer = &mut EntryBuffer::default();
    let job = at::open_to_list(source, name)?;
    for name in read_directory(&job, buffer)? {
        let below = at::open_to_list(&job, &name)?;
        read_directory(&below, buffer)?;
    }
    Ok(())
}

/// Reads a directory, unless it is large, and returns the first directories in it.
fn read_directory(dir: &OwnedFd, buffer: &mut EntryBuffer) -> Result<Vec<Box<OsStr>>> {
    let mut below = Vec::new();
    read_dir::read_once(dir, buffer, |entry| {
        // The entry may have been removed.
        let _ = at::stat(dir, entry.name());
        if entry.kind() == FileType::Directory && below.len() < BELOW_MAX {
            below.push(entry.name().into());
        }
    })?;
    Ok(below)
}
