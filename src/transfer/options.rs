//! What the caller chooses for a copy.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::bandwidth::Bandwidth;
use super::durable::Durability;
use super::manifest::{Kind, Manifest, Time};
use super::progress::Progress;
use crate::sys::at;

/// The default number of threads of a copy.
const THREADS: usize = 4;

/// The options for copying or reading a tree.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Which entries are copied; `None` means all.
    pub select: Option<&'a Selector<'a>>,
    /// The name of an entry at the top, not a directory, that is written after all other files: the marker that the
    /// copy is complete.
    pub last: Option<&'a OsStr>,
    /// Where the copy counts its progress, and checks whether it was cancelled.
    pub progress: Option<&'a Progress>,
    /// The limit on the bytes per second, shared by all copies with the same limit.
    pub bandwidth: Option<&'a Bandwidth>,
    /// When the copy is durable.
    pub durability: Durability<'a>,
    /// For a copy that is restored from an archive: the original times. Entries that are the same as their original get
    /// its time of change, and are marked as accessed now. Any other copy gets both times from its source.
    pub originals: Option<&'a Originals>,
    /// The maximum number of threads that read and write. The caller's thread copies a tree of few files alone.
    pub threads: usize,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            select: None,
            last: None,
            progress: None,
            bandwidth: None,
            durability: Durability::Now,
            originals: None,
            threads: THREADS,
        }
    }
}

/// Returns for each entry whether it is copied; a directory that is not copied excludes all its entries.
pub type Selector<'a> = dyn Fn(&Candidate<'_>) -> bool + Sync + 'a;

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

/// The times and contents of the originals of files that are copied back from an archive.
///
/// The archive's disk may keep times less precisely than the original's; the manifest has the original times. And the
/// times of access are old, so a purge would remove the restored files first: they are marked as accessed now.
#[derive(Debug, Default)]
pub struct Originals(HashMap<PathBuf, (Time, Kind)>);

impl Originals {
    /// The originals in a manifest.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Originals {
        let entries = manifest.entries().iter().enumerate();
        let known = entries.map(|(index, entry)| {
            let known = (entry.mtime, entry.kind.clone());
            (manifest.path(index), known)
        });
        Originals(known.collect())
    }

    /// The time when the original of an entry was last changed; `None` if that is unknown, or the entry differs from
    /// the original. A directory counts as the same if its time may be the original's, truncated by a disk.
    pub(super) fn mtime(&self, path: &Path, found: &Kind, mtime: Time) -> Option<Time> {
        let (time, kind) = self.0.get(path)?;
        let same = match (kind, found) {
            (Kind::Directory, Kind::Directory) => time.order(mtime).is_eq(),
            (Kind::Fifo, Kind::Fifo) => true,
            (Kind::Symlink { target }, Kind::Symlink { target: found }) => target == found,
            (
                Kind::File { size, hash, .. },
                Kind::File {
                    size: found,
                    hash: content,
                    ..
                },
            ) => (size, hash) == (found, content),
            _ => false,
        };
        same.then_some(*time)
    }
}
