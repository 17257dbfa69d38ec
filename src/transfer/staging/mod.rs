//! Where a copy grows beside its place, and how it gets there: `.tmp.<hash>`, guarded by `flock` on `.tmp.<hash>.lock`.
//!
//! - [`Staging`]: the right to make, replace or take away one job's directory
//! - `lock`: the lock; `names`: what all these are called; `rename`: renames where a file system lacks some
//! - `exchange`: one thing put in the place of another; `leftover`: what a crash in the middle of that leaves
//! - `abandoned`: what another user has left, and this one cannot remove
//! - [`sweep`]: what dead owners have left; [`Error`]: what stops all this
//!
//! # Who else is at it
//!
//! Other daemons, which run this code; and experimaestro's `scheduler/folders.py` (2.7.0), which has the same names and locks.
//! It does not wait for a lock either, and removes every directory `.tmp.*` whose lock it can take. It removes the lock file
//! after it has let go, so that it may remove one that somebody has locked in between. Then a third
//! can have the lock as well. This is rare, cannot be prevented, and is noticed: [`Staging::holds`]. So a lock counts
//! only while its file is where it was; and what was put in its place while the lock was lost is told of
//! ([`Error::Lost`]), because somebody may have been removing files of it.
//!
//! Of two who run this code, none removes the other's lock file: it is removed before it is let go.

mod abandoned;
mod error;
mod exchange;
mod leftover;
mod lock;
mod names;
mod rename;
mod sweep;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::durable::sync_directory;
use super::error::SYMLINK;
use super::progress::Progress;
use super::remove::remove_tree;
use crate::sys::at;
use crate::sys::file_id::FileId;
use error::Context;
pub use error::{Error, Result};
pub use exchange::Exchanged;
use lock::Lock;
use names::Names;
pub use sweep::{sweep, sweep_with};

/// The right to make, replace or take away `<hash>` in a task's directory, and what is staged for it. Nobody else who
/// keeps to the protocol has it at the same time.
///
/// Dropping removes what is staged, then the lock file, and lets go, as [`Staging::finish`] does, but tells nobody.
#[derive(Debug)]
pub struct Staging {
    task: OwnedFd,
    names: Names,
    lock: Lock,
    /// What stands under `.tmp.<hash>`, as far as it is known.
    staged: Option<Held>,
    /// What was put under `<hash>`.
    placed: Option<Held>,
    finished: bool,
}

/// A file held open, so that no other can have its inode number.
#[derive(Debug)]
struct Held {
    _fd: OwnedFd,
    identity: FileId,
}

impl Held {
    fn new(fd: impl AsFd) -> rustix::io::Result<Held> {
        Ok(Held {
            identity: FileId::of(&at::stat_fd(&fd)?),
            _fd: rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), 0)?,
        })
    }
}

impl Staging {
    /// Takes the right to `hash` in a task's directory (`O_PATH` will do), without waiting; `None` if somebody has it. What an
    /// exchange that was broken off has left there is put in order. The lock file gets the rights to read and write that
    /// the directory has, as experimaestro's with its lock mode `inherit`.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] for what cannot be a job's name, or is too long for a staging; [`Error::NotALock`] if something else
    /// is in the lock file's place; [`Error::Io`]: `ENOENT` if the directory is gone, `EACCES` if the lock file is
    /// another user's who does not share it.
    pub fn take(task: impl AsFd, hash: &OsStr) -> Result<Option<Staging>> {
        let names = Names::of(hash)?;
        let Some(lock) = Lock::take(&task, &names)? else {
            return Ok(None);
        };
        let task = rustix::io::fcntl_dupfd_cloexec(task.as_fd(), 0);
        let staging = Staging {
            task: task.told("open", hash)?,
            names,
            lock,
            staged: None,
            placed: None,
            finished: false,
        };
        staging.settle()?;
        Ok(Some(staging))
    }

    /// Makes the directory `.tmp.<hash>` anew (mode 0700), and opens it. What a dead owner has left there is removed, or
    /// renamed if it is another user's; a symlink or a file there is, too, and leads nowhere.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]; [`Error::Remove`] if what is there cannot be removed; [`Error::Io`].
    pub fn make(&mut self) -> Result<OwnedFd> {
        self.free_name()?;
        self.forget()?;
        let name = &self.names.staging;
        rustix::fs::mkdirat(&self.task, name, Mode::RWXU).told("create", name)?;
        let fd = at::open_to_list(&self.task, name).told("open", name)?;
        self.staged = Some(Held::new(&fd).told("look at", name)?);
        Ok(fd)
    }

