//! Checks whether the job of a node is still where the node says: other processes move jobs, replace them, and purge them.

use std::ffi::OsStr;
use std::path::PathBuf;

use rustix::fs::Statx;
use rustix::io::{Errno, Result};

use super::Alteration;
use crate::mount::Mount;
use crate::mount::caller::Caller;
use crate::mount::tables::nodes::{INTERNAL, Node, NodeRole};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::view::PRIMARY;
use crate::workspace::jobs::JobId;

impl Mount {
    /// Makes sure that the job of a node of the primary is still there: if another process has moved the job to a
    /// folder of the same disk, its files are the same nodes, but belong to an archive. What a purge has left of a job must not
    /// be changed either.
    pub(in crate::mount) fn still_in_primary(&self, node: &Node) -> Result<()> {
        match self.is_purged_by_now(node)? {
            true => Err(Errno::STALE),
            false => Ok(()),
        }
    }

    /// As [`Mount::still_in_primary`], before a change for which a purged job is recovered.
    pub(in crate::mount) fn changeable_in_primary(
        &self,
        caller: &Caller,
        id: u64,
        node: &Node,
        by: Alteration,
    ) -> Result<()> {
        if !self.is_purged_by_now(node)? {
            return Ok(());
        }
        match by {
            Alteration::Contents => match self.check_rights_to_copy(caller, id, node) {
                // The purge has removed it: the kernel looks the recovered one up, and checks the rights to that.
                Err(Errno::STALE | Errno::NOENT) => self.check_rights_to_task(caller, node)?,
                checked => checked?,
            },
            Alteration::Attributes => self.check_rights_to_task(caller, node)?,
        }
        Err(self.recovery_needed(caller.tid, node))
    }

    /// Whether what the primary has of a node's job is only the rest that a purge has left.
    ///
    /// # Errors
    ///
    /// `ESTALE` if another process has moved the job: the kernel looks the path up again, and finds the new location.
    pub(in crate::mount) fn is_purged_by_now(&self, node: &Node) -> Result<bool> {
        if node.location != PRIMARY {
            return Ok(false);
        }
        let mut job = node.clone();
        while job.role == NodeRole::Inside {
            job = self.node(job.parent)?;
        }
        if job.role != NodeRole::Job {
            return Ok(false);
        }
        let dir = self.holding(job.parent, PRIMARY)?;
        match at::absent(at::stat(dir, &job.name))? {
            Some(stat) if FileId::of(&stat) == job.identity => {
                let task = self.node(job.parent)?.name;
                Ok(self.view.is_purged_by_now(&task, &job.name, &stat))
            }
            _ if self.find_renamed(&job).is_some() => Ok(false),
            _ => Err(Errno::STALE),
        }
    }

    /// The error for a name that the directory `id` lacks: `ENOENT`, or `ESTALE` if the directory's job is elsewhere by now. The kernel
    /// looks the path up again then.
    pub(in crate::mount) fn absence(&self, id: u64, node: &Node, name: &OsStr) -> Errno {
        let Some((job_id, job)) = self.job_above(id, node) else {
            return Errno::NOENT;
        };
        let _asking = self.asking(node.location, NodeRole::Inside);
        let there = self.in_place_of(&job);
        if (node.location, job.location) == (PRIMARY, PRIMARY)
            && let Some(stat) = there
                .as_ref()
                .filter(|stat| FileId::of(stat) == job.identity)
            && let Some(task) = self.nodes.get(job.parent)
            && self.view.is_purged_by_now(&task.name, &job.name, stat)
        {
            // A name that the copy lacks may be about to be created, which ESTALE would make fail.
            let known = self.nodes.path_in_job_of_primary(id);
            let lacks = known.is_some_and(|(job, dir)| self.view.copy_lacks(&job, &dir.join(name)));
            return if lacks { Errno::NOENT } else { Errno::STALE };
        }
        // Another process removes the rest of a moved job, or of a copy that was replaced, name by name.
        match self.is_elsewhere(job_id, &job, |_| there) {
            true => Errno::STALE,
            false => Errno::NOENT,
        }
    }

    /// Whether another entry is in the place of the job of a directory: another process has moved the job from the primary, or has
    /// replaced its copy in a folder. Or whether a purge has left the directory. Returns `false` if the job was removed through the mount:
    /// then the directory is empty, as on a disk.
    pub(in crate::mount) fn is_moved(&self, id: u64, node: &Node) -> bool {
        let job = self.job_above(id, node);
        job.is_some_and(|(id, job)| self.is_elsewhere(id, &job, |job| self.in_place_of(job)))
    }

    /// The same, of the job itself. `there`: what is in its place.
    fn is_elsewhere(
        &self,
        id: u64,
        job: &Node,
        there: impl FnOnce(&Node) -> Option<Statx>,
    ) -> bool {
        if self.is_purged(id) || self.dir_cache.is_moved_job(id) {
            return true;
        }
        there(job).is_some_and(|stat| FileId::of(&stat) != job.identity)
            && self.dir_cache.removed(id).is_none()
            && self.find_renamed(job).is_none()
    }

    /// The attributes of what has the name of a job, if it can be examined.
    fn in_place_of(&self, job: &Node) -> Option<Statx> {
        let dir = self.holding(job.parent, job.location).ok()?;
        at::stat(dir, &job.name).ok()
    }

    /// The job to which a directory belongs, with its number; itself, if it is one.
    fn job_above(&self, id: u64, node: &Node) -> Option<(u64, Node)> {
        if node.location == INTERNAL {
            return None;
        }
        let (mut id, mut job) = (id, node.clone());
        while job.role == NodeRole::Inside {
            id = job.parent;
            job = self.nodes.get(id)?;
        }
        (job.role == NodeRole::Job).then_some((id, job))
    }

    /// Whether a node of the primary belongs to a job that is known to be purged, so that a folder serves it.
    pub(in crate::mount) fn is_purged(&self, id: u64) -> bool {
        let is_it =
            |(job, _): (JobId, PathBuf)| self.view.is_known_purged(job.task_id(), job.hash());
        self.view.has_purged_jobs() && self.nodes.path_in_job_of_primary(id).is_some_and(is_it)
    }
}
