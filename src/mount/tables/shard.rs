//! Keeps some of the nodes that the kernel knows, by number, and the other names of files with several links.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::hash::{Hash, Hasher};

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;
use rustix::fs::Statx;

use crate::mount::handover::lookup_counts::{LookupCounts, Slot};
use crate::mount::tables::node::{Node, NodeRole};
use crate::sys::file_id::FileId;
use crate::sys::name::Name;

/// Distinguishes the contents of a file at different times, as far as its attributes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::mount) struct Version(u64);

impl Version {
    pub(in crate::mount) fn of(stat: &Statx) -> Version {
        let mut hasher = std::hash::DefaultHasher::new();
        for time in [stat.stx_mtime, stat.stx_ctime] {
            (time.tv_sec, time.tv_nsec).hash(&mut hasher);
        }
        stat.stx_size.hash(&mut hasher);
        Version(hasher.finish() | CERTAIN)
    }

    /// The state of the kernel's cache once `next` has been sent: the kernel drops a reply that crosses another, so
    /// attributes that have changed are certain only after an invalidation.
    pub(super) fn after_reply(self, next: Version) -> Version {
        match self == next {
            true => next,
            false => Version(next.0 & !CERTAIN),
        }
    }
}

/// Set in a version that certainly agrees with the kernel's cache.
const CERTAIN: u64 = 1;

#[derive(Debug)]
pub(super) struct KnownNode {
    pub(super) node: Node,
    /// For a file, the version that the kernel's cache agrees with.
    pub(super) version: Version,
    /// How often the kernel has received the node in replies and has not forgotten it; at most `u32::MAX`.
    pub(super) lookups: u32,
    /// Where that is kept for the next process, and whether the node is recorded for it.
    pub(super) slot: Slot,
}

/// The nodes of one shard: in a vector, so that memory use is proportional to the number of nodes.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) entries: IndexMap<u64, KnownNode, FxBuildHasher>,
    /// Other names of files with several links.
    pub(super) aliases: HashMap<u64, Vec<Alias>, FxBuildHasher>,
}

/// Another name of a node, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alias {
    pub(super) parent: u64,
    pub(super) name: Name,
    location: u8,
    role: NodeRole,
}

impl Node {
    pub(super) fn alias(&self) -> Alias {
        Alias {
            parent: self.parent,
            name: self.name.clone(),
            location: self.location,
            role: self.role,
        }
    }

    pub(super) fn called(&self, alias: Alias) -> Node {
        Node {
            parent: alias.parent,
            name: alias.name,
            location: alias.location,
            role: alias.role,
            ..self.clone()
        }
    }
}

/// A link of a directory to a node: where the node lies under one of its names.
#[derive(Debug, Clone, Copy)]
pub(in crate::mount) struct Link {
    pub(in crate::mount) parent: u64,
    pub(in crate::mount) location: u8,
    pub(in crate::mount) role: NodeRole,
}

impl From<&Node> for Link {
    fn from(node: &Node) -> Link {
        let (parent, location, role) = (node.parent, node.location, node.role);
        Link {
            parent,
            location,
            role,
        }
    }
}

impl From<&Alias> for Link {
    fn from(alias: &Alias) -> Link {
        let (parent, location, role) = (alias.parent, alias.location, alias.role);
        Link {
            parent,
            location,
            role,
        }
    }
}

/// Limit of remembered names of one file; the kernel looks further ones up again.
const ALIASES_MAX: usize = 16;

impl KnownNode {
    pub(super) fn new(node: Node, lookups: u32) -> KnownNode {
        let directory = node.directory;
        KnownNode {
            node,
            version: Version::default(),
            lookups,
            // The kernel keeps using a directory, and looks everything else up anew that is not open.
            slot: Slot::NONE.recorded(directory),
        }
    }

    /// Notes that the kernel receives the node once more.
    pub(super) fn receive_again(&mut self, counts: &LookupCounts) {
        self.lookups = self.lookups.saturating_add(1);
        self.slot = self.slot.inherited(false);
        counts.set(self.slot, self.lookups);
    }
}

/// A shard with fewer nodes than this is not shrunk: the freed memory would not be worth the work.
const SHRINK_MIN: usize = 1024;