    /// Puts a symlink to `target` under `.tmp.<hash>`. What was there is removed, as by [`Staging::make`].
    ///
    /// # Errors
    ///
    /// As [`Staging::make`]; `ENAMETOOLONG` for the target.
    pub fn link(&mut self, target: &Path) -> Result<()> {
        self.free_name()?;
        self.forget()?;
        let name = &self.names.staging;
        rustix::fs::symlinkat(target, &self.task, name).told(SYMLINK, name)?;
        let itself = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.task, name, itself, Mode::empty()).told("open", name)?;
        self.staged = Some(Held::new(&fd).told("look at", name)?);
        Ok(())
    }

    /// Takes what a dead owner has left under `.tmp.<hash>`, given open, as what is staged: to put it in its place, where it was
    /// before.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn adopt(&mut self, left: impl AsFd) -> Result<()> {
        self.staged = Some(Held::new(left).told("look at", &self.names.staging)?);
        Ok(())
    }

    /// Whether the lock is still ours, and `.tmp.<hash>` what [`Staging::make`] or [`Staging::link`] has put there.
    ///
    /// # Errors
    ///
    /// What `statx` gives.
    pub fn holds(&self) -> io::Result<bool> {
        if !self.lock.is_there(&self.task)? {
            return Ok(false);
        }
        match &self.staged {
            Some(staged) => Ok(self.identity(&self.names.staging)? == Some(staged.identity)),
            None => Ok(true),
        }
    }

    /// Gives what is staged its place: `.tmp.<hash>` becomes `<hash>`, which must not be there. Nothing is synced:
    /// [`Staging::sync`].
    ///
    /// # Errors
    ///
    /// [`Error::Exists`]: `<hash>` is there. [`Error::Lost`]: somebody else may have what was staged; if it was placed
    /// nevertheless, what stands under `<hash>` is to be looked at. [`Error::Io`]: what the rename gives.
    pub fn publish(&mut self) -> Result<()> {
        self.check()?;
        let (from, to) = (&self.names.staging, &self.names.hash);
        match rename::to_free(&self.task, from, to) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Error::Exists { name: to.clone() }),
            Err(Errno::NOENT) => return Err(self.lost(false)),
            Err(errno) => return Err(errno).told("put the copy in its place as", to),
        }
        self.placed = self.staged.take();
        self.check_placed()
    }

    /// Makes durable what names there are in the task's directory, which must be readable.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn sync(&self) -> Result<()> {
        let name = OsStr::new(".");
        let fd =
            at::open_to_list(&self.task, name).told("open the directory of", &self.names.hash)?;
        sync_directory(&fd).told("sync the directory of", &self.names.hash)
    }

    /// Removes what is under `.tmp.<hash>` now, after an exchange what was under `<hash>` before; then the lock file, and
    /// lets go. `progress` counts what is removed, and may cancel it.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`]: nothing was removed, it may be somebody else's. [`Error::Remove`]: what could not be removed, or
    /// that it was cancelled; the lock is let go nevertheless, and [`sweep`] removes the rest.
    pub fn finish(mut self, progress: Option<&Progress>) -> Result<()> {
        self.end(progress)
    }

    fn end(&mut self, progress: Option<&Progress>) -> Result<()> {
        self.finished = true;
        // If that fails, the lock file stays, with what is written in it, for whoever tries again.
        self.settle()?;
        let cleared = self.clear(progress);
        // After the last look at what it guards.
        let removed = self.lock.remove(&self.task);
        cleared?;
        removed.told("remove", &self.names.lock)
    }

    /// Removes what is under `.tmp.<hash>`.
    fn clear(&mut self, progress: Option<&Progress>) -> Result<()> {
        self.check_lock()?;
        let name = &self.names.staging;
        if let Some(staged) = &self.staged
            && let Some(there) = self.identity(name).told("look at", name)?
            && there != staged.identity
        {
            // No leftover: somebody has put it there while the lock was held.
            return Err(self.lost(false));
        }
        self.staged = None;
        remove_tree(&self.task, &self.names.staging, progress)?;
        Ok(())
    }

    fn check_lock(&self) -> Result<()> {
        match self
            .lock
            .is_there(&self.task)
            .told("look at", &self.names.lock)?
        {
            true => Ok(()),
            false => Err(self.lost(false)),
        }
    }

    /// Makes sure that what is staged is there and ours.
    fn check(&self) -> Result<()> {
        let holds = self.holds().map_err(|cause| Error::Io {
            operation: "look at",
            name: self.names.staging.clone(),
            cause,
        })?;
        match holds && self.staged.is_some() {
            true => Ok(()),
            false => Err(self.lost(false)),
        }
    }

    /// Makes sure that what was placed is there, and that nobody else had the right to it meanwhile.
    fn check_placed(&self) -> Result<()> {
        let hash = &self.names.hash;
        let there = self.identity(hash).told("look at", hash)?;
        let placed = self.placed.as_ref().map(|placed| placed.identity);
        let lock = self
            .lock
            .is_there(&self.task)
            .told("look at", &self.names.lock)?;
        match lock && there == placed {
            true => Ok(()),
            false => Err(self.lost(true)),
        }
    }

    fn lost(&self, placed: bool) -> Error {
        Error::Lost {
            name: self.names.hash.clone(),
            placed,
        }
    }

    /// What stands under a name in the task's directory.
    fn identity(&self, name: &OsStr) -> rustix::io::Result<Option<FileId>> {
        match at::stat_at(&self.task, name) {
            Ok(stat) => Ok(Some(FileId::of(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = self.end(None)
        {
            tracing::debug!(
                "the staging of {} is left: {error}",
                self.names.hash.display()
            );
        }
    }
}
