//! Removes entries: unlink, rmdir.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, Statx};
use rustix::io::{Errno, Result};

use crate::mount::caller::Caller;
use crate::mount::locate::Dir;
use crate::mount::ops::lookup::Found;
use crate::mount::tables::nodes::{INTERNAL, Node, NodeRole};
use crate::mount::{Mount, deferred};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::view::change::{Change, Verdict, judge};
use crate::workspace::layout;

/// A name that may be removed.
#[derive(Debug)]
pub(super) struct Removable {
    pub(super) dir: Dir,
    pub(super) place: u8,
    /// The attributes of the file under the name.
    pub(super) stat: Statx,
}

impl Mount {
    pub(in crate::mount) fn unlink(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
    ) -> Result<()> {
        let from = self.removable(caller, parent, name)?;
        let removed = self.known(name, &from.dir);
        deferred::commit()?;
        rustix::fs::unlinkat(&from.dir, name, AtFlags::empty())?;
        self.activity.entry_altered(parent, name, from.place);
        self.keep(removed);
        Ok(())
    }

    pub(in crate::mount) fn rmdir(&self, caller: &Caller, parent: u64, name: &OsStr) -> Result<()> {
        let from = self.removable(caller, parent, name)?;
        let removed = self.known(name, &from.dir);
        deferred::commit()?;
        rustix::fs::unlinkat(&from.dir, name, AtFlags::REMOVEDIR)?;
        self.activity.entry_altered(parent, name, from.place);
        self.keep(removed);
        self.forget_tasks(parent)
    }

    /// Returns the file that is about to lose its name, if the kernel knows it: a process may be in it, keep it open
    /// unknown to the daemon (`O_PATH`, a pipe), or have looked it up to open it next.
    pub(super) fn known(&self, name: &OsStr, dir: &Dir) -> Option<(u64, Arc<OwnedFd>)> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).ok()?;
        let identity = FileId::of(&at::stat_fd(&fd).ok()?);
        let id = self.nodes.number(self.devices.node(&identity), &identity);
        let node = self.nodes.get(id)?;
        (node.identity == identity).then(|| (id, Arc::new(fd)))
    }

    /// Keeps a file that has lost its name until the kernel forgets it.
    pub(super) fn keep(&self, removed: Option<(u64, Arc<OwnedFd>)>) {
        if let Some((id, fd)) = removed {
            self.dir_cache.keep_removed(id, fd);
            // If the kernel has forgotten the node meanwhile, no later request would remove the descriptor.
            if self.nodes.get(id).is_none() {
                self.dir_cache.forget(id);
            }
        }
    }

    /// Makes the view look up the directories of tasks again if one of them may have changed.
    pub(super) fn forget_tasks(&self, parent: u64) -> Result<()> {
        if matches!(self.node(parent)?.role, NodeRole::Root | NodeRole::Jobs) {
            self.root(crate::view::PRIMARY)?.forget_tasks();
        }
        Ok(())
    }

    /// Returns the place of a name that may be removed.
    pub(super) fn removable(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
    ) -> Result<Removable> {
        let found = self.find(parent, name)?;
        self.removal(caller, parent, name, &found)
    }

    /// Returns the place of a file found under a name, if the name may be removed.
    pub(super) fn removal(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        found: &Found,
    ) -> Result<Removable> {
        let node = self.node(parent)?;
        match node.role {
            NodeRole::Root if name == layout::XPMFS => Err(Errno::NOENT),
            // The directories of the union cannot be removed, like a mount point.
            NodeRole::Root if found.role == NodeRole::Jobs => Err(Errno::BUSY),
            NodeRole::Jobs if found.role == NodeRole::Task && self.view.task_in_folders(name) => {
                Err(Errno::ROFS)
            }
            _ => {
                let internal = found.place == INTERNAL && !self.folder_has(parent, &node, name);
                if internal {
                    self.check_write_access(caller)?;
                }
                match judge(found.place, internal, Change::Remove) {
                    Verdict::Go | Verdict::Internal => {
                        self.still_in_primary(&node)?;
                        Ok(Removable {
                            dir: self.holding(parent, found.place)?,
                            place: found.place,
                            stat: found.stat,
                        })
                    }
                    Verdict::Refuse(error) => Err(error),
                    Verdict::Recover => Err(Errno::ROFS),
                }
            }
        }
    }

    /// Whether the folder that serves a job has this name as well as the primary's internal files: then the name cannot
    /// be removed.
    fn folder_has(&self, parent: u64, node: &Node, name: &OsStr) -> bool {
        matches!(self.holder(node), Ok(Some(_)))
            && self
                .directory(parent)
                .and_then(|dir| at::stat(dir, name))
                .is_ok()
    }
}
