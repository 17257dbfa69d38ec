//! The times of files that come back from an archive.
//!
//! The disk of the archive may keep less of them than the original had, which its manifest knows. And whatever was read
//! last when the archive was made would be purged first: files that come back have just been accessed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::manifest::{Kind, Manifest, Time};

/// What the originals of files were that are copied back.
#[derive(Debug, Default)]
pub struct Originals(HashMap<PathBuf, (Time, Kind)>);

impl Originals {
    /// As a manifest says.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Originals {
        let entries = manifest.entries().iter().enumerate();
        let known = entries.map(|(index, entry)| {
            let known = (entry.mtime, entry.kind.clone());
            (manifest.path(index), known)
        });
        Originals(known.collect())
    }

    /// When the original of an entry was last changed; `None` if that is unknown, or the entry is not what the original was. A directory
    /// is, if its time may be what a disk has kept of the original's.
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
