//! The nodes that the kernel knows, by number.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use indexmap::IndexMap;
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use rustc_hash::FxBuildHasher;
use rustix::fs::Statx;

use super::identity::ROOT;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;

/// The place of internal files: not a location, but a directory in the primary.
pub(super) const INTERNAL: u8 = u8::MAX;

/// What a node is to the view; decides how its children are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The top of the mount.
    Root,
    /// `jobs/`.
    Jobs,
    /// `jobs/<task_id>/`.
    Task,
    /// `jobs/<task_id>/<hash>/`.
    Job,
    /// Anything inside a job.
    Inside,
    /// Anything else: it lies in the primary, or is shown as it lies there.
    Outside,
}

/// Something that the kernel has looked up and not yet forgotten.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) identity: FileId,
    pub(super) parent: u64,
    pub(super) name: Name,
    /// The number of the location that it lies in, or [`INTERNAL`].
    pub(super) place: u8,
    pub(super) role: Role,
    /// Whether it is a directory.
    pub(super) directory: bool,
}

/// Tells apart what a file contained at different times, as far as its attributes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Version(u64);

impl Version {
    pub(super) fn of(stat: &Statx) -> Version {
        let mut hasher = std::hash::DefaultHasher::new();
        for time in [stat.stx_mtime, stat.stx_ctime] {
            (time.tv_sec, time.tv_nsec).hash(&mut hasher);
        }
        stat.stx_size.hash(&mut hasher);
        Version(hasher.finish() | CERTAIN)
    }

    /// What is known of the kernel's cache once `next` has been sent to it: it drops a reply that crosses another,
    /// so attributes that have changed are certain only after an invalidation.
    fn after_reply(self, next: Version) -> Version {
        match self == next {
            true => next,
            false => Version(next.0 & !CERTAIN),
        }
    }
}

/// Set in a version that the kernel's cache surely agrees with.
const CERTAIN: u64 = 1;

#[derive(Debug)]
struct Entry {
    node: Node,
    /// Of a file, what the kernel's cache agrees with.
    version: Version,
    /// How often the kernel has been told of it and has not forgotten it.
    lookups: u64,
}

/// The nodes of one shard: in a vector, so that there is no more memory than there are nodes.
#[derive(Debug, Default)]
struct Shard {
    entries: IndexMap<u64, Entry, FxBuildHasher>,
    /// Other names of files with several links.
    aliases: HashMap<u64, Vec<Alias>, FxBuildHasher>,
}

/// Another name of a node, with where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Alias {
    parent: u64,
    name: Name,
    place: u8,
    role: Role,
}

impl Node {
    fn alias(&self) -> Alias {
        Alias {
            parent: self.parent,
            name: self.name.clone(),
            place: self.place,
            role: self.role,
        }
    }

    fn called(&self, alias: Alias) -> Node {
        Node {
            parent: alias.parent,
            name: alias.name,
            place: alias.place,
            role: alias.role,
            ..self.clone()
        }
    }
}

/// Where a node lies in the tree by one of its names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) parent: u64,
    pub(super) place: u8,
    pub(super) role: Role,
}

impl From<&Node> for Way {
    fn from(node: &Node) -> Way {
        let (parent, place, role) = (node.parent, node.place, node.role);
        Way {
            parent,
            place,
            role,
        }
    }
}

impl From<&Alias> for Way {
    fn from(alias: &Alias) -> Way {
        let (parent, place, role) = (alias.parent, alias.place, alias.role);
        Way {
            parent,
            place,
            role,
        }
    }
}

/// More names of one file than this are not remembered; the kernel looks them up again.
const ALIASES_MAX: usize = 16;

const SHARDS: usize = 64;

/// All nodes, in shards, so that threads rarely meet.
#[derive(Debug)]
pub(super) struct Nodes {
    shards: Vec<RwLock<Shard>>,
    displaced: Displaced,
}

