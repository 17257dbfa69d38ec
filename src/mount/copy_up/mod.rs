//! Decides where a change to a job that a folder serves is made, and whether it is permitted.
//!
//! The job itself is copied by [`recovery`](super::recovery). `ops::remove` decides about removals: unlink, rmdir and the source of a rename; but a
//! rename inside a job recovers the job first, which is decided here.
//!
//! `job_place`: whether a job is still where its nodes say; `rights`: whether the caller may change a job that must be
//! recovered first; `small_copy`: copies an internal file to the primary

mod job_place;
mod rights;
mod small_copy;

pub(super) use job_place::StillInPrimary;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::OFlags;
use rustix::io::{Errno, Result};

use crate::mount::caller::Caller;
use crate::mount::locate::Dir;
use crate::mount::tables::handles::File;
use crate::mount::tables::nodes::{INTERNAL, Node, NodeRole};
use crate::mount::{Mount, deferred};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::view::change::{Change, Verdict, judge};
use crate::view::internal::JobDir;
use crate::view::internal_gate::InternalGate;
use crate::view::{InPrimary, PRIMARY};
use crate::workspace::layout;

/// Where an entry will be created.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) dir: Dir,
    pub(super) location: u8,
    /// The role of the parent node; see [`Target::role`].
    parent: NodeRole,
    /// Keeps the job from being published until the entry has been created, if it is an internal file.
    _gate: Option<InternalGate>,
}

impl Target {
    /// Returns the target in a directory of a location, below a parent of this role.
    pub(super) fn known(dir: Dir, location: u8, parent: NodeRole) -> Target {
        Target {
            dir,
            location,
            parent,
            _gate: None,
        }
    }

    /// The role of the new entry in the view.
    pub(super) fn role(&self, name: &OsStr, directory: bool) -> NodeRole {
        self.parent.of_entry(name, directory)
    }
}

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// What of a file is changed: who may do so differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alteration {
    /// Its contents, or the names in a directory.
    Contents,
    /// Its mode, owner, times or extended attributes, of which the kernel or the disk decides.
    Attributes,
}

impl Mount {
    /// Returns where a new `name` below `parent` will be created, and makes the directories of the primary that are missing for that; `directory` is whether it will be a directory. Checks
    /// whether a folder has the name, but not whether it is free in the primary.
    pub(super) fn target(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        directory: bool,
    ) -> Result<Target> {
        let node = self.node(parent)?;
        let in_primary = |dir| Target::known(dir, PRIMARY, node.role);
        match node.role {
            NodeRole::Root if name == layout::XPMFS => Err(Errno::PERM),
            NodeRole::Root => Ok(in_primary(self.primary_dir()?)),
            NodeRole::Jobs => Ok(in_primary(self.view.make_jobs()?.into())),
            // The directory that the kernel means, whatever its present name.
            NodeRole::Task if node.location == PRIMARY => Ok(in_primary(self.directory(parent)?)),
            NodeRole::Task => Ok(in_primary(
                self.view.make_task(&node.name, node.location)?.into(),
            )),
            NodeRole::Job | NodeRole::Inside | NodeRole::Outside => {
                self.target_inside(caller, parent, &node, name, directory)
            }
        }
    }

    /// Makes sure that the caller may create a `name` below `parent`, where the kernel cannot decide that.
    pub(super) fn permit(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        directory: bool,
    ) -> Result<()> {
        let node = self.node(parent)?;
        match self.holder(&node)? {
            Some(holder) if holder.is_internal(name, directory, None) => {
                self.check_write_access(caller)
            }
            _ => self.check_recovery(caller, parent, &node),
        }
    }

