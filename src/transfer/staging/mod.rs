//! Makes a copy as `.tmp.<hash>`, locked by `.tmp.<hash>.lock`, and moves it to its place.
//!
//! - [`Staging`]: the right to make, replace or remove one job's directory
//! - `lock`: the lock; `names`: the names of all these files; `exchange`: replaces one entry by another
//! - `sweep`: what a crash left, also of another user; [`sweep()`] removes it; `error`: [`StagingError`], of all these
//!
//! # Concurrent processes
//!
//! Other daemons run this code; experimaestro's `scheduler/folders.py` (2.7.0) uses the same names and locks.
//! experimaestro does not wait for a lock either, and removes every directory `.tmp.*` whose lock it gets. It removes
//! the lock file after unlocking it, and so may remove a file that another process has locked in between. Then a third
//! process can get the lock as well. This is rare, cannot be prevented, and is detected: [`Staging::holds`]. So a lock
//! counts only while its file has its name. An entry that was placed while the lock was lost is reported
//! ([`StagingError::Lost`]), because another process may have removed files of it.
//!
//! Two processes that run this code never remove each other's lock file: each removes the file before it unlocks it.

mod error;
mod exchange;
mod lock;
mod names;
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
use error::NameContext;
pub use error::{Result, StagingError};
pub use exchange::Exchanged;
use lock::Lock;
use names::Names;
pub use sweep::{leftovers, sweep, sweep_with};

/// The right to make, replace or remove `<hash>` in a task's directory, and the entry that is staged for it. No other
/// process that follows the protocol has this right at the same time.
///
/// Dropping removes the staged entry and the lock file, and unlocks, as [`Staging::finish`] does, but ignores errors.
#[derive(Debug)]
pub struct Staging {
    task: OwnedFd,
    names: Names,
    lock: Lock,
    /// The entry `.tmp.<hash>`, as far as it is known.
    staged: Option<Held>,
    /// The entry that was placed as `<hash>`.
    placed: Option<Held>,
    finished: bool,
}