/// Nodes that do not have the number of their inode, since one that the kernel still knows has it: the
/// disk uses the numbers of what is gone again at once, and to the kernel, a number that comes with
/// another generation means that all of the old is broken (`EIO`).
#[derive(Debug, Default)]
struct Displaced {
    /// How many there are: as a rule there is none.
    count: AtomicUsize,
    /// How many there have been.
    total: AtomicU64,
    numbers: Mutex<HashMap<FileId, u64>>,
}

/// Marks the numbers of displaced nodes; see `identity` for what others have.
const DISPLACED: u64 = 3 << 62;

impl Displaced {
    /// The number of a displaced node.
    fn get(&self, identity: &FileId) -> Option<u64> {
        match self.count.load(Ordering::Acquire) {
            0 => None,
            _ => self.numbers.lock().get(identity).copied(),
        }
    }

    /// A number for a node whose own, `id`, is taken; of the same shard.
    fn add(&self, id: u64, identity: FileId) -> u64 {
        let mut numbers = self.numbers.lock();
        let total = self.total.fetch_add(1, Ordering::Relaxed);
        let number = DISPLACED | (total * SHARDS as u64) | (id % SHARDS as u64);
        numbers.insert(identity, number);
        self.count.store(numbers.len(), Ordering::Release);
        number
    }

    fn forget(&self, identity: &FileId) {
        if self.count.load(Ordering::Acquire) > 0 {
            let mut numbers = self.numbers.lock();
            numbers.remove(identity);
            self.count.store(numbers.len(), Ordering::Release);
        }
    }
}

impl Nodes {
    /// A table with the root in it, which is never forgotten.
    pub(super) fn new(root: FileId) -> Nodes {
        let nodes = Nodes {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            displaced: Displaced::default(),
        };
        let root = Node {
            identity: root,
            parent: ROOT,
            name: Name::from(OsStr::new(".")),
            place: crate::view::PRIMARY,
            role: Role::Root,
            directory: true,
        };
        nodes.remember(ROOT, root, Version::default());
        nodes
    }

