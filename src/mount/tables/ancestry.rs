//! Finds the jobs of the primary to which a node belongs, by parents, in memory.

use crate::mount::tables::nodes::{Link, Nodes, Role};
use crate::view::PRIMARY;
use crate::workspace::jobs::JobId;

impl Nodes {
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
        while link.role == Role::Inside && link.place == PRIMARY {
            id = link.parent;
            link = self.link(id)?;
        }
        (link.role == Role::Job && link.place == PRIMARY).then_some(id)
    }

    /// Whether a node is the job with the node `job`, or lies in it by the name that it was last looked up by.
    pub(in crate::mount) fn is_below_job(&self, id: u64, job: u64) -> bool {
        let mut at = id;
        while at != job {
            match self.link(at) {
                Some(link) if link.role == Role::Inside => at = link.parent,
                _ => return false,
            }
        }
        true
    }

    /// Returns the job of a node.
    pub(in crate::mount) fn job_id(&self, id: u64) -> Option<JobId> {
        let job = self.get(id).filter(|node| node.role == Role::Job)?;
        let task = self.get(job.parent)?;
        JobId::new(&*task.name, &*job.name).ok()
    }
}
