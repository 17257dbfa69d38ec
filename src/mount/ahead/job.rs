//! Reading a job for the page cache alone.

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

/// Directories in a job that are read with it.
const BELOW_MAX: usize = 4;

/// A job to be read.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) source: Arc<OwnedFd>,
    pub(super) task: Name,
    pub(super) name: Name,
    pub(super) kind: FileType,
}

/// Jobs to look at whether they are finished.
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
            // What it says is asked again when it matters.
            let _ = markers::is_done(job, jobs::name(&self.task));
        }
        Ok(())
    }
}

impl Job {
    /// Reads the directories of a job, wherever it is.
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

/// Reads what a walk would: the names in a job's directories, and the attributes of what has them.
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
        // It may have gone.
        let _ = at::stat(dir, entry.name());
        if entry.kind() == FileType::Directory && below.len() < BELOW_MAX {
            below.push(entry.name().into());
        }
    })?;
    Ok(below)
}
