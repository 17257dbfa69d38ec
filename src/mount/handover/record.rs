//! One change of a mount's tables, as it is recorded.

use serde::{Deserialize, Serialize};

use crate::mount::tables::node::{Node, NodeRole};
use crate::sys::file_id::FileId;
use crate::sys::name::Name;

/// A change of the tables. With each change of this type, or of what else a process leaves, the version in
/// `daemon/supervisor/state.rs` is increased: only a program of the same version goes on with a mount.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mount) enum Record<'a> {
    /// A device was used for the first time: its number is the count of those before it.
    Device(u32),
    /// A number stands for a node from now on, or for another one than before.
    Node {
        id: u64,
        #[serde(borrow)]
        node: NodeRecord<'a>,
    },
    /// A node may have this name as well, or may get it soon.
    Name {
        id: u64,
        #[serde(borrow)]
        node: NodeRecord<'a>,
    },
    /// The kernel has forgotten a node.
    Forgotten(u64),
    /// A node has a number that is not derived from its inode.
    Displaced(IdentityRecord, DisplacedRecord),
    /// A displaced node is no longer known.
    Replaced(IdentityRecord),
    /// A file was opened.
    Opened(u64, OpenedRecord),
    /// An open file was closed.
    Closed(u64),
    /// An open file holds a lock from now on, or no longer.
    Locked(u64, bool),
    /// A node has taken the place of another, whose file was recovered.
    Superseded(u64, u64),
    /// A listing of a union has assigned these numbers, from the first on, to positions.
    Positions(u64, u64, Vec<(u8, u64)>),
    /// The paths of the folders, in the order of their numbers. The first record of a log.
    Folders(Vec<Vec<u8>>),
    /// The file of a node that another one has superseded serves its job again.
    Current(u64),
}

/// The identity of a file: device, inode, time of birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(in crate::mount) struct IdentityRecord(u32, u64, u64);

impl IdentityRecord {
    /// The identity of no file.
    pub(super) const NONE: IdentityRecord = IdentityRecord(0, 0, 0);
}

impl From<FileId> for IdentityRecord {
    fn from(identity: FileId) -> IdentityRecord {
        IdentityRecord(identity.device(), identity.inode(), identity.birth())
    }
}

impl From<IdentityRecord> for FileId {
    fn from(IdentityRecord(device, inode, birth): IdentityRecord) -> FileId {
        FileId::new(device, inode, birth)
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mount) struct NodeRecord<'a> {
    identity: IdentityRecord,
    parent: u64,
    location: u8,
    role: NodeRole,
    directory: bool,
    name: &'a [u8],
}

impl<'a> From<&'a Node> for NodeRecord<'a> {
    fn from(node: &'a Node) -> NodeRecord<'a> {
        use std::os::unix::ffi::OsStrExt;
        NodeRecord {
            identity: node.identity.into(),
            parent: node.parent,
            location: node.location,
            role: node.role,
            directory: node.directory,
            name: node.name.as_bytes(),
        }
    }
}

impl From<NodeRecord<'_>> for Node {
    fn from(node: NodeRecord<'_>) -> Node {
        use std::os::unix::ffi::OsStrExt;
        Node {
            identity: node.identity.into(),
            parent: node.parent,
            name: Name::from(std::ffi::OsStr::from_bytes(node.name)),
            location: node.location,
            role: node.role,
            directory: node.directory,
        }
    }
}

/// The number of a displaced node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mount) struct DisplacedRecord {
    pub(in crate::mount) number: u64,
    pub(in crate::mount) generation: u64,
    /// How many numbers have been assigned in all.
    pub(in crate::mount) total: u64,
}

/// An open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mount) struct OpenedRecord {
    pub(in crate::mount) node: u64,
    pub(in crate::mount) identity: IdentityRecord,
    pub(in crate::mount) readable: bool,
    pub(in crate::mount) writable: bool,
    pub(in crate::mount) only_lock: bool,
    /// Whether it holds a lock.
    pub(in crate::mount) locked: bool,
    /// The kernel's number of the file that the kernel reads and writes by itself, if it does.
    pub(in crate::mount) backing: Option<u32>,
    /// The number of the request that has opened it.
    pub(in crate::mount) request: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this fails, records of this program cannot be read by the one before: increase the version in
    /// `daemon/supervisor/state.rs`, and change the expected bytes.
    #[test]
    fn records_are_read_by_all_programs_of_the_version() {
        let identity = IdentityRecord(1, 2, 3);
        let node = NodeRecord {
            identity,
            parent: 4,
            location: 5,
            role: NodeRole::Outside,
            directory: true,
            name: b"n",
        };
        let opened = OpenedRecord {
            node: 6,
            identity,
            readable: true,
            writable: false,
            only_lock: false,
            locked: true,
            backing: Some(7),
            request: 1,
        };
        let displaced = DisplacedRecord {
            number: 8,
            generation: 9,
            total: 10,
        };
        let records = [
            Record::Device(11),
            Record::Node {
                id: 12,
                node: node.clone(),
            },
            Record::Name { id: 13, node },
            Record::Forgotten(14),
            Record::Displaced(identity, displaced),
            Record::Replaced(identity),
            Record::Opened(15, opened),
            Record::Closed(16),
            Record::Locked(17, true),
            Record::Superseded(18, 19),
            Record::Positions(20, 21, vec![(22, 23)]),
            Record::Folders(vec![b"/f".to_vec()]),
            Record::Current(24),
        ];
        let bytes: Vec<_> = records
            .iter()
            .map(|it| postcard::to_stdvec(it).unwrap())
            .collect();
        let expected: [&[u8]; 13] = [
            &[0, 11],
            &[1, 12, 1, 2, 3, 4, 5, 5, 1, 1, b'n'],
            &[2, 13, 1, 2, 3, 4, 5, 5, 1, 1, b'n'],
            &[3, 14],
            &[4, 1, 2, 3, 8, 9, 10],
            &[5, 1, 2, 3],
            &[6, 15, 6, 1, 2, 3, 1, 0, 0, 1, 1, 7, 1],
            &[7, 16],
            &[8, 17, 1],
            &[9, 18, 19],
            &[10, 20, 21, 1, 22, 23],
            &[11, 1, 2, b'/', b'f'],
            &[12, 24],
        ];
        assert_eq!(bytes, expected);
    }
}
