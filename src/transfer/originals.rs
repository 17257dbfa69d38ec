//! Restores the times of files that are copied back from an archive.
//!
//! The archive's disk may keep times less precisely than the original's; the manifest has the original times. And the
//! times of access are old, so a purge would remove the restored files first: they are marked as accessed now.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::manifest::{Kind, Manifest, Time};

/// The times and contents of the originals of files that are copied back.
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
