//! Finds files by name.

use std::ffi::OsStr;
use std::time::Duration;

use fuser::{FileAttr, Generation};
use rustix::fs::{FileType, OFlags};
use rustix::io::{Errno, Result};

use crate::mount::find::Found;
use crate::mount::tables::nodes::{INTERNAL, Node, NodeRole, Version};
use crate::mount::tables::numbers::ROOT;
use crate::mount::{Mount, attributes};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;

/// How often a contended name is looked up for one lookup by the kernel.
const LOOKUPS_MAX: usize = 100;

/// The kernel's view of a name: the reply to a lookup.
#[derive(Debug)]
pub(in crate::mount) struct NodeEntry {
    pub(in crate::mount) id: u64,
    pub(in crate::mount) attributes: FileAttr,
    pub(in crate::mount) generation: Generation,
    pub(in crate::mount) ttl: Duration,
}

impl NodeEntry {
    /// Returns the entry of a name that does not exist, which the kernel may cache. Its number is that of no node.
    pub(in crate::mount) fn absent(ttl: Duration) -> NodeEntry {
        NodeEntry {
            id: 0,
            attributes: attributes::unknown(0, FileType::Unknown),
            generation: Generation(0),
            ttl,
        }
    }

    /// Returns an entry of which only the kind is known, not to be cached.
    pub(in crate::mount) fn unknown(inode: u64, kind: FileType) -> NodeEntry {
        NodeEntry {
            id: inode,
            attributes: attributes::unknown(inode, kind),
            generation: Generation(0),
            ttl: Duration::ZERO,
        }
    }
}

impl Mount {
    /// Looks a name up for a program. What is found by a caller whose last attempt has failed with `ESTALE` stays available to the kernel:
    /// it does not try a third time.
    pub(in crate::mount) fn lookup_for(
        &self,
        tid: u32,
        parent: u64,
        name: &OsStr,
    ) -> Result<NodeEntry> {
        let mut found = self.lookup(parent, name);
        if self.retries.looks_up_again(tid)
            && let Ok(entry) = found
        {
            if entry.attributes.kind == fuser::FileType::Directory {
                return Ok(entry);
            }
            found = self.lookup_held(parent, name, entry);
            self.retries.add(tid);
        }
        if let Err(Errno::STALE) = found {
            self.retries.add_lookup(tid);
        }
        found
    }

    pub(in crate::mount) fn lookup(&self, parent: u64, name: &OsStr) -> Result<NodeEntry> {
        let found = self.find(parent, name)?;
        let entry = self.enter_found(parent, name, found)?;
        self.superseded.looked_up(parent, name);
        // What replaces a job is the same job: it is opened there, or listed (`list_there`).
        let is_job = || {
            let link = self.nodes.link(entry.id);
            link.is_some_and(|link| link.role == NodeRole::Job)
        };
        match self.contended.contains(parent, name) && !is_job() {
            true => self.lookup_held(parent, name, entry),
            false => Ok(entry),
        }
    }

    /// Makes sure that the file found under a contended name stays available to the kernel.
    fn lookup_held(&self, parent: u64, name: &OsStr, mut entry: NodeEntry) -> Result<NodeEntry> {
        for _ in 0..LOOKUPS_MAX {
            match self.open_verified(entry.id, OFlags::PATH) {
                Ok(fd) => {
                    self.dir_cache.keep_removed(entry.id, fd.into());
                    break;
                }
                // The name has already been replaced again.
                Err(Errno::STALE) => {}
                Err(_) => break,
            }
            let found = self.find(parent, name);
            self.forget(entry.id, 1);
            entry = self.enter(parent, name, found?)?;
        }
        Ok(entry)
    }

    /// How long the kernel may cache that a name does not exist below `parent`.
    pub(in crate::mount) fn absent_for(&self, parent: u64, name: &OsStr) -> Duration {
        if self.lock_names.contains(parent, name) {
            return Duration::ZERO;
        }
        self.node(parent).map_or(Duration::ZERO, |node| {
            self.ttls.of_absence(node.location, node.role)
        })
    }

    /// As [`Mount::enter`], of what was found in a directory whose job may have been recovered since. Fails with `ESTALE` if it was.
    pub(in crate::mount) fn enter_found(
        &self,
        parent: u64,
        name: &OsStr,
        found: Found,
    ) -> Result<NodeEntry> {
        let (location, is_inside) = (found.location, found.role == NodeRole::Inside);
        let entry = self.enter(parent, name, found)?;
        // Checked once it is entered: a recovery changes the directory first, and then looks for what was entered meanwhile.
        let link = self.nodes.link(parent);
        if is_inside && location != INTERNAL && link.is_some_and(|link| link.location != location) {
            self.forget(entry.id, 1);
            return Err(Errno::STALE);
        }
        Ok(entry)
    }

