//! Compares two trees by their manifests.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;

use super::{Entry, Kind, Manifest};

/// One difference of one entry.
#[derive(Debug)]
pub struct Difference {
    /// The entry, relative to the top, which is the empty path.
    pub path: PathBuf,
    /// The difference.
    pub what: What,
}

/// A kind of difference.
#[derive(Debug)]
pub enum What {
    /// The entry is missing.
    Missing,
    /// The entry is unexpected.
    Extra,
    /// Only one of the two trees has this fifo. A fifo holds no data, and some disks do not support fifos.
    Fifo,
    /// The entry has another type, for example a directory in place of a file.
    Kind,
    /// The file has another size, in bytes.
    Size {
        /// The expected size.
        expected: u64,
        /// The found size.
        found: u64,
    },
    /// The file has the right size, and another content.
    Content,
    /// The symlink has another target.
    Target,
    /// The file lacks a hard link to its expected other names, or is linked to others.
    Links,
    /// Permission bits, set-id or sticky bits are different.
    Mode,
    /// The time of the last change is different.
    Mtime,
    /// The entry could not be read, so its content is unknown.
    Unreadable(crate::transfer::Error),
}

impl What {
    /// Whether the difference concerns the content of the tree, and not attributes.
    #[must_use]
    pub fn is_content(&self) -> bool {
        !matches!(self, What::Fifo | What::Links | What::Mode | What::Mtime)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Missing => f.write_str("is missing"),
            What::Extra => f.write_str("should not be there"),
            What::Fifo => f.write_str("is a fifo that only one of the two has"),
            What::Kind => f.write_str("is something else than it should be"),
            What::Size { expected, found } => {
                write!(f, "has {found} bytes in place of {expected}")
            }
            What::Content => f.write_str("has another content"),
            What::Target => f.write_str("points elsewhere"),
            What::Links => f.write_str("has other hard links"),
            What::Mode => f.write_str("has another mode"),
            What::Mtime => f.write_str("has another time of last change"),
            What::Unreadable(error) => write!(f, "{error}"),
        }
    }
}

impl Manifest {
    /// The differences between this manifest and `found`.
    #[must_use]
    pub fn differences(&self, found: &Manifest) -> Vec<Difference> {
        let mut by_name: HashMap<(usize, &OsStr), usize> = HashMap::new();
        for (index, entry) in found.entries.iter().enumerate().skip(1) {
            by_name.insert((entry.parent, &entry.name), index);
        }
        let mut differences = Vec::new();
        // The position of each entry in the other manifest; a directory comes before its entries.
        let mut there: Vec<Option<usize>> = Vec::with_capacity(self.entries.len());
        for (index, entry) in self.entries.iter().enumerate() {
            let other = match index {
                0 => Some(0),
                _ => there
                    .get(entry.parent)
                    .copied()
                    .flatten()
                    .and_then(|parent| by_name.remove(&(parent, &*entry.name))),
            };
            let mut report = |what| {
                differences.push(Difference {
                    path: self.path(index),
                    what,
                });
            };
            match other.and_then(|other| found.entries.get(other)) {
                None => report(alone(entry, What::Missing)),
                Some(other) => compare(entry, other, &there, report),
            }
            there.push(other);
        }
        let mut extra: Vec<usize> = by_name.into_values().collect();
        extra.sort_unstable();
        differences.extend(extra.into_iter().map(|index| {
            Difference {
                path: found.path(index),
                what: found
                    .entries
                    .get(index)
                    .map_or(What::Extra, |entry| alone(entry, What::Extra)),
            }
        }));
        differences
    }
}

/// The difference for an entry that only one of two trees has.
fn alone(entry: &Entry, what: What) -> What {
    match entry.kind {
        Kind::Fifo => What::Fifo,
        _ => what,
    }
}

fn compare(entry: &Entry, other: &Entry, there: &[Option<usize>], mut report: impl FnMut(What)) {
    match (&entry.kind, &other.kind) {
        (Kind::Directory, Kind::Directory) | (Kind::Fifo, Kind::Fifo) => {}
        (Kind::Symlink { target }, Kind::Symlink { target: found }) => {
            if target != found {
                report(What::Target);
            }
        }
        (
            Kind::File { size, hash, link },
            Kind::File {
                size: found,
                hash: found_hash,
                link: found_link,
            },
        ) => {
            if size != found {
                report(What::Size {
                    expected: *size,
                    found: *found,
                });
            } else if hash != found_hash {
                report(What::Content);
            }
            let link = link.map(|first| there.get(first).copied().flatten());
            if link != found_link.map(Some) {
                report(What::Links);
            }
        }
        _ => return report(What::Kind),
    }
    // A symlink's mode has no meaning, and not every file system can set it.
    if entry.mode != other.mode && !matches!(entry.kind, Kind::Symlink { .. }) {
        report(What::Mode);
    }
    // `order`: a disk may keep times less precisely.
    if entry.mtime.order(other.mtime) != Ordering::Equal {
        report(What::Mtime);
    }
}
