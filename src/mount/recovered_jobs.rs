//! Makes the nodes of an archived job stand for the recovered one.
//!
//! The kernel has looked the job up in a folder; processes are in its directories and have its files open. The recovered
//! job has other inodes:
//!
//! 1. A directory keeps its node, which from now on stands for the recovered directory: current directories and open
//!    directories lead to it. The kernel must not notice, so the node keeps its number and its generation.
//! 2. A file keeps its node, and what was opened by it stays readable. The recovered file gets another node, which the
//!    kernel finds when it looks the name up again. Calls that change the old node change the recovered file
//!    (`tables::superseded`).
//! 3. The nodes of what a purge has left of the job, which are the primary's already, change as those of the folder do.
//! 4. An internal file is the same file in another place (`archive::job::internal_files`): its node gets the place.
//!
//! 5. A job that was recovered and not changed is moved or released again, with the copy that the folder has had all the time. A file of
//!    this copy then has the node that it had before, which stands for itself again.
//!
//! The disk is read first; then all nodes change at once. Requests that find some nodes changed and others not are
//! attempted again (`deferred`).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use rustix::fs::Statx;
use rustix::io::Result;

use crate::mount::Mount;
use crate::mount::moved_jobs::JobCaches;
use crate::mount::tables::nodes::{INTERNAL, Node, NodeRole, Version};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;
use crate::view::{InPrimary, PRIMARY};
use crate::workspace::jobs::JobId;

/// A node of an archived job, and the attributes of what has its path in the recovered job.
struct Known {
    id: u64,
    node: Node,
    there: Statx,
}

impl JobCaches {
    /// Makes the nodes of a job stand for its directory in the primary, if it is there. Returns whether the kernel knows
    /// that directory by a node that it knew before.
    pub(super) fn recovered(&self, job: &JobId) -> bool {
        let Ok(Some(top)) = self.in_primary(job) else {
            return false;
        };
        let Ok(stat) = at::stat_fd(&top) else {
            return false;
        };
        let mut known: Vec<Known> = Vec::new();
        for (id, node) in self.nodes_of(job) {
            let is_purged = self.is_replaced(id, &node, &stat);
            let first = known.len();
            known.push(Known {
                id,
                node,
                there: stat,
            });
            self.add_below(id, &top, &mut known);
            if !is_purged {
                let below = known.split_off(first);
                known.extend(
                    below
                        .into_iter()
                        .filter(|known| known.node.place != PRIMARY),
                );
            }
        }
        if known.is_empty() {
            return false;
        }
        let _changing = self.node_changes.begin();
        for known in &known {
            self.change(known);
        }
        true
    }

    /// Whether a node is the directory in the primary that a purge has left and the recovered job has replaced.
    fn is_replaced(&self, id: u64, node: &Node, there: &Statx) -> bool {
        node.place == PRIMARY
            && node.identity != FileId::of(there)
            && self.dir_cache.removed(id).is_none()
    }

    /// Opens the directory of a job in the primary, if the primary serves it. What a purge has left of a job is not the
    /// job.
    fn in_primary(&self, job: &JobId) -> Result<Option<OwnedFd>> {
        if self.view.in_primary(job.task_id(), job.hash())? != InPrimary::Job {
            return Ok(None);
        }
        let task = at::absent(self.view.primary().root()?.task(job.task_id()))?;
        match task {
            Some(task) => at::absent(at::open_dir(task, job.hash())),
            None => Ok(None),
        }
    }

    /// Returns the nodes that the kernel knows as the directory of a job, in any place.
    fn nodes_of(&self, job: &JobId) -> Vec<(u64, Node)> {
        let mut called_so = Vec::new();
        self.nodes.each(|id, node| {
            if node.role == NodeRole::Job && *node.name == *job.hash() {
                called_so.push((id, node.clone()));
            }
        });
        called_so.retain(|(_, node)| {
            let task = self.nodes.get(node.parent);
            task.is_some_and(|task| *task.name == *job.task_id())
        });
        called_so
    }