/// An entry held open, so that no other entry can get its inode number.
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
    /// Locks `hash` in a task's directory (`O_PATH` is sufficient), without waiting; `None` if another process has the
    /// lock. Recovers an interrupted exchange. The lock file gets the read and write bits of the directory, as
    /// experimaestro's with its lock mode `inherit`.
    ///
    /// # Errors
    ///
    /// [`StagingError::Name`] if the name cannot be a job's or is too long for a staging; [`StagingError::NotALock`] if the lock
    /// file's name has an entry of another type; [`StagingError::Io`]: `ENOENT` if the directory is gone, `EACCES` if another
    /// user owns the lock file and does not share it.
    pub fn take(task: impl AsFd, hash: &OsStr) -> Result<Option<Staging>> {
        let names = Names::of(hash)?;
        let Some(lock) = Lock::take(&task, &names)? else {
            return Ok(None);
        };
        let task = rustix::io::fcntl_dupfd_cloexec(task.as_fd(), 0);
        let staging = Staging {
            task: task.at_name("open", hash)?,
            names,
            lock,
            staged: None,
            placed: None,
            finished: false,
        };
        staging.settle()?;
        Ok(Some(staging))
    }

    /// Makes an empty directory `.tmp.<hash>` (mode 0700), and opens it. Removes the data that a crashed owner left
    /// there, or renames it if it belongs to another user. A symlink or a file there is removed too, and not followed.
    ///
    /// # Errors
    ///
    /// [`StagingError::Lost`]; [`StagingError::Remove`] if the previous entry cannot be removed; [`StagingError::Io`].
    pub fn make(&mut self) -> Result<OwnedFd> {
        self.free_name()?;
        self.forget()?;
        let name = &self.names.staging;
        rustix::fs::mkdirat(&self.task, name, Mode::RWXU).at_name("create", name)?;
        let fd = at::open_to_list(&self.task, name).at_name("open", name)?;
        self.staged = Some(Held::new(&fd).at_name("look at", name)?);
        Ok(fd)
    }

    /// Makes the symlink `.tmp.<hash>` to `target`. The previous entry is removed, as by [`Staging::make`].
    ///
    /// # Errors
    ///
    /// As [`Staging::make`]; `ENAMETOOLONG` for the target.
    pub fn link(&mut self, target: &Path) -> Result<()> {
        self.free_name()?;
        self.forget()?;
        let name = &self.names.staging;
        rustix::fs::symlinkat(target, &self.task, name).at_name(SYMLINK, name)?;
        let itself = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(&self.task, name, itself, Mode::empty()).at_name("open", name)?;
        self.staged = Some(Held::new(&fd).at_name("look at", name)?);
        Ok(())
    }

    /// Adopts the entry `.tmp.<hash>` that a crashed owner left, given open, as the staged entry, so that it can be
    /// placed again.
    ///
    /// # Errors
    ///
    /// [`StagingError::Io`].
    pub fn adopt(&mut self, left: impl AsFd) -> Result<()> {
        self.staged = Some(Held::new(left).at_name("look at", &self.names.staging)?);
        Ok(())
    }

    /// Whether this process still has the lock, and `.tmp.<hash>` is the entry that [`Staging::make`] or
    /// [`Staging::link`] made.
    ///
    /// # Errors
    ///
    /// As `statx`.
    pub fn holds(&self) -> io::Result<bool> {
        if !self.lock.is_there(&self.task)? {
            return Ok(false);
        }
        match &self.staged {
            Some(staged) => Ok(self.identity(&self.names.staging)? == Some(staged.identity)),
            None => Ok(true),
        }
    }

    /// Places the staged entry: renames `.tmp.<hash>` to `<hash>`, which must not exist. Does not sync:
    /// [`Staging::sync`] does that.
    ///
    /// # Errors
    ///
    /// [`StagingError::Exists`]: `<hash>` exists. [`StagingError::Lost`]: another process may have the staged entry; if the entry was
    /// placed nevertheless, the caller must verify `<hash>`. [`StagingError::Io`]: the rename failed.
    pub fn publish(&mut self) -> Result<()> {
        self.check()?;
        let (from, to) = (&self.names.staging, &self.names.hash);
        match at::rename_new(&self.task, from, to) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(StagingError::Exists { name: to.clone() }),
            Err(Errno::NOENT) => return Err(self.lost(false)),
            Err(errno) => return Err(errno).at_name("put the copy in its place as", to),
        }
        self.placed = self.staged.take();
        self.check_placed()
    }

    /// Makes the names in the task's directory durable; the directory must be readable.
    ///
    /// # Errors
    ///
    /// [`StagingError::Io`].
    pub fn sync(&self) -> Result<()> {
        let name = OsStr::new(".");
        let fd = at::open_to_list(&self.task, name)
            .at_name("open the directory of", &self.names.hash)?;
        sync_directory(&fd).at_name("sync the directory of", &self.names.hash)
    }

    /// Removes the entry `.tmp.<hash>` (after an exchange, the previous `<hash>`) and the lock file, and then unlocks.
    /// `progress` counts the removed entries, and may cancel the removal.
    ///
    /// # Errors
    ///
    /// [`StagingError::Lost`]: nothing was removed, because the entry may belong to another process. [`StagingError::Remove`]: an
    /// entry could not be removed, or the removal was cancelled; the lock is released nevertheless, and [`sweep()`]
    /// removes the rest.
    pub fn finish(mut self, progress: Option<&Progress>) -> Result<()> {
        self.end(progress)
    }

    fn end(&mut self, progress: Option<&Progress>) -> Result<()> {
        self.finished = true;
        // If the removal failed, the lock file stays, with its note, for the next owner.
        self.settle()?;
        let cleared = self.clear(progress);
        // After the last access to the guarded data.
        let removed = self.lock.remove(&self.task);
        cleared?;
        removed.at_name("remove", &self.names.lock)
    }

    /// Removes the entry `.tmp.<hash>`.
    fn clear(&mut self, progress: Option<&Progress>) -> Result<()> {
        self.check_lock()?;
        let name = &self.names.staging;
        if let Some(staged) = &self.staged
            && let Some(there) = self.identity(name).at_name("look at", name)?
            && there != staged.identity
        {
            // Not a leftover: another process put it there while the lock was held.
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
            .at_name("look at", &self.names.lock)?
        {
            true => Ok(()),
            false => Err(self.lost(false)),
        }
    }

    /// Checks that the staged entry exists and belongs to this process.
    fn check(&self) -> Result<()> {
        let holds = self.holds().map_err(|cause| StagingError::Io {
            operation: "look at",
            name: self.names.staging.clone(),
            cause,
        })?;
        match holds && self.staged.is_some() {
            true => Ok(()),
            false => Err(self.lost(false)),
        }
    }

    /// Checks that the placed entry exists, and that no other process had the lock meanwhile.
    fn check_placed(&self) -> Result<()> {
        let hash = &self.names.hash;
        let there = self.identity(hash).at_name("look at", hash)?;
        let placed = self.placed.as_ref().map(|placed| placed.identity);
        let lock = self
            .lock
            .is_there(&self.task)
            .at_name("look at", &self.names.lock)?;
        match lock && there == placed {
            true => Ok(()),
            false => Err(self.lost(true)),
        }
    }

    fn lost(&self, placed: bool) -> StagingError {
        StagingError::Lost {
            name: self.names.hash.clone(),
            placed,
        }
    }

    /// Returns the identity of the entry of this name in the task's directory; `None` if there is no entry.
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