    fn target_inside(
        &self,
        caller: &Caller,
        parent: u64,
        node: &Node,
        name: &OsStr,
        directory: bool,
    ) -> Result<Target> {
        if node.location == PRIMARY || node.location == INTERNAL {
            self.changeable_in_primary(caller, parent, node, Alteration::Contents)?;
            let dir = self.directory(parent)?;
            return Ok(Target::known(dir, node.location, node.role));
        }
        let holder = self.holder(node)?;
        let internal = holder.filter(|holder| holder.is_internal(name, directory, None));
        match judge(node.location, internal.is_some(), Change::Alter) {
            Verdict::Internal => {
                let holder = internal.ok_or(Errno::ROFS)?;
                match self.internal_target(&holder, node.role)? {
                    Some(target) => Ok(target),
                    // Another process has recovered the job: its internal files lie in it.
                    None => Err(match self.recover {
                        Some(_) => self.recovery_needed(caller.tid, node),
                        None => Errno::STALE,
                    }),
                }
            }
            Verdict::Refuse(error) => Err(error),
            Verdict::Go | Verdict::Recover => Err(self.recovery_needed(caller.tid, node)),
        }
    }

    /// Makes sure that a node may be changed, and returns the node to change: of a file of a job that was recovered, the
    /// recovered one.
    pub(super) fn alterable(
        &self,
        caller: &Caller,
        id: u64,
        by: Alteration,
    ) -> Result<(u64, Node)> {
        let (id, node) = self.node_to_change(caller, id, by)?;
        self.changeable_in_primary(caller, id, &node, by)?;
        Ok((id, node))
    }

    /// Returns the node to change in place of this one, unless another process has moved its job.
    pub(super) fn node_to_change(
        &self,
        caller: &Caller,
        id: u64,
        by: Alteration,
    ) -> Result<(u64, Node)> {
        let node = self.node(id)?;
        if node.location == INTERNAL {
            return Ok((id, node));
        }
        if let Some(recovered) = self.superseded.successor(id) {
            return Ok((recovered, self.node(recovered)?));
        }
        if node.location == PRIMARY {
            return Ok((id, node));
        }
        let parent = self.node(node.parent)?;
        let internal = match self.holder(&parent)? {
            Some(holder) if !node.directory => {
                let size = self.stat(id)?.1.stx_size;
                Some(holder).filter(|holder| holder.is_internal(&node.name, false, Some(size)))
            }
            _ => None,
        };
        match judge(node.location, internal.is_some(), Change::Alter) {
            Verdict::Internal => {
                let holder = internal.ok_or(Errno::ROFS)?;
                self.check_write_access(caller)?;
                let _identity = self.assume(caller)?;
                Ok((id, self.internalize(id, &node, &holder)?))
            }
            Verdict::Refuse(error) => Err(error),
            Verdict::Go | Verdict::Recover => {
                match by {
                    Alteration::Contents => self.check_recovery(caller, id, &node)?,
                    Alteration::Attributes => self.check_recovery_by_owner(caller, &node)?,
                }
                Err(self.recovery_needed(caller.tid, &node))
            }
        }
    }

    /// Whether a node is a lock of an archived job that becomes user data when it is written.
    pub(super) fn is_only_lock(&self, id: u64) -> Result<bool> {
        let node = self.node(id)?;
        if node.location != INTERNAL {
            return Ok(false);
        }
        self.is_lock_name(node.parent, &node.name)
    }

    /// Whether an internal file of this name is internal only as long as it is empty.
    pub(super) fn is_lock_name(&self, parent: u64, name: &OsStr) -> Result<bool> {
        let holder = self.holder(&self.node(parent)?)?;
        Ok(holder.is_some_and(|holder| holder.is_only_while_empty(name)))
    }

    /// Makes sure that an entry of a job can be renamed inside the job: recovers the job for that. If both directories belong to one job of
    /// the primary, returns that it was found there.
    pub(super) fn prepare_rename_inside(
        &self,
        caller: &Caller,
        (parent, name): (u64, &OsStr),
        new_parent: u64,
    ) -> Result<Option<StillInPrimary>> {
        let node = self.node(parent)?;
        let target = self.node(new_parent)?;
        let job = self.nodes.job_of(node.clone());
        let within = job == self.nodes.job_of(target.clone());
        if node.location == PRIMARY && within {
            let found = self.changeable_in_primary(caller, parent, &node, Alteration::Contents)?;
            return Ok((job.is_some() && target.location == PRIMARY).then_some(found));
        }
        if !self.needs_recovery(&node) {
            return Ok(None);
        }
        let found = self.find(parent, name)?;
        if found.location == INTERNAL || !within {
            return Ok(None);
        }
        self.check_recovery(caller, parent, &node)?;
        Err(self.recovery_needed(caller.tid, &node))
    }

