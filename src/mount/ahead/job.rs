//! Reading a job for the page cache alone.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::Result;

use super::names::{open, read_once};
use crate::sys::at;
use crate::sys::name::Name;
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
    let job = open(source, name)?;
    for name in read_directory(&job)? {
        let below = open(&job, &name)?;
        read_directory(&below)?;
    }
    Ok(())
}

/// Reads a directory, unless it is large, and returns the first directories in it.
fn read_directory(dir: &OwnedFd) -> Result<Vec<Box<OsStr>>> {
    let mut below = Vec::new();
    read_once(dir, |name, kind| {
        // It may have gone.
        let _ = at::stat(dir, name);
        if kind == FileType::Directory && below.len() < BELOW_MAX {
            below.push(name.into());
        }
    })?;
    Ok(below)
}