    fn read(&self, id: u64) -> RwLockReadGuard<'_, Shard> {
        self.shard(id).read()
    }

    fn write(&self, id: u64) -> RwLockWriteGuard<'_, Shard> {
        self.shard(id).write()
    }

    fn shard(&self, id: u64) -> &RwLock<Shard> {
        // Inode numbers of neighbours differ in their low bits.
        &self.shards[(id % SHARDS as u64) as usize]
    }

    /// The node of a number.
    pub(super) fn get(&self, id: u64) -> Option<Node> {
        let shard = self.read(id);
        shard.entries.get(&id).map(|entry| entry.node.clone())
    }

    /// Where a node lies by the name that it was last looked up by.
    pub(super) fn way(&self, id: u64) -> Option<Way> {
        let shard = self.read(id);
        shard.entries.get(&id).map(|entry| Way::from(&entry.node))
    }

    /// Where a node lies, first by the name that it was last looked up by, then by its other names.
    pub(super) fn ways(&self, id: u64) -> Option<(Way, Vec<Way>)> {
        let shard = self.read(id);
        let entry = shard.entries.get(&id)?;
        let aliases = shard.aliases.get(&id).into_iter().flatten();
        Some((Way::from(&entry.node), aliases.map(Way::from).collect()))
    }

    /// Notes that the kernel is told of a node once more, under this name, and returns the number of
    /// the node: `id`, or another if that is taken. A name that a file had before stays as another of
    /// its names.
    ///
    /// Also returns the place in which it was when the kernel was last told of it, if it was.
    pub(super) fn remember(&self, id: u64, node: Node, version: Version) -> (u64, Option<u8>) {
        let mut shard = self.write(id);
        let mut number = self.displaced.get(&node.identity).unwrap_or(id);
        if let Some(entry) = shard.entries.get(&number)
            && entry.node.identity != node.identity
        {
            number = self.displaced.add(id, node.identity);
        }
        let was = match shard.entries.get_mut(&number) {
            None => {
                let mut entry = Entry::new(node, 1);
                entry.version = version;
                shard.entries.insert(number, entry);
                None
            }
            Some(entry) => {
                entry.lookups += 1;
                entry.version = entry.version.after_reply(version);
                let was = entry.node.place;
                shard.rename(number, node);
                Some(was)
            }
        };
        (number, was)
    }

    /// The number by which something is known, if it is, whose own would be `id`.
    pub(super) fn number(&self, id: u64, identity: &FileId) -> u64 {
        self.displaced.get(identity).unwrap_or(id)
    }

    /// Like [`Nodes::remember`], but leaves a node as it is that is known already.
    pub(super) fn remember_unless_known(&self, id: u64, node: Node) {
        let mut shard = self.write(id);
        let entry = shard.entries.entry(id);
        entry.or_insert_with(|| Entry::new(node, 0)).lookups += 1;
    }

    /// Takes back `count` of what [`Nodes::remember`] noted. If the node is gone with that, calls `release`, before the number can
    /// be given to another node, or to the same one again, and returns what that returns. It must not block, nor use this table.
    pub(super) fn forget<T>(&self, id: u64, count: u64, release: impl FnOnce() -> T) -> Option<T> {
        if id == ROOT {
            return None;
        }
        let mut shard = self.write(id);
        let entry = shard.entries.get_mut(&id)?;
        entry.lookups = entry.lookups.saturating_sub(count);
        if entry.lookups > 0 {
            return None;
        }
        if id & DISPLACED == DISPLACED {
            self.displaced.forget(&entry.node.identity);
        }
        shard.remove(id);
        Some(release())
    }

    /// Notes that a file of this version is opened; returns whether the kernel's cache agrees with it. If not, the
    /// kernel must forget what it has of the file before the reply.
    pub(super) fn opened(&self, id: u64, version: Version) -> bool {
        match self.write(id).entries.get_mut(&id) {
            Some(entry) => std::mem::replace(&mut entry.version, version) == version,
            None => false,
        }
    }

    /// Notes that attributes are about to be sent to the kernel.
    pub(super) fn sent(&self, id: u64, version: Version) {
        if self.version(id).is_some_and(|known| known != version)
            && let Some(entry) = self.write(id).entries.get_mut(&id)
        {
            entry.version = entry.version.after_reply(version);
        }
    }

    /// Notes that the kernel's cache may agree with no version of a file any more: it takes the attributes that
    /// answer a change without dropping the contents that it had before.
    pub(super) fn distrust(&self, id: u64) {
        if let Some(entry) = self.write(id).entries.get_mut(&id) {
            entry.version = Version::default();
        }
    }

    /// The version of a file that the kernel's cache agrees with.
    pub(super) fn version(&self, id: u64) -> Option<Version> {
        self.read(id).entries.get(&id).map(|entry| entry.version)
    }

    /// Notes that the kernel has forgotten what it had of a file, unless it has been sent anything since `known`.
    pub(super) fn forgotten(&self, id: u64, known: Version, version: Version) {
        if let Some(entry) = self.write(id).entries.get_mut(&id)
            && entry.version == known
        {
            entry.version = version;
        }
    }

    /// The same node under each other name that it is known by.
    pub(super) fn other_names(&self, id: u64) -> Vec<Node> {
        let shard = self.read(id);
        let Some(entry) = shard.entries.get(&id) else {
            return Vec::new();
        };
        let aliases = shard.aliases.get(&id).into_iter().flatten();
        aliases
            .map(|alias| entry.node.called(alias.clone()))
            .collect()
    }

    /// Makes `node` what is known of `id`, if the kernel still knows that number. The names that
    /// it had before stay its other names.
    pub(super) fn update(&self, id: u64, node: Node) {
        self.write(id).rename(id, node);
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        let lengths = self.shards.iter().map(|shard| shard.read().entries.len());
        lengths.sum()
    }

    /// Notes that a node was moved: its old name is gone. Returns what it was.
    pub(super) fn moved(&self, id: u64, old: (u64, &OsStr), node: Node) -> Option<Node> {
        let mut shard = self.write(id);
        let was = shard.entries.get(&id)?.node.clone();
        shard.rename(id, node);
        if let Some(aliases) = shard.aliases.get_mut(&id) {
            aliases.retain(|alias| (alias.parent, &*alias.name) != old);
        }
        Some(was)
    }

    /// Calls with every node but the root.
    pub(super) fn each(&self, mut call: impl FnMut(u64, &Node)) {
        for shard in &self.shards {
            for (id, entry) in &shard.read().entries {
                if *id != ROOT {
                    call(*id, &entry.node);
                }
            }
        }
    }

    /// Calls with every node below `top`. Takes as long as there are nodes.
    pub(super) fn below(&self, top: u64, mut call: impl FnMut(u64, &mut Node)) {
        let mut level = HashSet::from([top]);
        while !level.is_empty() {
            let mut next = HashSet::new();
            for shard in &self.shards {
                for (id, entry) in &mut shard.write().entries {
                    if level.contains(&entry.node.parent) && *id != ROOT {
                        call(*id, &mut entry.node);
                        if entry.node.directory {
                            next.insert(*id);
                        }
                    }
                }
            }
            level = next;
        }
    }

    /// Gives every node below `top` the role that its place in the tree has now. Needed only when a
    /// directory is moved into or out of `jobs/`.
    pub(super) fn change_roles(&self, top: u64, role_below: impl Fn(Role) -> Role) {
        let mut level = vec![top];
        while !level.is_empty() {
            let mut next = Vec::new();
            let roles: HashMap<u64, Role> = level
                .iter()
                .filter_map(|id| Some((*id, self.get(*id)?.role)))
                .collect();
            for shard in &self.shards {
                for (id, entry) in &mut shard.write().entries {
                    if let Some(role) = roles.get(&entry.node.parent)
                        && *id != ROOT
                    {
                        entry.node.role = role_below(*role);
                        if entry.node.directory {
                            next.push(*id);
                        }
                    }
                }
            }
            level = next;
        }
    }
}

