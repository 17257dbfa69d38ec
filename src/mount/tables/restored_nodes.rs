//! Enters nodes that the kernel has received from an earlier process, and drops those that it does not use any more.

use std::ffi::OsStr;

use crate::mount::handover::record::{DisplacedRecord, NodeRecord, Record};
use crate::mount::tables::nodes::{KnownNode, Node, Nodes};
use crate::mount::tables::numbers::ROOT;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;

impl Nodes {
    /// Enters a node that the kernel has received from an earlier process, under its possible names, the likeliest last.
    pub(in crate::mount) fn restore(&self, id: u64, mut names: Vec<Node>) {
        // Without a count, the kernel had forgotten it.
        let (Some(node), Some((slot, count))) = (names.pop(), self.counts.claim(id)) else {
            return;
        };
        let mut entry = KnownNode::new(node, count);
        entry.slot = slot.recorded(true).inherited(true);
        let mut shard = self.write(id);
        shard.entries.insert(id, entry);
        if !names.is_empty() {
            let names = names.iter().rev().map(Node::alias).collect();
            shard.aliases.insert(id, names);
        }
    }

    /// Enters a file that the kernel has received from an earlier process and that is not recorded, unless it is known
    /// already.
    pub(in crate::mount) fn restore_recent(&self, id: u64, node: Node) {
        let mut shard = self.write(id);
        if shard.entries.contains_key(&id) {
            return;
        }
        if let Some((slot, count)) = self.counts.claim(id) {
            let mut entry = KnownNode::new(node, count);
            entry.slot = slot.recorded(false).inherited(true);
            shard.entries.insert(id, entry);
        }
    }

    /// Records for the next process that a node is about to get a name.
    pub(in crate::mount) fn record_name(&self, id: u64, parent: u64, name: &OsStr, location: u8) {
        let shard = self.read(id);
        if let Some(entry) = shard.entries.get(&id)
            && entry.slot.is_recorded()
        {
            let node = Node {
                parent,
                name: Name::from(name),
                location,
                ..entry.node.clone()
            };
            let node = NodeRecord::from(&node);
            self.recorder.record(&Record::Name { id, node });
        }
    }

    /// Enters the number of a displaced node that an earlier process has assigned.
    pub(in crate::mount) fn restore_number(&self, identity: FileId, number: DisplacedRecord) {
        self.displaced.restore(identity, number);
    }

    /// The nodes that only earlier processes have sent to the kernel.
    pub(in crate::mount) fn inherited(&self) -> Vec<u64> {
        let mut inherited = self.counts.unclaimed();
        for shard in &self.shards {
            let shard = shard.read();
            let entries = shard.entries.iter();
            let entries = entries.filter(|(id, entry)| **id != ROOT && entry.slot.is_inherited());
            inherited.extend(entries.map(|(id, _)| id));
        }
        inherited
    }

    /// As [`Nodes::forget`], for all calls that earlier processes have made, if this one has made none.
    pub(in crate::mount) fn forget_inherited<T>(
        &self,
        id: u64,
        release: impl FnOnce() -> T,
    ) -> Option<T> {
        let mut shard = self.write(id);
        match shard.entries.get(&id) {
            None => self.counts.forget_unclaimed(id, u64::MAX).then(release),
            Some(entry) if entry.slot.is_inherited() => {
                self.remove(&mut shard, id);
                Some(release())
            }
            Some(_) => None,
        }
    }
}
