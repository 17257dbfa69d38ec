//! Which entries are copied is decided by whoever calls.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

use rustix::fs::FileType;

use crate::sys::at;

/// Says of each entry whether it is copied; a directory that is not takes along all that it holds.
pub type Select<'a> = dyn Fn(&Candidate<'_>) -> bool + Sync + 'a;

/// An entry that may be copied or left out.
#[derive(Debug)]
pub struct Candidate<'a> {
    directory: BorrowedFd<'a>,
    depth: usize,
    parent: &'a OsStr,
    name: &'a OsStr,
    kind: FileType,
    size: OnceCell<Option<u64>>,
}

impl<'a> Candidate<'a> {
    pub(super) fn new(
        directory: BorrowedFd<'a>,
        (depth, parent): (usize, &'a OsStr),
        name: &'a OsStr,
        kind: FileType,
    ) -> Candidate<'a> {
        Candidate {
            directory,
            depth,
            parent,
            name,
            kind,
            size: OnceCell::new(),
        }
    }

    /// How far below the top its directory is: 0 for an entry at the top.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The name of its directory; the top has none.
    #[must_use]
    pub fn parent(&self) -> &OsStr {
        self.parent
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        self.name
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    /// Its size in bytes (of a symlink itself), looked up when it is first asked for; `None` if it cannot be told.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        *self.size.get_or_init(|| {
            let stat = at::stat_at(self.directory, self.name).ok()?;
            Some(stat.stx_size)
        })
    }
}
