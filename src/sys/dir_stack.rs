//! Going down a tree and back up with a few descriptors, however deep it is.

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

/// The directory where a walk is, and how it gets back. Directories far above are closed, and opened
/// again as `..`; what is found there must be the directory that was left, so that a directory that
/// somebody moves away meanwhile ends the walk and leads nowhere.
pub struct DirStack {
    current: Arc<OwnedFd>,
    above: Vec<Above>,
}

/// A directory above the current one.
enum Above {
    Open(Arc<OwnedFd>),
    /// Far above: which one it was.
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

    /// The directory where it is.
    pub fn current(&self) -> &Arc<OwnedFd> {
        &self.current
    }

    /// Goes down to a directory in the current one, which is open already.
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

    /// Goes back up, and gives the directory that was left. At the top, it stays.
    ///
    /// # Errors
    ///
    /// `ESTALE` if the directory is not where it was.
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

/// A walk through directories that are known already, each after the one that it is in.
pub struct IndexedDirStack {
    stack: DirStack,
    /// The positions of the directories that lead to the current one, below the top, with it.
    at: Vec<usize>,
}

impl IndexedDirStack {
    /// Starts at the top, whose position is 0.
    pub fn new(top: OwnedFd) -> IndexedDirStack {
        IndexedDirStack {
            stack: DirStack::new(top),
            at: Vec::new(),
        }
    }

    /// The directory where it is.
    pub fn current(&self) -> &Arc<OwnedFd> {
        self.stack.current()
    }

    /// Where it is.
    pub fn position(&self) -> usize {
        self.at.last().copied().unwrap_or(0)
    }

    /// Goes up one directory, and gives the one that it has left; `None` at the top.
    pub fn up(&mut self) -> Result<Option<Arc<OwnedFd>>> {
        match self.at.pop() {
            Some(_) => self.stack.up().map(Some),
            None => Ok(None),
        }
    }

    /// Goes down to a directory, whose position is told.
    pub fn down(&mut self, position: usize, fd: OwnedFd) -> Result<()> {
        self.stack.down(fd)?;
        self.at.push(position);
        Ok(())
    }
}
