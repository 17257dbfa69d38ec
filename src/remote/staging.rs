//! Makes the directory of unfinished copies, `.xpm-staging/<id>`, in a workspace, and removes those that crashed processes have left.
//!
//! The names are experimaestro's (`_make_staging_dir` in its `copy_experiment.py`, 2.7.0): an id of 12 hexadecimal digits, and in it a file
//! `.lock`. experimaestro does not lock that file, so its directories are never removed here. In ours the file has a note and is locked
//! (`flock`) for as long as the process lives: with the note and without the lock, a directory is left over.

use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock};
use rustix::io::{Errno, Result};

use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::transfer::remove_tree;
use crate::view::jobs::names;

/// The directory of unfinished copies in a workspace.
pub const STAGING: &str = ".xpm-staging";

/// The file in an unfinished copy that is locked.
pub(super) const LOCK: &str = ".lock";

/// The file in an unfinished copy from another machine that is locked, shared, while a part of the copy gets its place there.
pub(super) const PLACING: &str = ".placing";

/// The content of the lock file of our own copies.
pub(super) const NOTE: &str = "xpmfs\n";

/// How often another id is tried.
const TRIES: usize = 16;

/// A directory for unfinished copies. Dropping it removes it, with all that is in it.
#[derive(Debug)]
pub struct StagingArea {
    top: OwnedFd,
    /// `.xpm-staging`.
    parent: OwnedFd,
    id: OsString,
    directory: OwnedFd,
    _lock: File,
}

impl StagingArea {
    /// Makes a directory for unfinished copies in the directory `top`, and removes those that crashed processes have left there.
    ///
    /// # Errors
    ///
    /// As `mkdirat` and `openat`; `ENOTDIR` if `.xpm-staging` is a file or symlink.
    pub fn make(top: impl AsFd) -> Result<StagingArea> {
        let top = rustix::io::fcntl_dupfd_cloexec(top.as_fd(), 0)?;
        let mut last = Errno::EXIST;
        for _ in 0..TRIES {
            // Another process removes the directory when it is empty.
            let parent = match make_dir(&top, OsStr::new(STAGING), 0o777) {
                Err(Errno::NOENT) => continue,
                made => made?,
            };
            sweep(&parent);
            let id = id();
            match rustix::fs::mkdirat(&parent, &id, Mode::RWXU) {
                Err(errno @ (Errno::EXIST | Errno::NOENT)) => {
                    last = errno;
                    continue;
                }
                made => made?,
            }
            let directory = at::open_dir(&parent, &id)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let lock = rustix::fs::openat(&directory, LOCK, flags, Mode::from_raw_mode(0o600));
            let mut lock = File::from(lock?);
            match flock(&lock, FlockOperation::LockExclusive) {
                // Without locks, nothing is swept.
                Ok(()) => lock
                    .write_all(NOTE.as_bytes())
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?,
                Err(errno) => tracing::debug!("cannot lock {STAGING}: {errno}"),
            }
            return Ok(StagingArea {
                top,
                parent,
                id,
                directory,
                _lock: lock,
            });
        }
        Err(last)
    }

    /// Makes the directories `names`, each below the one before, and opens the last one; what an earlier attempt left in it is removed.
    ///
    /// # Errors
    ///
    /// As `mkdirat` and `openat`.
    pub fn make_empty(&self, names: &[&OsStr]) -> Result<OwnedFd> {
        let Some((last, above)) = names.split_last() else {
            return Err(Errno::INVAL);
        };
        let parent = self.make_dirs(above)?;
        let removed = remove_tree(&parent, last, None);
        removed.map_err(|error| {
            let errno = error.io().and_then(Errno::from_io_error);
            errno.unwrap_or(Errno::IO)
        })?;
        rustix::fs::mkdirat(&parent, *last, Mode::RWXU)?;
        at::open_to_list(&parent, last)
    }

    /// Opens the directory that `names` lead to, and makes those that are missing.
    ///
    /// # Errors
    ///
    /// As `mkdirat` and `openat`.
    pub fn make_dirs(&self, names: &[&OsStr]) -> Result<OwnedFd> {
        let mut directory = rustix::io::fcntl_dupfd_cloexec(self.directory.as_fd(), 0)?;
        for name in names {
            directory = make_dir(&directory, name, 0o700)?;
        }
        Ok(directory)
    }
}