impl Shard {
    /// Replaces the entry of `id` by `node`, if that number is known. Returns whether the node has changed.
    pub(super) fn rename(&mut self, id: u64, node: Node) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else {
            return false;
        };
        let old = entry.node.alias();
        let new = node.alias();
        let same = entry.node.identity == node.identity;
        let same_file = same && !node.directory;
        entry.node = node;
        if !same_file {
            self.aliases.remove(&id);
            return !same || old != new;
        }
        if old == new {
            return false;
        }
        let aliases = self.aliases.entry(id).or_default();
        aliases.retain(|alias| *alias != new && *alias != old);
        if aliases.len() >= ALIASES_MAX {
            // The one that was used longest ago.
            aliases.remove(0);
        }
        aliases.push(old);
        true
    }

    /// Removes one of several names of a file. Returns the entry if the node had that name.
    pub(super) fn lost_name(
        &mut self,
        id: u64,
        file: &FileId,
        gone: (u64, &OsStr),
    ) -> Option<&KnownNode> {
        let entry = self.entries.get_mut(&id)?;
        let others = self.aliases.get_mut(&id)?;
        if entry.node.identity != *file {
            return None;
        }
        others.retain(|alias| (alias.parent, &*alias.name) != gone);
        let has_name = (entry.node.parent, &*entry.node.name) == gone;
        let other = others.pop_if(|_| has_name);
        if others.is_empty() {
            self.aliases.remove(&id);
        }
        entry.node = entry.node.called(other?);
        Some(entry)
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.entries.swap_remove(&id);
        self.aliases.remove(&id);
        // Frees memory after a walk over everything, which would otherwise stay allocated for ever.
        let (length, capacity) = (self.entries.len(), self.entries.capacity());
        if capacity > SHRINK_MIN && length < capacity / 4 {
            self.entries.shrink_to(capacity / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_size_is_bounded() {
        // With its part of the index, the number twice, and a name of a few dozen letters: 160 at most.
        assert!(size_of::<KnownNode>() <= 72, "{}", size_of::<KnownNode>());
    }

    fn node(name: &str) -> Node {
        Node {
            identity: FileId::new(1, 7, 0),
            parent: 1,
            name: Name::from(OsStr::new(name)),
            location: 0,
            role: NodeRole::Outside,
            directory: false,
        }
    }

    fn names(shard: &Shard) -> Vec<String> {
        let aliases = shard.aliases.get(&7).into_iter().flatten();
        let others = aliases.map(|alias| alias.name.clone());
        let own = shard.entries.get(&7).map(|entry| entry.node.name.clone());
        let names = own.into_iter().chain(others);
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn name_that_is_gone_does_not_displace_another() {
        let mut shard = Shard::default();
        shard.entries.insert(7, KnownNode::new(node("first"), 1));
        let file = FileId::new(1, 7, 0);
        for number in 0..100 {
            let name = format!("link-{number}");
            shard.rename(7, node(&name));
            assert_eq!(names(&shard), [&*name, "first"]);
            assert!(shard.lost_name(7, &file, (1, OsStr::new(&name))).is_some());
            assert_eq!(names(&shard), ["first"]);
        }
        shard.rename(7, node("second"));
        let other = FileId::new(1, 7, 1);
        for (file, name) in [(&other, "second"), (&file, "third")] {
            assert!(shard.lost_name(7, file, (1, OsStr::new(name))).is_none());
        }
        assert!(
            shard
                .lost_name(7, &file, (1, OsStr::new("first")))
                .is_none()
        );
        assert_eq!(names(&shard), ["second"]);
    }

    #[test]
    fn names_are_bounded_and_the_latest_are_kept() {
        let mut shard = Shard::default();
        shard.entries.insert(7, KnownNode::new(node("link-0"), 1));
        for number in 1..100 {
            shard.rename(7, node(&format!("link-{number}")));
        }
        let names = names(&shard);
        assert_eq!(names.len(), 1 + ALIASES_MAX);
        assert_eq!(
            (&*names[0], names.last().unwrap().as_str()),
            ("link-99", "link-98")
        );
    }
}
