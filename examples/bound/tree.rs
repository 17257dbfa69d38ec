//! The tree that `bound` shows, whole in memory.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use anyhow::{Context, Result};
use fuser::{Errno, FileAttr, FileType, INodeNo};
use indexmap::IndexMap;

/// The number of the tree's root, as FUSE has it.
const ROOT: u64 = 1;

/// A file, or a directory with its entries.
#[derive(Debug)]
pub(crate) struct Node {
    /// What the kernel gets as its attributes.
    pub(crate) attributes: FileAttr,
    /// The entries of a directory by name; empty for a file.
    pub(crate) entries: IndexMap<OsString, u64>,
}

/// Every node by its number. Numbers are never used again, so that a removed node leaves a gap.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Option<Node>>,
}

impl Tree {
    /// Reads the names and attributes below `locations`, merged: of two files with one path, the first location's counts.
    pub(crate) fn read(locations: &[impl AsRef<Path>]) -> Result<Self> {
        let mut tree = Self {
            nodes: vec![None, Some(directory(ROOT, 0o755))],
        };
        for location in locations {
            tree.merge(ROOT, location.as_ref())?;
        }
        Ok(tree)
    }

    fn merge(&mut self, parent: u64, directory: &Path) -> Result<()> {
        let listing = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
        for entry in listing {
            let entry = entry.with_context(|| directory.display().to_string())?;
            let path = entry.path();
            let metadata =
                fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
            let Some(kind) = FileType::from_std(metadata.file_type()) else {
                continue;
            };
            let known = self.lookup(parent, &entry.file_name()).ok();
            let id = match known.map(|node| node.attributes.ino.0) {
                Some(id) => id,
                None => self.add(parent, &entry.file_name(), |id| {
                    attributes(id, kind, &metadata)
                }),
            };
            if metadata.is_dir() {
                self.merge(id, &path)?;
            }
        }
        Ok(())
    }

    /// The node with a number.
    pub(crate) fn node(&self, id: u64) -> Result<&Node, Errno> {
        self.nodes
            .get(index(id))
            .and_then(Option::as_ref)
            .ok_or(Errno::ENOENT)
    }

    /// The node with a number, to change it.
    pub(crate) fn node_mut(&mut self, id: u64) -> Result<&mut Node, Errno> {
        self.nodes
            .get_mut(index(id))
            .and_then(Option::as_mut)
            .ok_or(Errno::ENOENT)
    }

    /// The entry `name` of a directory.
    pub(crate) fn lookup(&self, parent: u64, name: &OsStr) -> Result<&Node, Errno> {
        let id = self.node(parent)?.entries.get(name).ok_or(Errno::ENOENT)?;
        self.node(*id)
    }

    /// Makes a new file or directory, and returns its attributes.
    pub(crate) fn create(
        &mut self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        kind: FileType,
    ) -> Result<FileAttr, Errno> {
        self.node(parent)?;
        let id = self.add(parent, name, |id| {
            let mut attributes = directory(id, mode).attributes;
            attributes.kind = kind;
            attributes
        });
        Ok(self.node(id)?.attributes)
    }

    /// Removes the entry `name` of a directory, and its node.
    pub(crate) fn remove(&mut self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        let id = self.take(parent, name)?;
        if let Some(node) = self.nodes.get_mut(index(id)) {
            *node = None;
        }
        Ok(())
    }

    /// Gives an entry another name, in place of what has that name.
    pub(crate) fn rename(
        &mut self,
        (parent, name): (u64, &OsStr),
        (new_parent, new_name): (u64, &OsStr),
    ) -> Result<(), Errno> {
        let id = self.take(parent, name)?;
        self.node_mut(new_parent)?
            .entries
            .insert(new_name.to_owned(), id);
        Ok(())
    }

    /// Takes the entry `name` out of a directory, and returns the number of its node.
    fn take(&mut self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
        self.node_mut(parent)?
            .entries
            .swap_remove(name)
            .ok_or(Errno::ENOENT)
    }

    fn add(&mut self, parent: u64, name: &OsStr, attributes: impl FnOnce(u64) -> FileAttr) -> u64 {
        let id = self.nodes.len() as u64;
        self.nodes.push(Some(Node {
            attributes: attributes(id),
            entries: IndexMap::new(),
        }));
        if let Ok(parent) = self.node_mut(parent) {
            parent.entries.insert(name.to_owned(), id);
        }
        id
    }
}

fn index(id: u64) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

/// An empty directory of root's, as new as the program.
fn directory(id: u64, mode: u32) -> Node {
    let now = SystemTime::now();
    let attributes = FileAttr {
        ino: INodeNo(id),
        size: 0,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: now,
        kind: FileType::Directory,
        perm: (mode & 0o7777) as u16,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    };
    Node {
        attributes,
        entries: IndexMap::new(),
    }
}

fn attributes(id: u64, kind: FileType, metadata: &fs::Metadata) -> FileAttr {
    let time = |time: io::Result<SystemTime>| time.unwrap_or(UNIX_EPOCH);
    let changed = Duration::from_secs(metadata.ctime().try_into().unwrap_or(0));
    FileAttr {
        ino: INodeNo(id),
        size: metadata.size(),
        blocks: metadata.blocks(),
        atime: time(metadata.accessed()),
        mtime: time(metadata.modified()),
        ctime: UNIX_EPOCH + changed,
        crtime: UNIX_EPOCH,
        kind,
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: metadata.nlink().try_into().unwrap_or(u32::MAX),
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}
