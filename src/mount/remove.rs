//! Taking names away: unlink, rmdir, rename.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Statx};
use rustix::io::{Errno, Result};

use super::alter::Target;
use super::caller::Caller;
use super::lookup::Found;
use super::nodes::{INTERNAL, Node, Role};
use super::place::Dir;
use super::{Mount, rescue};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;
use crate::view::change::{Change, Verdict, judge};
use crate::workspace::layout;

/// A name that may be taken away.
#[derive(Debug)]
struct Removable {
    dir: Dir,
    place: u8,
    /// What it is.
    stat: Statx,
}

impl Mount {
    pub(super) fn unlink(&self, caller: &Caller, parent: u64, name: &OsStr) -> Result<()> {
        let from = self.removable(caller, parent, name)?;
        let removed = self.known(name, &from.dir);
        rescue::commit()?;
        rustix::fs::unlinkat(&from.dir, name, AtFlags::empty())?;
        self.entry_touched(parent, name, from.place);
        self.keep(removed);
        Ok(())
    }

    pub(super) fn rmdir(&self, caller: &Caller, parent: u64, name: &OsStr) -> Result<()> {
        let from = self.removable(caller, parent, name)?;
        let removed = self.known(name, &from.dir);
        rescue::commit()?;
        rustix::fs::unlinkat(&from.dir, name, AtFlags::REMOVEDIR)?;
        self.entry_touched(parent, name, from.place);
        self.keep(removed);
        self.forget_tasks(parent)
    }

    /// What is about to lose its name, if the kernel knows it: somebody may be in it, have it open
    /// without our knowing (`O_PATH`, a pipe), or have looked it up to open it next.
    fn known(&self, name: &OsStr, dir: &Dir) -> Option<(u64, Arc<OwnedFd>)> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).ok()?;
        let identity = FileId::of(&at::stat_fd(&fd).ok()?);
        let id = self.nodes.number(self.devices.node(&identity), &identity);
        let node = self.nodes.get(id)?;
        (node.identity == identity).then(|| (id, Arc::new(fd)))
    }

    /// Keeps what has lost its name until the kernel forgets it.
    fn keep(&self, removed: Option<(u64, Arc<OwnedFd>)>) {
        if let Some((id, fd)) = removed {
            self.directories.keep_removed(id, fd);
            // Forgotten meanwhile, nobody would ever take it away again.
            if self.nodes.get(id).is_none() {
                self.directories.forget(id);
            }
        }
    }

    /// Makes the view look anew for the directories of tasks if one of them is no more what it was.
    fn forget_tasks(&self, parent: u64) -> Result<()> {
        if matches!(self.node(parent)?.role, Role::Root | Role::Jobs) {
            self.root(crate::view::PRIMARY)?.forget_tasks();
        }
        Ok(())
    }

    /// Where a name lies that may be taken away.
    fn removable(&self, caller: &Caller, parent: u64, name: &OsStr) -> Result<Removable> {
        let found = self.find(parent, name)?;
        self.removal(caller, parent, name, &found)
    }

    /// Where something lies that was found under a name which may be taken away.
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
            // What the view is the union of stays, as a mount point does.
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

    /// Whether the folder that serves a job has this name as well as the primary's internal files:
    /// then it cannot be made to go away.
    fn folder_has(&self, parent: u64, node: &Node, name: &OsStr) -> bool {
        matches!(self.holder(node), Ok(Some(_)))
            && self
                .directory(parent)
                .and_then(|dir| at::stat(dir, name))
                .is_ok()
    }

    pub(super) fn rename(
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
        // What may have something in it must not come to be called a lock that may not.
        if from.place == INTERNAL
            && self.is_lock_name(parent, name)? != self.is_lock_name(new_parent, new_name)?
        {
            return Err(Errno::ROFS);
        }
        let replaced = match existing {
            true if flags.is_empty() => self.known(new_name, &to.dir),
            _ => None,
        };
        rescue::commit()?;
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

    /// Where an internal file may be renamed to another internal name: it stands before what the
    /// folder has there, as one does that is written.
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

    /// Where something may be renamed to, and whether something stands there, which may be replaced.
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
            // As the disk would say of a directory that is not empty.
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

    /// Lets the nodes know that something has another name now.
    fn note_move(&self, from: (u64, &OsStr), to: (u64, &OsStr), target: &Target) {
        let Ok(stat) = at::stat(&target.dir, to.1) else {
            // Gone again already; whoever asks for it next will find out.
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
            self.nodes.change_roles(id, role_below);
        }
    }
}

/// What a child is to the view, given what its parent is. Only directories are asked for below
/// `jobs/` and a task; anything else there gets its role when it is looked up again.
pub(super) fn role_below(parent: Role) -> Role {
    match parent {
        Role::Jobs => Role::Task,
        Role::Task => Role::Job,
        Role::Job | Role::Inside => Role::Inside,
        Role::Root | Role::Outside => Role::Outside,
    }
}
