//! Where the internal files of a job live that a folder serves:
//! `<primary>/.xpmfs/internal/<task_id>/<hash>/`.
//!
//! experimaestro opens and locks `<name>.lock` in every job of a plan that is run again. Kept apart
//! like this, such a run over archived jobs neither touches an archive nor copies one back.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

use super::{View, beneath};

/// The directory at the top of a primary that holds the state of xpmfs.
pub const STATE_DIR: &str = ".xpmfs";

const INTERNAL_DIR: &str = "internal";

impl View {
    /// The directory of a job's internal files, if it has been made.
    ///
    /// # Errors
    ///
    /// What the primary's file system gave, other than that there is none.
    pub fn internal_dir(&self, task: &OsStr, hash: &OsStr) -> Result<Option<OwnedFd>> {
        let root = self.primary().root()?;
        let path = internal_path(task, hash);
        let Some(mut dir) = beneath::absent(beneath::open_dir(root.fd(), path[0]))? else {
            return Ok(None);
        };
        for name in &path[1..] {
            dir = match beneath::absent(beneath::open_dir(&dir, name))? {
                Some(next) => next,
                None => return Ok(None),
            };
        }
        Ok(Some(dir))
    }

    /// The directory of a job's internal files, made if need be, with the rights of the primary's
    /// own directory: whoever may work in the workspace may lock its jobs.
    ///
    /// # Errors
    ///
    /// What the primary's file system gave.
    pub fn make_internal_dir(&self, task: &OsStr, hash: &OsStr) -> Result<OwnedFd> {
        let root = self.primary().root()?;
        let rights = Mode::from_raw_mode(rustix::fs::fstat(root.fd())?.st_mode & 0o7777);
        let mut dir = rustix::io::fcntl_dupfd_cloexec(root.fd(), 0)?;
        for name in internal_path(task, hash) {
            dir = make_dir(&dir, name, rights)?;
        }
        Ok(dir)
    }
}

fn internal_path<'a>(task: &'a OsStr, hash: &'a OsStr) -> [&'a OsStr; 4] {
    [STATE_DIR.as_ref(), INTERNAL_DIR.as_ref(), task, hash]
}

/// Opens a directory, and makes it with exactly these rights if there is none.
fn make_dir(dir: impl AsFd, name: &OsStr, rights: Mode) -> Result<OwnedFd> {
    if let Some(found) = beneath::absent(beneath::open_dir(&dir, name))? {
        return Ok(found);
    }
    match rustix::fs::mkdirat(&dir, name, rights) {
        Ok(()) => {
            // The umask is not the workspace's business here. Through a descriptor, so that nobody
            // can put a symlink in the way.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
            rustix::fs::fchmod(&made, rights)?;
        }
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    beneath::open_dir(&dir, name)
}
