//! Keeps the table of nodes that the kernel knows, by number.

use std::ffi::OsStr;
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::mount::handover::lookup_counts::LookupCounts;
use crate::mount::handover::recent_nodes::Recent;
use crate::mount::handover::record::{NodeRecord, Record};
use crate::mount::handover::recorder::Recorder;
pub(in crate::mount) use crate::mount::tables::node::{Node, NodeRole};
use crate::mount::tables::numbers::{Devices, Displaced, ROOT, SHARDS};
pub(super) use crate::mount::tables::shard::{KnownNode, Shard};
pub(in crate::mount) use crate::mount::tables::shard::{Link, Version};
use crate::sys::file_id::FileId;
use crate::sys::name::Name;

/// Stands for the number of a location in nodes of internal files: the files are in a directory of the primary beside its jobs.
pub(in crate::mount) const INTERNAL: u8 = u8::MAX;

/// All nodes, in shards, so that threads rarely contend for a lock.
#[derive(Debug)]
pub(in crate::mount) struct Nodes {
    pub(super) shards: Vec<RwLock<Shard>>,
    pub(super) displaced: Displaced,
    pub(super) counts: LookupCounts,
    recent: Recent,
    pub(super) recorder: Arc<Recorder>,
}

impl Nodes {
    /// Returns a table that contains the root, which is never forgotten.
    pub(in crate::mount) fn new(root: FileId, recorder: Arc<Recorder>) -> Nodes {
        let nodes = Nodes {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            displaced: Displaced::new(recorder.clone()),
            counts: LookupCounts::default(),
            recent: Recent::default(),
            recorder,
        };
        let root = Node {
            identity: root,
            parent: ROOT,
            name: Name::from(OsStr::new(".")),
            location: crate::view::PRIMARY,
            role: NodeRole::Root,
            directory: true,
        };
        nodes.remember(ROOT, root, Version::default());
        nodes
    }

    /// The counts, to be shared with another process.
    pub(in crate::mount) fn counts(&self) -> &LookupCounts {
        &self.counts
    }

    /// The nodes that the kernel has received last, to be shared with another process.
    pub(in crate::mount) fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Records a node for the next process, from now on until the kernel forgets the node.
    pub(in crate::mount) fn record(&self, id: u64) {
        if let Some(entry) = self.write(id).entries.get_mut(&id)
            && !entry.slot.is_recorded()
        {
            entry.slot = entry.slot.recorded(true);
            self.note(id, entry);
        }
    }

    /// Records the present state of a node, if the node is recorded.
    pub(super) fn note(&self, id: u64, entry: &KnownNode) {
        if entry.slot.is_recorded() {
            let node = NodeRecord::from(&entry.node);
            self.recorder.record(&Record::Node { id, node });
        }
    }

    /// Records a node that the kernel is about to receive.
    fn note_received(&self, id: u64, entry: &KnownNode) {
        match entry.slot.is_recorded() {
            true => self.note(id, entry),
            false => self.recent.note(id, &entry.node),
        }
    }

