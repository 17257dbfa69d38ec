//! Lets the caller decide which entries are copied.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

use rustix::fs::FileType;

use crate::sys::at;

/// Returns for each entry whether it is copied; a directory that is not copied excludes all its entries.
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

    /// The depth of the entry's directory below the top: 0 for an entry at the top.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The name of the entry's directory, empty for the top.
    #[must_use]
    pub fn parent(&self) -> &OsStr {
        self.parent
    }

    /// The entry's name.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        self.name
    }

    /// Whether the entry is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Whether the entry is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    /// The entry's size in bytes (of a symlink itself), read at the first call; `None` if it cannot be read.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        *self.size.get_or_init(|| {
            let stat = at::stat_at(self.directory, self.name).ok()?;
            Some(stat.stx_size)
        })
    }
}
