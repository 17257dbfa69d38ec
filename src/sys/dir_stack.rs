//! Descends into a tree of any depth and goes back up, with few open descriptors.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

use super::at::file_id;
use super::file_id::FileId;

/// How many directories above the current one are kept open.
const KEPT: usize = 8;

/// How a directory is opened to be listed.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The current directory of a walk, and the directories above it. Directories far above are closed, and reopened as
/// `..`. The reopened directory must be the one that was closed, so that the walk fails if another process moves a
/// directory away meanwhile.
pub struct DirStack {
    current: Arc<OwnedFd>,
    above: Vec<Above>,
}

/// A directory above the current one.
enum Above {
    Open(Arc<OwnedFd>),
    /// Far above: its identity.
    Closed(FileId),
}

impl DirStack {
    /// Starts at the top of a tree.
    pub fn new(top: OwnedFd) -> DirStack {
        DirStack {
            current: Arc::new(top),
            above: Vec::new(),
        }
    }

    /// The current directory.
    pub fn current(&self) -> &Arc<OwnedFd> {
        &self.current
    }

    /// Descends into an open directory that is in the current one.
    pub fn down(&mut self, fd: OwnedFd) -> Result<()> {
        if let Some(far) = self.above.len().checked_sub(KEPT)
            && let Some(far) = self.above.get_mut(far)
            && let Above::Open(fd) = far
        {
            *far = Above::Closed(file_id(&**fd)?);
        }
        let left = std::mem::replace(&mut self.current, Arc::new(fd));
        self.above.push(Above::Open(left));
        Ok(())
    }

    /// Goes back up, and returns the directory that was left. Has no effect at the top.
    ///
    /// # Errors
    ///
    /// `ESTALE` if the directory has been moved.
    pub fn up(&mut self) -> Result<Arc<OwnedFd>> {
        let Some(above) = self.above.pop() else {
            return Ok(self.current.clone());
        };
        let fd = match above {
            Above::Open(fd) => fd,
            Above::Closed(identity) => {
                let fd = rustix::fs::openat(&*self.current, "..", DIRECTORY, Mode::empty())?;
                if file_id(&fd)? != identity {
                    return Err(Errno::STALE);
                }
                Arc::new(fd)
            }
        };
        Ok(std::mem::replace(&mut self.current, fd))
    }
}

/// A walk through numbered directories, each of which follows the directory that contains it.
pub struct IndexedDirStack {
    stack: DirStack,
    /// The numbers of the directories from the top, exclusive, to the current one, inclusive.
    at: Vec<usize>,
}

impl IndexedDirStack {
    /// Starts at the top, whose number is 0.
    pub fn new(top: OwnedFd) -> IndexedDirStack {
        IndexedDirStack {
            stack: DirStack::new(top),
            at: Vec::new(),
        }
    }

    /// The current directory.
    pub fn current(&self) -> &Arc<OwnedFd> {
        self.stack.current()
    }

    /// The number of the current directory.
    pub fn position(&self) -> usize {
        self.at.last().copied().unwrap_or(0)
    }

    /// Goes up one directory, and returns the one that was left; `None` at the top.
    pub fn up(&mut self) -> Result<Option<Arc<OwnedFd>>> {
        match self.at.pop() {
            Some(_) => self.stack.up().map(Some),
            None => Ok(None),
        }
    }

    /// Descends into an open directory with this number.
    pub fn down(&mut self, position: usize, fd: OwnedFd) -> Result<()> {
        self.stack.down(fd)?;
        self.at.push(position);
        Ok(())
    }
}