    /// Whether data that is written to an open file may turn a lock of an archived job into user data.
    pub(super) fn may_fill_lock(&self, handle: u64) -> bool {
        self.handles.file(handle).is_ok_and(|file| file.only_lock)
    }

    /// Makes sure that data may be written to an open file.
    pub(super) fn fillable(&self, tid: u32, file: &File) -> Result<()> {
        match file.only_lock {
            true => self.fillable_node(tid, file.node),
            false => Ok(()),
        }
    }

    /// Makes sure that data may be written to a node that was a lock of an archived job.
    pub(super) fn fillable_node(&self, tid: u32, id: u64) -> Result<()> {
        let node = self.node(id)?;
        match node.location {
            INTERNAL => Err(self.recovery_needed(tid, &node)),
            _ => Ok(()),
        }
    }

    /// Returns the error with which an operation ends that needs the job of a node in the primary: the operation is
    /// attempted again when the job has been recovered, if the mount recovers jobs.
    pub(super) fn recovery_needed(&self, tid: u32, node: &Node) -> Errno {
        if self.recover.is_none() {
            return Errno::ROFS;
        }
        match self.nodes.job_of(node.clone()) {
            Some(job) => deferred::need_recovery(job, tid),
            // Since the caller got the node, the kernel has found the job in another location's directory of the task.
            None if matches!(node.role, NodeRole::Job | NodeRole::Inside) => Errno::STALE,
            None => Errno::ROFS,
        }
    }

    /// Whether the primary serves a job by now, from its own directory. Does not ask where a symlink leads: a folder may hang.
    fn is_in_primary(&self, holder: &JobDir) -> Result<bool> {
        let task = self.view.primary().root()?.task(&holder.task);
        let there = task.and_then(|task| at::stat(&*task, &holder.hash));
        if !at::absent(there)?.is_some_and(|stat| at::is_dir(&stat)) {
            return Ok(false);
        }
        let there = self.view.in_primary(&holder.task, &holder.hash)?;
        Ok(there == InPrimary::Job)
    }

    /// Returns the target for an internal file of a job that a folder serves, below a parent of this role; `None` if the primary serves the
    /// job by now. The job is not published until the target is dropped.
    fn internal_target(&self, holder: &JobDir, parent: NodeRole) -> Result<Option<Target>> {
        let gate = self.view.open_gate();
        if self.is_in_primary(holder)? {
            return Ok(None);
        }
        Ok(Some(Target {
            dir: self.view.make_internal_dir(holder)?.into(),
            location: INTERNAL,
            parent,
            _gate: Some(gate),
        }))
    }

    /// Creates an internal file in the primary for a job that a folder serves, with the contents of the folder's file.
    fn internalize(&self, id: u64, node: &Node, holder: &JobDir) -> Result<Node> {
        let archived = self.open_verified(id, OFlags::RDONLY)?;
        self.apply_noatime(&archived);
        let parent = self.node(node.parent)?.role;
        let target = || self.internal_target(holder, parent)?.ok_or(Errno::STALE);
        let there = target()?;
        let (_target, stat) = match at::absent(at::stat(&there, &node.name))? {
            Some(stat) => (there, stat),
            None => {
                // The folder may let the daemon wait for the contents.
                drop(there);
                let sharing = small_copy::Sharing::of(self.view.primary().root()?.fd())?;
                let aside = self.view.internal_top()?;
                small_copy::copy(&archived, &aside, &node.name, sharing, &target)?
            }
        };
        let internal = Node {
            identity: FileId::of(&stat),
            location: INTERNAL,
            ..node.clone()
        };
        self.nodes.update(id, internal);
        self.node(id)
    }
}
