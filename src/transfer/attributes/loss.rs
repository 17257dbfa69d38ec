//! Records the attributes that a copy could not keep.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// One kind of attribute that a copy could not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The attribute that was not kept.
    pub what: Lost,
    /// The number of affected entries.
    pub count: u64,
    /// One of these entries, relative to the top.
    pub example: PathBuf,
}

/// An attribute that was not kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lost {
    /// The owner: only root may change owners. Set-id bits of such a file are dropped too, because they would grant the
    /// rights of another user.
    Owner,
    /// The group: a user other than root may set only groups that this user is a member of. Set-id bits are dropped
    /// too, and the rights that not both of group and others had, because the members of both are other users now.
    Group,
    /// The mode: the file system does not store one for each file.
    Mode,
    /// The times of a symlink: the file system cannot set them.
    LinkTimes,
    /// An extended attribute, or an access control list, by its name: the file system does not support it, or the
    /// caller may not set it.
    Attribute(String),
    /// A hard link of a symlink or fifo, or of a file on a disk without hard links: each name has become a separate
    /// entry.
    HardLink,
    /// A socket, a device or another special file, which has no content and is left out.
    Special,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self.example.as_os_str().is_empty() {
            true => Path::new(".").display(),
            false => self.example.display(),
        };
        match &self.what {
            Lost::Owner => write!(f, "the owner was not kept: {path}")?,
            Lost::Group => write!(
                f,
                "the group was not kept, nor what only it might do: {path}"
            )?,
            Lost::LinkTimes => write!(f, "the times of a symlink were not kept: {path}")?,
            Lost::Mode => write!(f, "the mode was not kept: {path}")?,
            Lost::Attribute(name) => write!(f, "the attribute {name} was not kept: {path}")?,
            Lost::HardLink => write!(f, "a hard link was not kept: {path}")?,
            Lost::Special => write!(f, "a special file was left out: {path}")?,
        }
        match self.count {
            0 | 1 => Ok(()),
            count => write!(f, " and {} more", count - 1),
        }
    }
}

/// The losses so far: for each kind, the number and one example.
#[derive(Debug, Default)]
pub(in crate::transfer) struct Losses(BTreeMap<Lost, (u64, PathBuf)>);

impl Losses {
    pub(in crate::transfer) fn add(&mut self, what: Lost, example: impl FnOnce() -> PathBuf) {
        self.0.entry(what).or_insert_with(|| (0, example())).0 += 1;
    }

    pub(in crate::transfer) fn into_list(self) -> Vec<Loss> {
        let loss = |(what, (count, example))| Loss {
            what,
            count,
            example,
        };
        self.0.into_iter().map(loss).collect()
    }
}
