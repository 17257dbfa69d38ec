//! Locks `.tmp.<hash>.lock` by the protocol of `filelock` 3.
//!
//! The file is opened without following a symlink, and `flock`ed without waiting. A lock is void once its inode has no
//! name any more.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Statx};
use rustix::io::{Errno, Result as SysResult};

use super::error::{NameContext, Result, StagingError};
use super::names::{Names, TOO_LONG};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::transfer::stamp;

/// How often the file may vanish between opening and locking before the lock counts as held by another process.
const TRIES: usize = 100;

/// How often opening a file that another user has just made may be denied, and the pause between two tries.
const DENIALS_MAX: usize = 20;
const DENIAL_PAUSE: Duration = Duration::from_millis(10);

/// The mode bits that a lock file may have: experimaestro's `LOCK_FILE_BASE_MODE`.
const RIGHTS: Mode = Mode::from_raw_mode(0o666);

/// `NONBLOCK`: opening must not wait for a fifo or a device that another process put in the file's place.
const OPEN: OFlags = OFlags::RDWR
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// A lock file that this process has locked.
#[derive(Debug)]
pub(super) struct Lock {
    fd: OwnedFd,
    identity: FileId,
    name: OsString,
}

impl Lock {
    /// Locks without waiting; `None` if another process has the lock.
    pub(super) fn take(task: impl AsFd, names: &Names) -> Result<Option<Lock>> {
        let name = &names.lock;
        let directory = at::stat_fd(&task).at_name("look at the directory of", &names.hash)?;
        let rights = Mode::from_raw_mode(directory.stx_mode.into()) & RIGHTS;
        for attempt in 0..TRIES {
            let fd = match open(&task, name, rights) {
                Ok(fd) => fd,
                // Removed between opening and locking. If the directory is gone, its link count shows that.
                Err(Errno::NOENT) if at::stat_fd(&task).is_ok_and(|stat| stat.stx_nlink > 0) => {
                    continue;
                }
                // Another user's umask made the file private until that user's daemon sets its mode.
                Err(Errno::ACCESS) if attempt < DENIALS_MAX && is_file(&task, name) => {
                    std::thread::sleep(DENIAL_PAUSE);
                    continue;
                }
                Err(errno) => return Err(refused(&task, names, errno)),
            };
            let stat = at::stat_fd(&fd).at_name("look at", name)?;
            if stamp::kind(&stat) != FileType::RegularFile {
                return Err(not_a_lock(name, &stat));
            }
            // All users who share the directory share the lock, whatever umask and group this process has. The owner of
            // another user's file has set its mode already. The mode is set before locking: a user who cannot open the
            // file cannot see that it is only locked.
            if stat.stx_gid != directory.stx_gid {
                let group = Gid::from_raw(directory.stx_gid);
                let _ = rustix::fs::fchown(&fd, None, Some(group));
            }
            if Mode::from_raw_mode(stat.stx_mode.into()) & RIGHTS != rights {
                let _ = rustix::fs::fchmod(&fd, rights);
            }
            match flock(&fd) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(errno) => return Err(errno).at_name("lock", name),
            }
            let lock = Lock {
                identity: FileId::of(&stat),
                name: name.clone(),
                fd,
            };
            if lock.is_there(&task).at_name("look at", name)? {
                return Ok(Some(lock));
            }
        }
        Ok(None)
    }

    /// Whether the file still has its name, so that no other process can have the lock.
    pub(super) fn is_there(&self, task: impl AsFd) -> SysResult<bool> {
        match at::stat_at(task, &self.name) {
            Ok(stat) => Ok(FileId::of(&stat) == self.identity),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Removes the file, if it is still there, and then releases the lock. The order matters: a process that locks the
    /// file after this sees that the file has no name.
    pub(super) fn remove(&self, task: impl AsFd) -> SysResult<()> {
        let removed = match self.is_there(&task) {
            Ok(true) => rustix::fs::unlinkat(&task, &self.name, AtFlags::empty()),
            Ok(false) => Ok(()),
            Err(errno) => Err(errno),
        };
        // Unlocks explicitly: a process that was started meanwhile may have a duplicate of the descriptor for a moment.
        let _ = rustix::fs::flock(&self.fd, FlockOperation::Unlock);
        removed
    }

    /// Writes a note to the file. experimaestro truncates the file when it locks it.
    pub(super) fn write(&self, note: &[u8]) -> SysResult<()> {
        rustix::fs::ftruncate(&self.fd, 0)?;
        match rustix::io::pwrite(&self.fd, note, 0)? == note.len() {
            true => Ok(()),
            false => Err(Errno::IO),
        }
    }

    /// Returns the note in the file, up to the maximum length of a note.
    pub(super) fn read(&self) -> SysResult<Vec<u8>> {
        let mut note = Vec::with_capacity(128);
        rustix::io::pread(&self.fd, rustix::buffer::spare_capacity(&mut note), 0)?;
        Ok(note)
    }
}

fn open(task: impl AsFd, name: &OsStr, rights: Mode) -> SysResult<OwnedFd> {
    match rustix::fs::openat(&task, name, OPEN | OFlags::CREATE, rights) {
        // In a directory such as /tmp, another user's file may be opened only without O_CREAT.
        Err(Errno::ACCESS) => {
            rustix::fs::openat(&task, name, OPEN, Mode::empty()).map_err(|errno| {
                if errno == Errno::NOENT {
                    Errno::ACCESS
                } else {
                    errno
                }
            })
        }
        result => result,
    }
}

/// Whether a regular file of this name exists.
fn is_file(task: impl AsFd, name: &OsStr) -> bool {
    at::stat_at(task, name).is_ok_and(|stat| stamp::kind(&stat) == FileType::RegularFile)
}

/// Locks an open file; false if another process has the lock.
fn flock(fd: &OwnedFd) -> SysResult<bool> {
    loop {
        match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            // Some file systems return EACCES.
            Err(Errno::WOULDBLOCK | Errno::ACCESS) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Explains why a lock file could not be opened.
fn refused(task: impl AsFd, names: &Names, errno: Errno) -> StagingError {
    if errno == Errno::NAMETOOLONG {
        return StagingError::Name {
            name: names.hash.clone(),
            why: TOO_LONG,
        };
    }
    match at::stat_at(task, &names.lock) {
        Ok(stat) if stamp::kind(&stat) != FileType::RegularFile => not_a_lock(&names.lock, &stat),
        _ => StagingError::Io {
            operation: "open the lock file",
            name: names.lock.clone(),
            cause: errno.into(),
        },
    }
}

fn not_a_lock(name: &OsStr, stat: &Statx) -> StagingError {
    let what = match stamp::kind(stat) {
        FileType::Symlink => "a symlink",
        FileType::Directory => "a directory",
        FileType::Fifo => "a fifo",
        FileType::Socket => "a socket",
        _ => "a device",
    };
    StagingError::NotALock {
        name: name.to_owned(),
        what,
    }
}