impl Entry {
    fn new(node: Node, lookups: u64) -> Entry {
        Entry {
            node,
            version: Version::default(),
            lookups,
        }
    }
}

/// Fewer nodes than this in a shard are not worth giving memory back for.
const SHRINK_MIN: usize = 1024;

impl Shard {
    /// Makes `node` what is known of `id`, if that is known.
    fn rename(&mut self, id: u64, node: Node) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let old = entry.node.alias();
        let new = node.alias();
        let same_file = entry.node.identity == node.identity && !node.directory;
        entry.node = node;
        if !same_file {
            self.aliases.remove(&id);
            return;
        }
        if old == new {
            return;
        }
        let aliases = self.aliases.entry(id).or_default();
        aliases.retain(|alias| *alias != new && *alias != old);
        if aliases.len() < ALIASES_MAX {
            aliases.push(old);
        }
    }

    fn remove(&mut self, id: u64) {
        self.entries.swap_remove(&id);
        self.aliases.remove(&id);
        // A walk over everything must not be paid for ever after.
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
    fn a_node_takes_little_memory() {
        // With its part of the index, the number twice, and a name of a few dozen letters: 160 at most.
        assert!(size_of::<Entry>() <= 72, "{}", size_of::<Entry>());
    }

    #[test]
    fn a_number_is_not_given_again_before_what_belonged_to_it_is_released() {
        let nodes = Nodes::new(FileId::new(1, 1, 0));
        let node = Node {
            identity: FileId::new(1, 7, 0),
            parent: ROOT,
            name: Name::from(std::ffi::OsStr::new("lock")),
            place: 0,
            role: Role::Outside,
            directory: false,
        };
        nodes.remember(7, node.clone(), Version::default());
        let (forgotten, starts) = crossbeam_channel::bounded::<()>(1);
        let (given, is_given) = crossbeam_channel::bounded::<()>(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                starts.recv().unwrap();
                nodes.remember(7, node.clone(), Version::default());
                given.send(()).unwrap();
            });
            let early = nodes.forget(7, 1, || {
                forgotten.send(()).unwrap();
                is_given.recv_timeout(std::time::Duration::from_millis(100))
            });
            assert!(early.unwrap().is_err());
        });
        assert!(nodes.get(7).is_some());
    }
}