    /// Registers a file that the kernel is about to receive, and returns the reply.
    pub(in crate::mount) fn enter(
        &self,
        parent: u64,
        name: &OsStr,
        found: Found,
    ) -> Result<NodeEntry> {
        let identity = FileId::of(&found.stat);
        let node = Node {
            identity,
            parent,
            name: Name::from(name),
            location: found.location,
            role: found.role,
            directory: at::is_dir(&found.stat),
        };
        let mut attributes = self.attributes(&node, &found.stat);
        // Lets the kernel distinguish objects that have had the same inode number.
        let generation = fuser::Generation(self.nodes.generation(&identity));
        let mut ttl = self.ttls.of(node.location, node.role, &found.stat);
        let location = node.location;
        let (id, was) =
            self.nodes
                .remember(self.devices.node(&identity), node, Version::of(&found.stat));
        self.stands_for_itself(id, (parent, name), location);
        if self.is_lock_file(id, parent, name) {
            ttl = Duration::ZERO;
        }
        ttl = ttl.min(self.passthrough.ttl_max(id));
        if id != attributes.ino.0 && id != ROOT {
            // This reply shows the number of the node in place of the inode number, which other nodes have too, one after
            // the other: the kernel must ask for the attributes before it shows them.
            ttl = Duration::ZERO;
        }
        if found.role == NodeRole::Job && was.is_some_and(|was| was != location) {
            self.job_changed_location(id, location);
        }
        // The number that the kernel uses in later requests.
        attributes.ino = fuser::INodeNo(id);
        Ok(NodeEntry {
            id,
            attributes,
            generation,
            ttl,
        })
    }

    /// Returns what the names from the job of a node on lead to now: the job first. `accepts` receives what the name of the job leads to, and
    /// the node of the job. Each must be forgotten once.
    ///
    /// # Errors
    ///
    /// `ESTALE` if `accepts` returns `false`.
    pub(in crate::mount) fn enter_again(
        &self,
        id: u64,
        accepts: impl Fn(&Found, &Node) -> bool,
    ) -> Result<Vec<u64>> {
        let mut job = self.node(id)?;
        let mut names = Vec::new();
        while job.role == NodeRole::Inside {
            names.push(job.name);
            job = self.node(job.parent)?;
        }
        let found = self.find(job.parent, &job.name)?;
        if found.role != NodeRole::Job || !accepts(&found, &job) {
            return Err(Errno::STALE);
        }
        let mut there = self.enter(job.parent, &job.name, found)?.id;
        let mut entered = vec![there];
        for name in names.into_iter().rev() {
            match self.lookup(there, &name) {
                Ok(next) => there = next.id,
                Err(error) => {
                    self.forget_each(&entered);
                    return Err(error);
                }
            }
            entered.push(there);
        }
        Ok(entered)
    }

    /// Undoes that each of some nodes was entered once.
    pub(in crate::mount) fn forget_each(&self, entered: &[u64]) {
        for id in entered {
            self.forget(*id, 1);
        }
    }

    /// Notes that the kernel forgets a node received `count` times.
    pub(in crate::mount) fn forget(&self, id: u64, count: u64) {
        let released = self.nodes.forget(id, count, || self.release_node(id));
        self.forgotten(released);
    }

    /// Notes that the kernel does not know a node, if only earlier processes have sent it to the kernel.
    pub(in crate::mount) fn forget_inherited(&self, id: u64) {
        if self.superseded.is_successor(id) {
            return;
        }
        let released = (self.nodes).forget_inherited(id, || self.release_node(id));
        self.forgotten(released);
    }

    /// Removes and returns all that is kept for a node, and the node that had taken its place.
    fn release_node(&self, id: u64) -> (Option<u64>, impl Sized + use<>) {
        self.passthrough.forget(id);
        let kept = (
            self.dir_cache.forget(id),
            self.listings.forget(id),
            self.readahead.forget(id),
        );
        (self.superseded.end(id), kept)
    }

    fn forgotten<T>(&self, released: Option<(Option<u64>, T)>) {
        let Some((recovered, kept)) = released else {
            return;
        };
        // Closing can block on a network file system, so it must not happen with the node's lock held.
        drop(kept);
        if let Some(recovered) = recovered {
            self.forget(recovered, 1);
        }
    }
}
