//! Directories that the view shows because a folder has them, made in the primary when something
//! is to be put there.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::Mode;
use rustix::io::{Errno, Result};

use super::{View, beneath};

impl View {
    /// The primary's `jobs/`, made if need be.
    ///
    /// # Errors
    ///
    /// What the primary's file system gave.
    pub fn make_jobs(&self) -> Result<Arc<OwnedFd>> {
        let root = self.primary().root()?;
        match root.jobs() {
            Err(Errno::NOENT) => {
                make(root.fd(), OsStr::new("jobs"))?;
                root.jobs()
            }
            result => result,
        }
    }

    /// The primary's `jobs/<task>/`, made if need be.
    ///
    /// # Errors
    ///
    /// What the primary's file system gave.
    pub fn make_task(&self, task: &OsStr) -> Result<OwnedFd> {
        // Not a kept one: what is made in a directory that was removed meanwhile is lost.
        let jobs = self.make_jobs()?;
        match beneath::open_dir(&jobs, task) {
            Err(Errno::NOENT) => {
                make(&jobs, task)?;
                beneath::open_dir(&jobs, task)
            }
            result => result,
        }
    }
}

/// Makes a directory as any program would, the umask deciding; another may have been faster.
fn make(dir: impl AsFd, name: &OsStr) -> Result<()> {
    match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o777)) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}
