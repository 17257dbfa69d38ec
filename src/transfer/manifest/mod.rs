//! The content of a tree: the record of a copy, by which the copy can be verified later.
//!
//! - this file: the entries, and their order
//! - [`json`]: writes the file, and has its lines; `document`: reads the file entry by entry
//! - [`difference`]: the differences of two trees

mod difference;
mod document;
mod json;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

pub use blake3::Hash;
pub use difference::{Difference, What};
pub use json::{FORMAT, ReadError};
pub(crate) use json::{bytes, text_or_hex};

pub use crate::sys::disk_time::Time;

/// The content of a tree. The first entry is the tree's top; a directory comes before its entries, and names are in the
/// order of their bytes.
///
/// Entries store their parent and not their path, so that a very deep tree takes no more memory than a flat one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Entry>,
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The position of the entry's directory among the entries; the top is its own.
    pub parent: usize,
    /// The entry's name, empty for the top.
    pub name: Box<OsStr>,
    /// Permission bits, set-id and sticky bits (`0o7777`).
    pub mode: u32,
    /// The time of the last change of the content.
    pub mtime: Time,
    /// The type and the content.
    pub kind: Kind,
}

impl Entry {
    /// Whether two entries have the same content, as far as is known without reading. Ignores modes and the times of directories: they do
    /// not justify a new copy, and not every file system keeps them.
    #[must_use]
    pub fn looks_like(&self, other: &Entry) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Directory, Kind::Directory) | (Kind::Fifo, Kind::Fifo) => true,
            (Kind::Symlink { target }, Kind::Symlink { target: other }) => target == other,
            (
                Kind::File { size, .. },
                Kind::File {
                    size: other_size, ..
                },
            ) => size == other_size && self.mtime.order(other.mtime).is_eq(),
            _ => false,
        }
    }
}

/// The type and the content of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Bytes, holes included.
        size: u64,
        /// BLAKE3 of its content, holes as zeros.
        hash: Hash,
        /// For a further name of a file: the position of the first entry that is the same file.
        link: Option<usize>,
    },
    /// A symlink.
    Symlink {
        /// The content of the symlink, which need not be an existing path.
        target: Box<OsStr>,
    },
    /// A fifo.
    Fifo,
}

impl Manifest {
    /// The entries, the top first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The path of an entry, relative to the top.
    #[must_use]
    pub fn path(&self, index: usize) -> PathBuf {
        path(&self.entries, index)
    }

    /// The number of files, including symlinks, fifos and further names of a file.
    #[must_use]
    pub fn files(&self) -> u64 {
        let directory = |entry: &&Entry| matches!(entry.kind, Kind::Directory);
        let directories = self.entries.iter().filter(directory).count();
        (self.entries.len() - directories) as u64
    }

    /// The total size of the files, including holes; a file of several names counts once.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|entry| match entry.kind {
            Kind::File {
                size, link: None, ..
            } => size,
            _ => 0,
        });
        sizes.sum()
    }

    /// The manifest without some files and symlinks; directories are always kept. If a file is left out, its next name
    /// becomes the first one, or a separate file.
    #[must_use]
    pub fn without(self, left_out: impl Fn(&Entry) -> bool) -> Manifest {
        let left_out = |entry: &Entry| !matches!(entry.kind, Kind::Directory) && left_out(entry);
        if !self.entries.iter().any(left_out) {
            return self;
        }
        let mut places: Vec<Option<usize>> = Vec::with_capacity(self.entries.len());
        let mut entries: Vec<Entry> = Vec::new();
        // The new first name of a file whose first name is left out.
        let mut first: HashMap<usize, usize> = HashMap::new();
        for mut entry in self.entries {
            if left_out(&entry) {
                places.push(None);
                continue;
            }
            let place = entries.len();
            entry.parent = places.get(entry.parent).copied().flatten().unwrap_or(0);
            if let Kind::File { link, .. } = &mut entry.kind
                && let Some(group) = *link
            {
                *link = match places.get(group).copied().flatten() {
                    Some(known) => Some(known),
                    None => first.get(&group).copied(),
                };
                first.entry(group).or_insert(place);
            }
            places.push(Some(place));
            entries.push(entry);
        }
        Manifest { entries }
    }

    /// Sets the final modes of entries, by their positions.
    pub(super) fn set_modes(&mut self, modes: Vec<(usize, u32)>) {
        for (index, mode) in modes {
            if let Some(entry) = self.entries.get_mut(index) {
                entry.mode = mode;
            }
        }
    }

    /// Sorts entries that were found in any order, each after its directory, into the order of a manifest. Also returns
    /// the previous position of each entry.
    pub(super) fn arrange(mut found: Vec<Entry>) -> (Manifest, Vec<usize>) {
        let order = order(&found);
        let mut places = vec![0; found.len()];
        for (new, old) in order.iter().enumerate() {
            if let Some(place) = places.get_mut(*old) {
                *place = new;
            }
        }
        let moved = |old: usize| places.get(old).copied().unwrap_or(0);
        // A group of hard links is identified by its first name in the new order.
        let mut first: Vec<usize> = (0..found.len()).collect();
        for old in &order {
            if let Some(group) = link_of(&found, *old)
                && let Some(group_first) = first.get_mut(group)
                && moved(*old) < moved(*group_first)
            {
                *group_first = *old;
            }
        }
        let mut entries = Vec::with_capacity(found.len());
        for old in &order {
            let group = link_of(&found, *old).unwrap_or(*old);
            let group_first = first.get(group).copied().unwrap_or(group);
            let Some(entry) = found.get_mut(*old) else {
                continue;
            };
            entries.push(Entry {
                parent: moved(entry.parent),
                name: std::mem::replace(&mut entry.name, OsString::new().into_boxed_os_str()),
                mode: entry.mode,
                mtime: entry.mtime,
                kind: match &mut entry.kind {
                    Kind::File { size, hash, .. } => Kind::File {
                        size: *size,
                        hash: *hash,
                        link: (group_first != *old).then(|| moved(group_first)),
                    },
                    Kind::Symlink { target } => Kind::Symlink {
                        target: target.clone(),
                    },
                    Kind::Directory => Kind::Directory,
                    Kind::Fifo => Kind::Fifo,
                },
            });
        }
        (Manifest { entries }, order)
    }
}

