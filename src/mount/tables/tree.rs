//! Walks the tree of nodes by their parents: down to all nodes below one, and up to the job of one.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use crate::mount::tables::nodes::{Link, Node, NodeRole, Nodes};
use crate::mount::tables::numbers::ROOT;
use crate::view::PRIMARY;
use crate::workspace::jobs::JobId;

impl Nodes {
    /// Calls `call` with every node below `top`. Takes time proportional to the number of all nodes.
    pub(in crate::mount) fn below(&self, top: u64, mut call: impl FnMut(u64, &mut Node)) {
        let mut level = HashSet::from([top]);
        while !level.is_empty() {
            let mut next = HashSet::new();
            for shard in &self.shards {
                for (id, entry) in &mut shard.write().entries {
                    if level.contains(&entry.node.parent) && *id != ROOT {
                        let location = entry.node.location;
                        call(*id, &mut entry.node);
                        if entry.node.location != location {
                            self.note(*id, entry);
                        }
                        if entry.node.directory {
                            next.insert(*id);
                        }
                    }
                }
            }
            level = next;
        }
    }

    /// Sets the role of every node below `top` according to its present place in the tree. Needed only when a directory
    /// is moved into or out of `jobs/`.
    pub(in crate::mount) fn change_roles(
        &self,
        top: u64,
        role_below: impl Fn(NodeRole) -> NodeRole,
    ) {
        let mut level = vec![top];
        while !level.is_empty() {
            let mut next = Vec::new();
            let roles: HashMap<u64, NodeRole> = level
                .iter()
                .filter_map(|id| Some((*id, self.get(*id)?.role)))
                .collect();
            for shard in &self.shards {
                for (id, entry) in &mut shard.write().entries {
                    if let Some(role) = roles.get(&entry.node.parent)
                        && *id != ROOT
                    {
                        entry.node.role = role_below(*role);
                        self.note(*id, entry);
                        if entry.node.directory {
                            next.push(*id);
                        }
                    }
                }
            }
            level = next;
        }
    }

    /// Calls `call` with the node of each job of the primary that a node is, or belongs to by one of its names.
    pub(in crate::mount) fn each_job_of(&self, id: u64, mut call: impl FnMut(u64)) {
        let Some((link, others)) = self.links(id) else {
            return;
        };
        let first = self.job_above(id, link);
        if let Some(job) = first {
            call(job);
        }
        for other in others {
            if let Some(job) = self.job_above(id, other).filter(|job| first != Some(*job)) {
                call(job);
            }
        }
    }

    /// Returns the node of the job of the primary that a node is, or belongs to by one of its names.
    fn job_above(&self, id: u64, link: Link) -> Option<u64> {
        let (mut id, mut link) = (id, link);
        while link.role == NodeRole::Inside && link.location == PRIMARY {
            id = link.parent;
            link = self.link(id)?;
        }
        (link.role == NodeRole::Job && link.location == PRIMARY).then_some(id)
    }

    /// Whether a node is the job with the node `job`, or lies in it by the name that it was last looked up by.
    pub(in crate::mount) fn is_below_job(&self, id: u64, job: u64) -> bool {
        let mut at = id;
        while at != job {
            match self.link(at) {
                Some(link) if link.role == NodeRole::Inside => at = link.parent,
                _ => return false,
            }
        }
        true
    }

    /// Returns the job that a node belongs to, and the node's path in it.
    pub(in crate::mount) fn path_in_job(&self, node: Node) -> Option<(JobId, PathBuf)> {
        let (job, path) = self.climb_to_job(node)?;
        let task = self.get(job.parent)?;
        let id = JobId::new(&*task.name, &*job.name).ok()?;
        Some((id, path))
    }

    /// Returns the job that a node belongs to.
    pub(in crate::mount) fn job_of(&self, node: Node) -> Option<JobId> {
        self.path_in_job(node).map(|(job, _)| job)
    }

    /// Returns the job of a node, and the node's path in it; `None` for a node that is in no job of the primary.
    pub(in crate::mount) fn path_in_job_of_primary(&self, id: u64) -> Option<(JobId, PathBuf)> {
        let node = self.get(id).filter(|node| node.location == PRIMARY)?;
        let (job, _) = self.climb_to_job(node.clone())?;
        match job.location {
            PRIMARY => self.path_in_job(node),
            _ => None,
        }
    }

    /// Returns the node of the job that a node belongs to, and the node's path in it.
    fn climb_to_job(&self, mut node: Node) -> Option<(Node, PathBuf)> {
        let mut names = Vec::new();
        while node.role == NodeRole::Inside {
            let parent = node.parent;
            names.push(node.name);
            node = self.get(parent)?;
        }
        let path = names.iter().rev().map(|name| &**name).collect();
        (node.role == NodeRole::Job).then_some((node, path))
    }

    /// Returns the job of a node that is a job.
    pub(in crate::mount) fn job_id(&self, id: u64) -> Option<JobId> {
        let job = self.get(id).filter(|node| node.role == NodeRole::Job)?;
        let task = self.get(job.parent)?;
        JobId::new(&*task.name, &*job.name).ok()
    }
}
