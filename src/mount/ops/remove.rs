//! Removes and renames entries: unlink, rmdir, rename.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Statx};
use rustix::io::{Errno, Result};

use crate::mount::caller::Caller;
use crate::mount::copy_up::Target;
use crate::mount::locate::Dir;
use crate::mount::ops::lookup::Found;
use crate::mount::tables::nodes::{INTERNAL, Node, Role};
use crate::mount::{Mount, deferred};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;
use crate::view::change::{Change, Verdict, judge};
use crate::workspace::layout;

/// A name that may be removed.
#[derive(Debug)]
struct Removable {
    dir: Dir,
    place: u8,
    /// The attributes of the file under the name.
    stat: Statx,
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
        self.entry_touched(parent, name, from.place);
        self.keep(removed);
        Ok(())
    }

    pub(in crate::mount) fn rmdir(&self, caller: &Caller, parent: u64, name: &OsStr) -> Result<()> {
        let from = self.removable(caller, parent, name)?;
        let removed = self.known(name, &from.dir);
        deferred::commit()?;
        rustix::fs::unlinkat(&from.dir, name, AtFlags::REMOVEDIR)?;
        self.entry_touched(parent, name, from.place);
        self.keep(removed);
        self.forget_tasks(parent)
    }

    /// Returns the file that is about to lose its name, if the kernel knows it: a process may be in it, keep it open
    /// unknown to the daemon (`O_PATH`, a pipe), or have looked it up to open it next.
    fn known(&self, name: &OsStr, dir: &Dir) -> Option<(u64, Arc<OwnedFd>)> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).ok()?;
        let identity = FileId::of(&at::stat_fd(&fd).ok()?);
        let id = self.nodes.number(self.devices.node(&identity), &identity);
        let node = self.nodes.get(id)?;
        (node.identity == identity).then(|| (id, Arc::new(fd)))
    }

    /// Keeps a file that has lost its name until the kernel forgets it.
    fn keep(&self, removed: Option<(u64, Arc<OwnedFd>)>) {
        if let Some((id, fd)) = removed {
            self.dir_cache.keep_removed(id, fd);
            // If the kernel has forgotten the node meanwhile, no later request would remove the descriptor.
            if self.nodes.get(id).is_none() {
                self.dir_cache.forget(id);
            }
        }
    }

    /// Makes the view look up the directories of tasks again if one of them may have changed.
    fn forget_tasks(&self, parent: u64) -> Result<()> {
        if matches!(self.node(parent)?.role, Role::Root | Role::Jobs) {
            self.root(crate::view::PRIMARY)?.forget_tasks();
        }
        Ok(())
    }

    /// Returns the place of a name that may be removed.
    fn removable(&self, caller: &Caller, parent: u64, name: &OsStr) -> Result<Removable> {
        let found = self.find(parent, name)?;
        self.removal(caller, parent, name, &found)
    }

    /// Returns the place of a file found under a name, if the name may be removed.
    fn removal(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        found: &Found,
    ) -> Result<Removable> {
        let node = self.node(parent)?;
        match node.role {
            Role::Root if name == layout::XPMFS => Err(Errno::NOENT),
            // The directories of the union cannot be removed, like a mount point.
            Role::Root if found.role == Role::Jobs => Err(Errno::BUSY),
            Role::Jobs if found.role == Role::Task && self.view.task_in_folders(name) => {
                Err(Errno::ROFS)
            }
            _ => {
                let internal = found.place == INTERNAL && !self.folder_has(parent, &node, name);
                if internal {
                    self.may_work(caller)?;
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

    pub(in crate::mount) fn rename(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        new_parent: u64,
        new_name: &OsStr,
        flags: RenameFlags,
    ) -> Result<()> {
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::INVAL);
        }
        let from = self.removable(caller, parent, name)?;
        let (directory, from_place) = (at::is_dir(&from.stat), from.place);
        let internal = match from.place {
            INTERNAL if flags.is_empty() => {
                self.replaceable_internal(new_parent, new_name, directory)?
            }
            _ => None,
        };
        let (to, existing) = match internal {
            Some(target) => {
                let existing = at::stat(&target.dir, new_name).is_ok();
                (target, existing)
            }
            None => self.replaceable(caller, new_parent, new_name, directory, flags)?,
        };
        if (from.place == INTERNAL) != (to.place == INTERNAL) {
            return Err(Errno::ROFS);
        }
        // A file that may have contents must not get the name of a lock that must stay empty.
        if from.place == INTERNAL
            && self.is_lock_name(parent, name)? != self.is_lock_name(new_parent, new_name)?
        {
            return Err(Errno::ROFS);
        }
        let replaced = match existing {
            true if flags.is_empty() => self.known(new_name, &to.dir),
            _ => None,
        };
        deferred::commit()?;
        rustix::fs::renameat_with(&from.dir, name, &to.dir, new_name, flags)?;
        self.keep(replaced);
        self.forget_tasks(parent)?;
        self.forget_tasks(new_parent)?;
        let (old, new) = ((parent, name), (new_parent, new_name));
        self.note_move(old, new, &to);
        if flags.contains(RenameFlags::EXCHANGE) {
            let back = Target::known(from.dir, from.place, self.node(parent)?.role);
            self.note_move(new, old, &back);
        }
        self.entry_touched(parent, name, from_place);
        self.entry_touched(new_parent, new_name, to.place);
        Ok(())
    }

    /// Returns where an internal file may be renamed to another internal name: the file then hides the folder's file of
    /// this name, as an internal file does after a write.
    fn replaceable_internal(
        &self,
        parent: u64,
        name: &OsStr,
        directory: bool,
    ) -> Result<Option<Target>> {
        match self.holder(&self.node(parent)?)? {
            Some(holder) if holder.is_internal(name, directory, None) => {
                self.target(parent, name, directory).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Returns where a file may be renamed to, and whether an existing entry there may be replaced.
    fn replaceable(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        directory: bool,
        flags: RenameFlags,
    ) -> Result<(Target, bool)> {
        let existing = match self.find(parent, name) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok((self.target(parent, name, directory)?, false)),
            Err(error) => return Err(error),
        };
        if flags.contains(RenameFlags::NOREPLACE) {
            return Err(Errno::EXIST);
        }
        let occupied = at::is_dir(&existing.stat);
        match self.removal(caller, parent, name, &existing) {
            Ok(removable) => {
                let role = self.node(parent)?.role;
                let target = Target::known(removable.dir, removable.place, role);
                Ok((target, true))
            }
            // The same error as the disk's for a directory that is not empty.
            Err(Errno::ROFS) if occupied && !flags.contains(RenameFlags::EXCHANGE) => {
                Err(if directory {
                    Errno::NOTEMPTY
                } else {
                    Errno::ISDIR
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Updates the nodes after a rename.
    fn note_move(&self, from: (u64, &OsStr), to: (u64, &OsStr), target: &Target) {
        let Ok(stat) = at::stat(&target.dir, to.1) else {
            // Already removed again; the next lookup will notice.
            return;
        };
        let identity = FileId::of(&stat);
        let directory = at::is_dir(&stat);
        let role = target.role(to.1, directory);
        let id = self.nodes.number(self.devices.node(&identity), &identity);
        let node = Node {
            identity,
            parent: to.0,
            name: Name::from(to.1),
            place: target.place,
            role,
            directory,
        };
        let was = self.nodes.moved(id, from, node);
        if directory && was.is_some_and(|was| was.role != role) {
            self.nodes.change_roles(id, Role::of_directory);
        }
    }
}