    /// Adds the nodes below the node of a job that have a counterpart in the recovered job.
    fn add_below(&self, job: u64, top: &OwnedFd, to: &mut Vec<Known>) {
        let mut nodes: HashMap<u64, Node> = HashMap::new();
        self.nodes.below(job, |id, node| {
            nodes.insert(id, node.clone());
        });
        // A directory is opened once for all of its entries that follow each other.
        let mut opened: Option<(u64, Option<OwnedFd>)> = None;
        let mut ordered: Vec<_> = nodes.keys().copied().collect();
        ordered.sort_unstable_by_key(|id| nodes[id].parent);
        for id in ordered {
            let node = &nodes[&id];
            if opened
                .as_ref()
                .is_none_or(|(parent, _)| *parent != node.parent)
            {
                let dir = path_below(job, node.parent, &nodes);
                let dir = dir.and_then(|path| {
                    let names = path.iter().map(|name| -> &OsStr { name });
                    at::open_dirs(top, names).ok()
                });
                opened = Some((node.parent, dir));
            }
            if let Some((_, Some(dir))) = &opened
                && let Ok(there) = at::stat(dir, &node.name)
            {
                let node = node.clone();
                to.push(Known { id, node, there });
            }
        }
    }

    fn change(&self, Known { id, node, there }: &Known) {
        let identity = FileId::of(there);
        if node.identity == identity {
            self.nodes.set_place(*id, PRIMARY);
            self.invalidate.attributes(*id);
        } else if node.directory && at::is_dir(there) {
            let own = self.devices.node(&identity);
            self.nodes.replace_directory(*id, identity, PRIMARY, own);
            // Also what was kept of it while its name was contended.
            drop(self.dir_cache.forget(*id));
            self.listings.replace_directory(*id);
            self.invalidate.pages(*id);
        } else if !node.directory && node.place != INTERNAL {
            self.supersede(*id, node, there);
            self.invalidate.name(node.parent, &node.name);
        }
    }

    /// Enters the recovered file that has taken the place of a node.
    fn supersede(&self, id: u64, node: &Node, there: &Statx) {
        let identity = FileId::of(there);
        let recovered = Node {
            identity,
            place: PRIMARY,
            directory: at::is_dir(there),
            ..node.clone()
        };
        let own = self.devices.node(&identity);
        let (recovered, _) = self.nodes.remember(own, recovered, Version::of(there));
        self.nodes.record(recovered);
        let name = (node.parent, node.name.clone());
        let before = self.superseded.add(id, recovered, name);
        let gone = match self.nodes.get(id) {
            Some(_) => before,
            // The kernel has forgotten the node meanwhile.
            None => self.superseded.forget(id),
        };
        if let Some(gone) = gone {
            self.nodes.forget(gone, 1, || ());
        }
    }
}

impl Mount {
    /// Makes a node of an archived file, which the kernel is about to receive, stand for this file again if the recovered one, which had
    /// taken its place, does not serve the job any more.
    pub(super) fn serves_again(&self, id: u64) {
        while self.superseded.successor(id).is_some() {
            let epoch = self.node_changes.epoch();
            let job = self.nodes.get(id).and_then(|node| self.nodes.job_of(node));
            let Some(job) = job else { return };
            match self.view.in_primary(job.task_id(), job.hash()) {
                // It was found before the job was recovered: the kernel has been asked to look the name up again.
                Ok(InPrimary::Job) | Err(_) => return,
                Ok(InPrimary::Nothing | InPrimary::Link | InPrimary::Purged) => {}
            }
            // The job may have been recovered since it was looked for.
            let Some(changing) = self.node_changes.begin_since(epoch) else {
                continue;
            };
            let before = self.superseded.end(id);
            drop(changing);
            if let Some(before) = before {
                self.forget(before, 1);
            }
        }
    }
}

/// Returns the names that lead from a job to a node below it.
fn path_below(job: u64, mut id: u64, nodes: &HashMap<u64, Node>) -> Option<Vec<Name>> {
    let mut names = Vec::new();
    while id != job {
        let node = nodes.get(&id)?;
        names.push(node.name.clone());
        // A circle cannot be a path.
        if names.len() > nodes.len() {
            return None;
        }
        id = node.parent;
    }
    names.reverse();
    Some(names)
}