    pub(super) fn read(&self, id: u64) -> RwLockReadGuard<'_, Shard> {
        self.shard(id).read()
    }

    pub(super) fn write(&self, id: u64) -> RwLockWriteGuard<'_, Shard> {
        self.shard(id).write()
    }

    fn shard(&self, id: u64) -> &RwLock<Shard> {
        // Inode numbers of neighbours differ in their low bits.
        &self.shards[(id % SHARDS as u64) as usize]
    }

    /// Returns the node with a number.
    pub(in crate::mount) fn get(&self, id: u64) -> Option<Node> {
        let shard = self.read(id);
        shard.entries.get(&id).map(|entry| entry.node.clone())
    }

    /// Returns the identity of the node with a number.
    pub(in crate::mount) fn identity(&self, id: u64) -> Option<FileId> {
        let shard = self.read(id);
        shard.entries.get(&id).map(|entry| entry.node.identity)
    }

    /// Where a node lies, under the name by which it was last looked up.
    pub(in crate::mount) fn link(&self, id: u64) -> Option<Link> {
        let shard = self.read(id);
        shard.entries.get(&id).map(|entry| Link::from(&entry.node))
    }

    /// Where a node lies: first under the name by which it was last looked up, then under its other names.
    pub(in crate::mount) fn links(&self, id: u64) -> Option<(Link, Vec<Link>)> {
        let shard = self.read(id);
        let entry = shard.entries.get(&id)?;
        let aliases = shard.aliases.get(&id).into_iter().flatten();
        Some((Link::from(&entry.node), aliases.map(Link::from).collect()))
    }

    /// The entry of a node that the kernel receives for the first time in this process.
    fn entry(&self, id: u64, node: Node) -> KnownNode {
        let mut entry = KnownNode::new(node, 1);
        match self.counts.claim(id) {
            Some((slot, before)) => {
                entry.slot = slot.recorded(entry.slot.is_recorded());
                entry.lookups = before.saturating_add(1);
                self.counts.set(slot, entry.lookups);
            }
            None => {
                let slot = self.counts.begin(id, 1);
                entry.slot = slot.recorded(entry.slot.is_recorded());
            }
        }
        entry
    }

    /// Notes that the kernel receives a node once more, under this name, and returns the number of the node: `id`, or
    /// another if that is in use. A previous name of a file stays as one of its other names.
    ///
    /// Also returns the location of the node in the previous reply to the kernel, if there was one.
    pub(in crate::mount) fn remember(
        &self,
        id: u64,
        node: Node,
        version: Version,
    ) -> (u64, Option<u8>) {
        loop {
            let number = self.number(id, &node.identity);
            let mut shard = self.write(number);
            if self.number(id, &node.identity) != number {
                continue;
            }
            let Some(entry) = shard.entries.get_mut(&number) else {
                let mut entry = self.entry(number, node);
                entry.version = version;
                self.note_received(number, &entry);
                shard.entries.insert(number, entry);
                return (number, None);
            };
            if entry.node.identity != node.identity {
                self.displaced.add(id, node.identity);
                continue;
            }
            entry.receive_again(&self.counts);
            entry.version = entry.version.after_reply(version);
            let was = entry.node.location;
            if !entry.slot.is_recorded() {
                self.recent.note(number, &node);
            }
            self.rename(&mut shard, number, node);
            return (number, Some(was));
        }
    }

    /// Returns the number of the node with an identity, if the kernel knows it.
    pub(in crate::mount) fn id_of(&self, devices: &Devices, identity: &FileId) -> Option<u64> {
        let id = self.number(devices.node(identity), identity);
        let node = self.get(id)?;
        (node.identity == *identity).then_some(id)
    }

    /// Returns the number under which a node is known; `id`, its own, if it is not displaced.
    pub(in crate::mount) fn number(&self, id: u64, identity: &FileId) -> u64 {
        self.displaced.get(identity).unwrap_or(id)
    }

    /// Returns the generation that the kernel must receive for a node with this identity.
    pub(in crate::mount) fn generation(&self, identity: &FileId) -> u64 {
        self.displaced.generation(identity)
    }

    /// Makes the node of a directory stand for a directory in another location, under the same number. `own` is the
    /// number of the other directory by its inode; if the kernel knows it already, it keeps that number as well.
    pub(in crate::mount) fn replace_directory(
        &self,
        id: u64,
        identity: FileId,
        location: u8,
        own: u64,
    ) {
        let is_known = |number| self.identity(number) == Some(identity);
        let known = is_known(own) || self.displaced.get(&identity).is_some_and(is_known);
        let mut shard = self.write(id);
        let Some(entry) = shard.entries.get_mut(&id) else {
            return;
        };
        if !known && entry.node.identity != identity {
            self.displaced.replace(&entry.node.identity, identity, id);
        }
        entry.node.identity = identity;
        entry.node.location = location;
        self.note(id, entry);
    }

    /// Changes the location of a node.
    pub(in crate::mount) fn set_location(&self, id: u64, location: u8) {
        if let Some(entry) = self.write(id).entries.get_mut(&id) {
            entry.node.location = location;
            self.note(id, entry);
        }
    }

    /// Replaces an entry, and records the change.
    fn rename(&self, shard: &mut Shard, id: u64, node: Node) {
        if shard.rename(id, node)
            && let Some(entry) = shard.entries.get(&id)
        {
            self.note(id, entry);
        }
    }

    /// As [`Nodes::remember`], but leaves a node unchanged that is already known.
    pub(in crate::mount) fn remember_unless_known(&self, id: u64, node: Node) {
        let mut shard = self.write(id);
        if let Some(entry) = shard.entries.get_mut(&id) {
            entry.receive_again(&self.counts);
            return;
        }
        let entry = self.entry(id, node);
        self.note(id, &entry);
        shard.entries.insert(id, entry);
    }

    /// Undoes `count` calls of [`Nodes::remember`]. If that removes the node, calls `release` before the number can be
    /// assigned to another node, or to the same one again, and returns its result. `release` must not block, nor use
    /// this table.
    pub(in crate::mount) fn forget<T>(
        &self,
        id: u64,
        count: u64,
        release: impl FnOnce() -> T,
    ) -> Option<T> {
        if id == ROOT {
            return None;
        }
        let mut shard = self.write(id);
        let Some(entry) = shard.entries.get_mut(&id) else {
            // A removed file may be kept open for it all the same.
            return self.counts.forget_unclaimed(id, count).then(release);
        };
        entry.lookups = (entry.lookups).saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        if entry.lookups > 0 {
            self.counts.set(entry.slot, entry.lookups);
            return None;
        }
        self.remove(&mut shard, id);
        Some(release())
    }

    pub(super) fn remove(&self, shard: &mut Shard, id: u64) {
        let Some(entry) = shard.entries.get(&id) else {
            return;
        };
        // Before the count, without which the number may be another file's in the next process.
        if entry.slot.is_recorded() {
            self.recorder.record(&Record::Forgotten(id));
        }
        self.displaced.forget(&entry.node.identity, id);
        self.counts.end(entry.slot);
        shard.remove(id);
    }

    /// Notes that a file of this version is opened; returns whether the kernel's cache agrees with it. If not, the
    /// kernel must drop its cached pages of the file before the reply.
    pub(in crate::mount) fn opened(&self, id: u64, version: Version) -> bool {
        match self.write(id).entries.get_mut(&id) {
            Some(entry) => {
                // The kernel uses the number until the file is closed.
                if !entry.slot.is_recorded() {
                    entry.slot = entry.slot.recorded(true);
                    self.note(id, entry);
                }
                std::mem::replace(&mut entry.version, version) == version
            }
            None => false,
        }
    }

    /// Notes that attributes are about to be sent to the kernel.
    pub(in crate::mount) fn sent(&self, id: u64, version: Version) {
        if self.version(id).is_some_and(|known| known != version)
            && let Some(entry) = self.write(id).entries.get_mut(&id)
        {
            entry.version = entry.version.after_reply(version);
        }
    }

    /// Notes that the kernel's cache may no longer agree with any version of a file: the kernel accepts the attributes
    /// in the reply to a change without dropping the contents that it had cached before.
    pub(in crate::mount) fn drop_version(&self, id: u64) {
        if let Some(entry) = self.write(id).entries.get_mut(&id) {
            entry.version = Version::default();
        }
    }

    /// The version of a file that the kernel's cache agrees with.
    pub(in crate::mount) fn version(&self, id: u64) -> Option<Version> {
        self.read(id).entries.get(&id).map(|entry| entry.version)
    }

    /// Notes that the kernel has dropped its cache of a file, unless other attributes have been sent to it since
    /// `known`.
    pub(in crate::mount) fn cache_dropped(&self, id: u64, known: Version, version: Version) {
        if let Some(entry) = self.write(id).entries.get_mut(&id)
            && entry.version == known
        {
            entry.version = version;
        }
    }

    /// Returns the same node under each of its other known names.
    pub(in crate::mount) fn other_names(&self, id: u64) -> Vec<Node> {
        let shard = self.read(id);
        let Some(entry) = shard.entries.get(&id) else {
            return Vec::new();
        };
        let aliases = shard.aliases.get(&id).into_iter().flatten();
        aliases
            .map(|alias| entry.node.called(alias.clone()))
            .collect()
    }

    /// Returns all known names of a node, each with its directory.
    pub(in crate::mount) fn names(&self, id: u64) -> Vec<(u64, Name)> {
        let shard = self.read(id);
        let Some(entry) = shard.entries.get(&id) else {
            return Vec::new();
        };
        let aliases = shard.aliases.get(&id).into_iter().flatten();
        let aliases = aliases.map(|alias| (alias.parent, alias.name.clone()));
        let node = &entry.node;
        std::iter::once((node.parent, node.name.clone()))
            .chain(aliases)
            .collect()
    }

    /// Replaces the entry of `id` by `node`, if the kernel still knows that number. Its previous names stay as its
    /// other names.
    pub(in crate::mount) fn update(&self, id: u64, node: Node) {
        self.rename(&mut self.write(id), id, node);
    }

    /// Notes that a file has lost one of several names.
    pub(in crate::mount) fn lost_name(&self, id: u64, file: &FileId, gone: (u64, &OsStr)) {
        let mut shard = self.write(id);
        if let Some(entry) = shard.lost_name(id, file, gone) {
            self.note_received(id, entry);
        }
    }

    /// Whether the kernel may know a node.
    pub(in crate::mount) fn is_received(&self, id: u64) -> bool {
        self.read(id).entries.contains_key(&id) || self.counts.is_unclaimed(id)
    }

    /// How many nodes there are.
    pub(in crate::mount) fn count(&self) -> usize {
        let lengths = self.shards.iter().map(|shard| shard.read().entries.len());
        lengths.sum::<usize>() + self.counts.unclaimed_count()
    }

    /// Notes that a node was moved: its old name is gone. Returns the previous node.
    pub(in crate::mount) fn moved(&self, id: u64, old: (u64, &OsStr), node: Node) -> Option<Node> {
        let mut shard = self.write(id);
        let was = shard.entries.get(&id)?.node.clone();
        self.rename(&mut shard, id, node);
        if let Some(aliases) = shard.aliases.get_mut(&id) {
            aliases.retain(|alias| (alias.parent, &*alias.name) != old);
        }
        Some(was)
    }

    /// Calls `call` with every node but the root.
    pub(in crate::mount) fn each(&self, mut call: impl FnMut(u64, &Node)) {
        for shard in &self.shards {
            for (id, entry) in &shard.read().entries {
                if *id != ROOT {
                    call(*id, &entry.node);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_is_reused_only_after_release() {
        let nodes = Nodes::new(FileId::new(1, 1, 0), Arc::default());
        let node = Node {
            identity: FileId::new(1, 7, 0),
            parent: ROOT,
            name: Name::from(std::ffi::OsStr::new("lock")),
            location: 0,
            role: NodeRole::Outside,
            directory: false,
        };
        nodes.remember(7, node.clone(), Version::default());
        let (forgotten, starts) = crossbeam_channel::bounded::<()>(1);
        let (remembered, is_remembered) = crossbeam_channel::bounded::<()>(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                starts.recv().unwrap();
                nodes.remember(7, node.clone(), Version::default());
                remembered.send(()).unwrap();
            });
            let early = nodes.forget(7, 1, || {
                forgotten.send(()).unwrap();
                is_remembered.recv_timeout(std::time::Duration::from_millis(100))
            });
            assert!(early.unwrap().is_err());
        });
        assert!(nodes.get(7).is_some());
    }
}
