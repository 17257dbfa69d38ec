//! Going down a tree and back up with a few descriptors, however deep it is.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, Statx, StatxFlags};
use rustix::io::{Errno, Result};

/// How many directories above the current one are kept open.
const KEPT: usize = 8;

/// How a directory is opened to be listed.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Which file something is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    device: (u32, u32),
    inode: u64,
}

impl Identity {
    pub(super) fn of(stat: &Statx) -> Identity {
        Identity {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
        }
    }

    /// The inode number, which is unique in one file system at a time.
    pub(super) fn inode(&self) -> u64 {
        self.inode
    }
}

/// The directory where a walk is, and how it gets back. Directories far above are closed, and opened
/// again as `..`; what is found there must be the directory that was left, so that a directory that
/// somebody moves away meanwhile ends the walk and leads nowhere.
pub(super) struct Trail {
    current: Arc<OwnedFd>,
    above: Vec<Above>,
}

/// A directory above the current one.
enum Above {
    Open(Arc<OwnedFd>),
    /// Far above: which one it was.
    Closed(Identity),
}

impl Trail {
    /// Starts at the top of a tree.
    pub(super) fn new(top: OwnedFd) -> Trail {
        Trail {
            current: Arc::new(top),
            above: Vec::new(),
        }
    }

    /// The directory where it is.
    pub(super) fn current(&self) -> &Arc<OwnedFd> {
        &self.current
    }

    /// Goes down to a directory in the current one, which is open already.
    pub(super) fn down(&mut self, fd: OwnedFd) -> Result<()> {
        if let Some(far) = self.above.len().checked_sub(KEPT)
            && let Some(far) = self.above.get_mut(far)
            && let Above::Open(fd) = far
        {
            *far = Above::Closed(Identity::of(&stat(&**fd)?));
        }
        let left = std::mem::replace(&mut self.current, Arc::new(fd));
        self.above.push(Above::Open(left));
        Ok(())
    }

    /// Goes back up, and gives the directory that was left. At the top, it stays.
    ///
    /// # Errors
    ///
    /// `ESTALE` if the directory is not where it was.
    pub(super) fn up(&mut self) -> Result<Arc<OwnedFd>> {
        let Some(above) = self.above.pop() else {
            return Ok(self.current.clone());
        };
        let fd = match above {
            Above::Open(fd) => fd,
            Above::Closed(identity) => {
                let fd = rustix::fs::openat(&*self.current, "..", DIRECTORY, Mode::empty())?;
                if Identity::of(&stat(&fd)?) != identity {
                    return Err(Errno::STALE);
                }
                Arc::new(fd)
            }
        };
        Ok(std::mem::replace(&mut self.current, fd))
    }
}

/// A walk through directories that are known already, each after the one that it is in.
pub(super) struct Steps {
    trail: Trail,
    /// The positions of the directories that lead to the current one, below the top, with it.
    at: Vec<usize>,
}

impl Steps {
    /// Starts at the top, whose position is 0.
    pub(super) fn new(top: OwnedFd) -> Steps {
        Steps {
            trail: Trail::new(top),
            at: Vec::new(),
        }
    }

    /// The directory where it is.
    pub(super) fn current(&self) -> &Arc<OwnedFd> {
        self.trail.current()
    }

    /// Where it is.
    pub(super) fn position(&self) -> usize {
        self.at.last().copied().unwrap_or(0)
    }

    /// Goes up one directory, and gives the one that it has left; `None` at the top.
    pub(super) fn up(&mut self) -> Result<Option<Arc<OwnedFd>>> {
        match self.at.pop() {
            Some(_) => self.trail.up().map(Some),
            None => Ok(None),
        }
    }

    /// Goes down to a directory, whose position is told.
    pub(super) fn down(&mut self, position: usize, fd: OwnedFd) -> Result<()> {
        self.trail.down(fd)?;
        self.at.push(position);
        Ok(())
    }
}

/// Opens the directory `name` in `dir` to list it, or `dir` itself anew if the name is `.`.
/// Its time of access is left alone where the caller may ask for that.
pub(super) fn open_directory(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    open_quietly(dir, name, DIRECTORY)
}

/// Opens without changing the time of access, which only the owner and root may ask for.
pub(super) fn open_quietly(dir: impl AsFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd> {
    match rustix::fs::openat(&dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(&dir, name, flags, Mode::empty()),
        result => result,
    }
}

/// Opens the directory that names lead to, one below the other, for use in later calls (`O_PATH`).
pub(super) fn open_below<'a>(
    top: impl AsFd,
    names: impl Iterator<Item = &'a OsStr>,
) -> Result<OwnedFd> {
    let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = rustix::fs::openat(top, ".", path, Mode::empty())?;
    for name in names {
        dir = rustix::fs::openat(&dir, name, path, Mode::empty())?;
    }
    Ok(dir)
}

/// The attributes of something open.
pub(super) fn stat(fd: impl AsFd) -> Result<Statx> {
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
}

/// The attributes of a name, never of what a symlink points to.
pub(super) fn stat_at(dir: impl AsFd, name: &OsStr) -> Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS)
}