impl Drop for StagingArea {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.parent, &self.id, None) {
            tracing::warn!("cannot remove the unfinished copies in {STAGING}: {error}");
        }
        // Fails while others copy.
        let _ = rustix::fs::unlinkat(&self.top, STAGING, AtFlags::REMOVEDIR);
    }
}

fn make_dir(parent: impl AsFd, name: &OsStr, mode: u32) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    at::open_dir(&parent, name)
}

/// A name of 12 hexadecimal digits.
pub(super) fn id() -> OsString {
    // Each state has keys of its own.
    let random = RandomState::new().build_hasher().finish();
    format!("{:012x}", random >> 16).into()
}

/// Removes the directories of processes that ended without removing them.
fn sweep(parent: &OwnedFd) {
    let Ok(listed) = names(parent) else {
        return;
    };
    for name in listed {
        match left_over(parent, &name) {
            Ok(Some(_locks)) => match remove_tree(parent, &name, None) {
                Ok(()) => tracing::info!("removed a copy in {STAGING} that was never completed"),
                Err(error) => tracing::debug!("cannot clear {STAGING}: {error}"),
            },
            Ok(None) => {}
            Err(errno) => tracing::debug!("cannot look at {STAGING}: {errno}"),
        }
    }
}

/// The locks of a directory, if its process has ended; `None` for a directory in use, and for one of another program.
pub(super) fn left_over(parent: &OwnedFd, name: &OsStr) -> Result<Option<(File, Option<OwnedFd>)>> {
    let Some(directory) = at::absent(at::open_dir(parent, name))? else {
        return Ok(None);
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = |name| at::absent(rustix::fs::openat(&directory, name, flags, Mode::empty()));
    let Some(lock) = open(LOCK)? else {
        return Ok(None);
    };
    let placing = open(PLACING)?;
    for lock in std::iter::once(&lock).chain(&placing) {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            locked => locked?,
        }
    }
    let mut note = String::new();
    let lock = File::from(lock);
    let read = (&lock).take(64).read_to_string(&mut note);
    let is_ours = read.is_ok() && note == NOTE;
    // Removed meanwhile, and made anew?
    let is_there = at::stat(parent, name)
        .is_ok_and(|stat| at::file_id(&directory).is_ok_and(|opened| FileId::of(&stat) == opened));
    Ok((is_ours && is_there).then_some((lock, placing)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn entries(top: &Path) -> Vec<OsString> {
        let listed = fs::read_dir(top.join(STAGING)).into_iter().flatten();
        listed.map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn only_directories_of_ended_processes_are_removed() {
        let top = tempfile::tempdir().unwrap();
        let root = File::open(top.path()).unwrap();
        let (first, second) = (
            StagingArea::make(&root).unwrap(),
            StagingArea::make(&root).unwrap(),
        );
        assert_eq!(entries(top.path()).len(), 2);
        let kept = first.id.clone();
        // As a process that was killed leaves it.
        let left = top.path().join(STAGING).join("000000000000");
        fs::create_dir_all(left.join("jobs/t/1f")).unwrap();
        fs::write(left.join(LOCK), NOTE).unwrap();
        // experimaestro's.
        let theirs = top.path().join(STAGING).join("111111111111");
        fs::create_dir(&theirs).unwrap();
        fs::write(theirs.join(LOCK), "").unwrap();
        drop(second);
        let third = StagingArea::make(&root).unwrap();
        assert!(!left.exists() && theirs.exists());
        assert!(top.path().join(STAGING).join(&kept).exists());
        drop((first, third));
        assert_eq!(entries(top.path()), ["111111111111"]);
        fs::remove_dir_all(theirs).unwrap();
        drop(StagingArea::make(&root).unwrap());
        assert!(!top.path().join(STAGING).exists());
    }

    #[test]
    fn a_symlink_in_the_place_of_the_directory_is_refused() {
        let (top, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(other.path(), top.path().join(STAGING)).unwrap();
        let root = File::open(top.path()).unwrap();
        assert_eq!(StagingArea::make(&root).unwrap_err(), Errno::NOTDIR);
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_is_made_empty() {
        let top = tempfile::tempdir().unwrap();
        let staging = StagingArea::make(File::open(top.path()).unwrap()).unwrap();
        let names = ["jobs", "t", "1f"].map(OsStr::new);
        let made = staging.make_empty(&names).unwrap();
        rustix::fs::mkdirat(&made, "left", Mode::RWXU).unwrap();
        let again = staging.make_empty(&names).unwrap();
        assert!(at::stat(&again, OsStr::new("left")).is_err());
    }
}
