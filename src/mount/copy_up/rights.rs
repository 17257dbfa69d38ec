//! Checks whether the caller may change an archived job, before the job is recovered for the change.
//!
//! The recovery is made by the daemon, with its own rights, and may take long. The caller must have the rights to what will
//! be recovered: the copy has the mode of the archived file, and its owner if the daemon is root, else the daemon's user.
//! And the caller must be allowed to create entries in the primary's directory of the task.

use std::os::fd::OwnedFd;

use rustix::fs::{Access, AtFlags, OFlags, Statx};
use rustix::io::{Errno, Result};
use rustix::process::{Gid, getegid, geteuid, getgroups};

use crate::mount::Mount;
use crate::mount::caller::Caller;
use crate::mount::locate::Dir;
use crate::mount::tables::nodes::{INTERNAL, Node, NodeRole};
use crate::sys::at;
use crate::view::PRIMARY;

impl Mount {
    /// Makes sure that the caller may change the contents of a node of a job that must be recovered for that.
    pub(super) fn check_recovery(&self, caller: &Caller, id: u64, node: &Node) -> Result<()> {
        match self.needs_recovery(node) {
            true => self.check_rights_to_copy(caller, id, node),
            false => Ok(()),
        }
    }

    /// As [`Mount::check_recovery`], for a node whose job is known to need the recovery.
    pub(super) fn check_rights_to_copy(&self, caller: &Caller, id: u64, node: &Node) -> Result<()> {
        let object = self.open_verified(id, OFlags::PATH)?;
        self.check_rights_to_task(caller, node)?;
        let _rights = self.rights_of(caller)?;
        self.check_writing_copy(&object, node.directory)
    }

    /// Makes sure that the caller may recover the job of a node, where the kernel decides whether the caller may change
    /// the node.
    pub(super) fn check_recovery_by_owner(&self, caller: &Caller, node: &Node) -> Result<()> {
        match self.needs_recovery(node) {
            true => self.check_rights_to_task(caller, node),
            false => Ok(()),
        }
    }

    /// Makes sure that the caller may create a job beside that of a node.
    pub(super) fn check_rights_to_task(&self, caller: &Caller, node: &Node) -> Result<()> {
        let task = self.directory_of_copy(node)?;
        let _rights = self.rights_of(caller)?;
        rustix::fs::accessat(
            &task,
            ".",
            Access::WRITE_OK | Access::EXEC_OK,
            AtFlags::EACCESS,
        )
    }

    /// Makes sure that the daemon may write to the copy of an archived file, as `access` asks.
    pub(in crate::mount) fn check_writing_copy(
        &self,
        object: &OwnedFd,
        directory: bool,
    ) -> Result<()> {
        let wanted = match directory {
            true => Access::WRITE_OK | Access::EXEC_OK,
            false => Access::WRITE_OK,
        };
        let stat = at::stat_fd(object)?;
        if !self.is_owner_kept() {
            // The copy will belong to the daemon's user.
            let bits = if directory { 0o300 } else { 0o200 };
            return match stat.stx_mode & bits == bits {
                true => Ok(()),
                false => Err(Errno::ACCESS),
            };
        }
        let path = at::proc_path(object);
        match rustix::fs::accessat(rustix::fs::CWD, path, wanted, AtFlags::EACCESS) {
            // The folder is read-only; the copy will not be.
            Err(Errno::ROFS) => permitted_by_mode(&stat, if directory { 3 } else { 2 }),
            result => result,
        }
    }

    /// Whether recovered files keep their owner.
    fn is_owner_kept(&self) -> bool {
        rustix::process::getuid().is_root()
    }

    /// Whether a change of a node needs the recovery of its job.
    pub(in crate::mount) fn needs_recovery(&self, node: &Node) -> bool {
        self.recover.is_some()
            && !matches!(node.location, PRIMARY | INTERNAL)
            && matches!(node.role, NodeRole::Job | NodeRole::Inside)
    }

    /// Returns the primary's directory in which a job will be recovered, or the one in which that will be made.
    fn directory_of_copy(&self, node: &Node) -> Result<Dir> {
        let mut job = node.clone();
        while job.role == NodeRole::Inside {
            job = self.node(job.parent)?;
        }
        let root = self.root(PRIMARY)?;
        let task = root.task(&self.node(job.parent)?.name);
        let nearest = match at::absent(task)? {
            Some(task) => Some(task),
            None => at::absent(root.jobs())?,
        };
        nearest.map_or_else(|| self.primary_dir(), |dir| Ok(dir.into()))
    }
}

/// Whether the mode of a file gives this thread's user these bits of `rwx`.
fn permitted_by_mode(stat: &Statx, bits: u16) -> Result<()> {
    let user = geteuid();
    let is_of_group = || {
        let group = Gid::from_raw(stat.stx_gid);
        getegid() == group || getgroups().is_ok_and(|groups| groups.contains(&group))
    };
    let class = match () {
        () if user.is_root() => return Ok(()),
        () if user.as_raw() == stat.stx_uid => 6,
        () if is_of_group() => 3,
        () => 0,
    };
    match stat.stx_mode >> class & bits == bits {
        true => Ok(()),
        false => Err(Errno::ACCESS),
    }
}
