//! The state that a log of records leads to.

use std::collections::{BTreeMap, HashMap};

use rustix::io::Result;

use super::record::{DisplacedRecord, IdentityRecord, NodeRecord, OpenedRecord, Record};
use crate::mount::tables::node::Node;
use crate::sys::memory_log::MemoryLog;

/// The state of a mount's tables, as far as it is recorded.
#[derive(Debug, Default)]
pub(in crate::mount) struct Image {
    /// The paths of the folders, in the order of their numbers.
    pub(super) folders: Vec<Vec<u8>>,
    pub(super) devices: Vec<u32>,
    /// Each under its possible names, the latest last.
    pub(super) nodes: HashMap<u64, Vec<Node>>,
    pub(super) displaced: HashMap<IdentityRecord, DisplacedRecord>,
    pub(super) opened: BTreeMap<u64, OpenedRecord>,
    /// The highest number of an open file that was ever assigned.
    pub(super) last_handle: u64,
    pub(super) superseded: HashMap<u64, u64>,
    pub(super) positions: HashMap<u64, (u64, Vec<(u8, u64)>)>,
}

impl Image {
    /// Applies the next record. A record of a later version that cannot be understood is skipped.
    pub(super) fn apply(&mut self, bytes: &[u8]) {
        let record: Record<'_> = match postcard::from_bytes(bytes) {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!("a record of the previous process cannot be read: {error}");
                return;
            }
        };
        match record {
            Record::Folders(folders) => self.folders = folders,
            Record::Device(device) => self.devices.push(device),
            Record::Node { id, node } => {
                let node = Node::from(node);
                let names = self.nodes.entry(id).or_default();
                // A directory has one name; a file may have several.
                names.retain(|known| {
                    known.identity == node.identity && !node.directory && !is_same(known, &node)
                });
                names.push(node);
                keep_latest(names);
            }
            Record::Name { id, node } => {
                let names = self.nodes.entry(id).or_default();
                names.push(node.into());
                keep_latest(names);
            }
            Record::Forgotten(id) => {
                self.nodes.remove(&id);
                self.superseded.remove(&id);
                self.positions.remove(&id);
            }
            Record::Displaced(identity, number) => {
                self.displaced.insert(identity, number);
            }
            Record::Replaced(identity) => {
                self.displaced.remove(&identity);
            }
            Record::Opened(handle, opened) => {
                self.opened.insert(handle, opened);
                self.last_handle = self.last_handle.max(handle);
            }
            Record::Closed(handle) => {
                self.opened.remove(&handle);
            }
            Record::Locked(handle, locked) => {
                if let Some(opened) = self.opened.get_mut(&handle) {
                    opened.locked = locked;
                }
            }
            Record::Superseded(node, by) => {
                self.superseded.insert(node, by);
            }
            Record::Current(node) => {
                self.superseded.remove(&node);
            }
            Record::Positions(node, first, positions) => {
                let known = self.positions.entry(node).or_insert((first, Vec::new()));
                // A new table begins without positions.
                if !positions.is_empty() && known.0 + known.1.len() as u64 == first {
                    known.1.extend(positions);
                } else {
                    *known = (first, positions);
                }
            }
        }
    }

    /// Writes the records of which this is the sum.
    pub(super) fn write(&self, log: &mut MemoryLog) -> Result<()> {
        append(log, &Record::Folders(self.folders.clone()))?;
        for device in &self.devices {
            append(log, &Record::Device(*device))?;
        }
        for (id, names) in &self.nodes {
            let id = *id;
            for (at, node) in names.iter().map(NodeRecord::from).enumerate() {
                let record = match at {
                    0 => Record::Node { id, node },
                    _ => Record::Name { id, node },
                };
                append(log, &record)?;
            }
        }
        for (identity, number) in &self.displaced {
            append(log, &Record::Displaced(*identity, *number))?;
        }
        for (handle, opened) in &self.opened {
            append(log, &Record::Opened(*handle, *opened))?;
        }
        if self.last_handle > 0 && !self.opened.contains_key(&self.last_handle) {
            // The number must not be assigned again: the kernel may still refer to it.
            append(log, &Record::Opened(self.last_handle, OpenedRecord::NONE))?;
            append(log, &Record::Closed(self.last_handle))?;
        }
        for (node, by) in &self.superseded {
            append(log, &Record::Superseded(*node, *by))?;
        }
        for (node, (first, positions)) in &self.positions {
            let mut at = *first;
            append(log, &Record::Positions(*node, at, Vec::new()))?;
            for part in positions.chunks(PART) {
                append(log, &Record::Positions(*node, at, part.to_vec()))?;
                at += part.len() as u64;
            }
        }
        Ok(())
    }
}

/// How many names of a node are kept.
const NAMES_MAX: usize = 16;

fn keep_latest(names: &mut Vec<Node>) {
    if names.len() > NAMES_MAX {
        names.remove(0);
    }
}

fn is_same(one: &Node, other: &Node) -> bool {
    (one.parent, &one.name, one.location) == (other.parent, &other.name, other.location)
}

/// How many positions a record has at most.
const PART: usize = 8192;

impl OpenedRecord {
    /// Stands for a file that is closed at once.
    const NONE: OpenedRecord = OpenedRecord {
        node: 0,
        identity: IdentityRecord::NONE,
        readable: false,
        writable: false,
        only_lock: false,
        locked: false,
        backing: None,
        request: 0,
    };
}

/// Adds a record to a log.
pub(super) fn append(log: &mut MemoryLog, record: &Record<'_>) -> Result<()> {
    let mut space = [0; 512];
    match postcard::to_slice(record, &mut space) {
        Ok(bytes) => log.append(bytes),
        // A long name, or many positions.
        Err(_) => match postcard::to_stdvec(record) {
            Ok(bytes) => log.append(&bytes),
            Err(_) => Err(rustix::io::Errno::INVAL),
        },
    }
}