/// The positions of entries, each directory followed by its entries, sorted by the bytes of the names.
fn order(found: &[Entry]) -> Vec<usize> {
    let name = |index: &usize| found.get(*index).map(|entry| entry.name.as_bytes());
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); found.len()];
    for (index, entry) in found.iter().enumerate().skip(1) {
        if let Some(siblings) = children.get_mut(entry.parent) {
            siblings.push(index);
        }
    }
    let mut order = Vec::with_capacity(found.len());
    let mut next = vec![0];
    next.truncate(found.len());
    while let Some(index) = next.pop() {
        order.push(index);
        if let Some(below) = children.get_mut(index) {
            below.sort_unstable_by_key(|child| Reverse(name(child)));
            next.append(below);
        }
    }
    order
}

fn link_of(found: &[Entry], index: usize) -> Option<usize> {
    match found.get(index)?.kind {
        Kind::File { link, .. } => link,
        _ => None,
    }
}

/// The names on the path from the top to an entry.
pub(super) fn names(entries: &[Entry], mut index: usize) -> Vec<&OsStr> {
    let mut names = Vec::new();
    while index != 0
        && let Some(entry) = entries.get(index)
    {
        names.push(&*entry.name);
        index = entry.parent;
    }
    names.reverse();
    names
}

/// The path of an entry, relative to the top.
pub(super) fn path(entries: &[Entry], index: usize) -> PathBuf {
    let names: Vec<&[u8]> = names(entries, index)
        .into_iter()
        .map(OsStrExt::as_bytes)
        .collect();
    PathBuf::from(OsStr::from_bytes(&names.join(&b'/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(parent: usize, name: &str, kind: Kind) -> Entry {
        Entry {
            parent,
            name: OsStr::new(name).into(),
            mode: 0o644,
            mtime: Time {
                seconds: 1,
                nanoseconds: 2,
            },
            kind,
        }
    }

    fn file(link: Option<usize>) -> Kind {
        Kind::File {
            size: 3,
            hash: blake3::hash(b"abc"),
            link,
        }
    }

    #[test]
    fn what_is_left_out_takes_no_other_name_along() {
        let found = vec![
            entry(0, "", Kind::Directory),
            entry(0, ".nfs", file(None)),
            entry(0, "b", Kind::Directory),
            entry(2, "y", file(Some(1))),
            entry(2, "z", file(Some(1))),
        ];
        let manifest = Manifest::arrange(found).0;
        let rest = manifest.without(|entry| *entry.name == *".nfs");
        let paths: Vec<_> = (0..4).map(|index| rest.path(index)).collect();
        assert_eq!(paths, ["", "b", "b/y", "b/z"].map(PathBuf::from));
        let links: Vec<_> = (0..4).map(|index| link_of(rest.entries(), index)).collect();
        assert_eq!(links, [None, None, None, Some(2)]);
    }

    #[test]
    fn entries_are_ordered_by_name_below_their_directory() {
        let found = vec![
            entry(0, "", Kind::Directory),
            entry(0, "z", file(None)),
            entry(0, "b", Kind::Directory),
            entry(2, "y", file(Some(1))),
            entry(0, "a", file(Some(1))),
            entry(2, "x", Kind::Fifo),
        ];
        let (manifest, order) = Manifest::arrange(found);
        let paths: Vec<_> = (0..6).map(|index| manifest.path(index)).collect();
        let expected = ["", "a", "b", "b/x", "b/y", "z"].map(PathBuf::from);
        assert_eq!(paths, expected);
        assert_eq!(order, [0, 4, 2, 5, 3, 1]);
        let links: Vec<_> = (0..6)
            .map(|index| link_of(manifest.entries(), index))
            .collect();
        assert_eq!(links, [None, None, None, None, Some(1), Some(1)]);
        assert_eq!((manifest.files(), manifest.bytes()), (4, 3));
    }
}
