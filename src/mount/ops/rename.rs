//! Renames entries, and updates the nodes that move.

use std::ffi::OsStr;

use rustix::fs::{RenameFlags, Statx};
use rustix::io::{Errno, Result};

use crate::mount::caller::Caller;
use crate::mount::copy_up::{StillInPrimary, Target};
use crate::mount::handover::intents::{Before, IntentOutcome};
use crate::mount::tables::nodes::{INTERNAL, Node, NodeRole};
use crate::mount::{Mount, deferred};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;

impl Mount {
    pub(in crate::mount) fn rename(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        new_parent: u64,
        new_name: &OsStr,
        flags: RenameFlags,
    ) -> Result<()> {
        let whiteout = flags.contains(RenameFlags::WHITEOUT);
        // The view shows directories there, from several locations.
        if whiteout && matches!(self.node(parent)?.role, NodeRole::Jobs | NodeRole::Task) {
            return Err(Errno::INVAL);
        }
        // The kernel would keep the old node of a recovered file under the new name; it looks the path up again.
        let exchanged = flags.contains(RenameFlags::EXCHANGE);
        if self.superseded.is_cached(parent, name)
            || exchanged && self.superseded.is_cached(new_parent, new_name)
        {
            return Err(Errno::STALE);
        }
        if self.is_renamed((parent, name), (new_parent, new_name), whiteout) {
            return Ok(());
        }
        let within = self.prepare_rename_inside(caller, (parent, name), new_parent)?;
        let found = self.find(parent, name)?;
        let from = self.removal(caller, parent, name, &found, within)?;
        let (directory, from_location) = (at::is_dir(&from.stat), from.location);
        // A device cannot be an internal file.
        if whiteout && from.location == INTERNAL {
            return Err(Errno::INVAL);
        }
        let internal = match from.location {
            INTERNAL if flags.is_empty() => {
                self.replaceable_internal(caller, new_parent, new_name, directory)?
            }
            _ => None,
        };
        let (to, existing) = match internal {
            Some(target) => {
                let existing = at::stat(&target.dir, new_name).ok();
                (target, existing)
            }
            None => self.replaceable(caller, new_parent, new_name, directory, flags, within)?,
        };
        if (from.location == INTERNAL) != (to.location == INTERNAL) {
            return Err(Errno::ROFS);
        }
        // A file that may have contents must not get the name of a lock that must stay empty.
        if from.location == INTERNAL
            && self.is_lock_name(parent, name)? != self.is_lock_name(new_parent, new_name)?
        {
            return Err(Errno::ROFS);
        }
        let replaced = existing
            .filter(|_| !exchanged)
            .and_then(|existing| self.descriptor_to_keep(new_name, &to.dir, &existing));
        deferred::commit()?;
        self.note_removal(parent, name, &from)?;
        let moved = FileId::of(&from.stat);
        let id = self.nodes.number(self.devices.node(&moved), &moved);
        self.nodes
            .record_name(id, new_parent, new_name, to.location);
        self.intents.change(
            || {
                let identity = Some(moved);
                Ok(Before { identity, size: 0 })
            },
            |begun| {
                // An exchange leaves a file under both names.
                let there = at::absent(at::stat(&to.dir, new_name))?;
                Ok(there.filter(|stat| begun.is_of(stat)).map(|_| 0))
            },
            || {
                let _identity = match whiteout {
                    true => self.assume_for_whiteout(caller)?,
                    false => None,
                };
                rustix::fs::renameat_with(&from.dir, name, &to.dir, new_name, flags)?;
                Ok(0)
            },
        )?;
        if let Some(stat) = existing.filter(|_| !exchanged) {
            self.lost_name(new_parent, new_name, &stat);
        }
        self.keep_descriptor(replaced);
        if directory {
            self.forget_removed_job(parent, name);
            self.forget_removed_job(new_parent, new_name);
        }
        self.forget_tasks(parent)?;
        self.forget_tasks(new_parent)?;
        let (old, new) = ((parent, name), (new_parent, new_name));
        self.note_move(&from.stat, old, new, &to);
        if let Some(existing) = existing.filter(|_| exchanged) {
            let back = Target::known(from.dir, from.location, self.node(parent)?.role);
            self.note_move(&existing, new, old, &back);
        }
        // The kernel keeps what it has cached of a file, now under the new name.
        self.lock_names.set_dropped(parent, name, false);
        self.lock_names.set_dropped(new_parent, new_name, false);
        self.activity.entry_altered(parent, name, from_location);
        self.activity
            .entry_altered(new_parent, new_name, to.location);
        Ok(())
    }

    /// Whether an earlier process has renamed a file for this request. With a whiteout, the old name exists either way.
    fn is_renamed(&self, from: (u64, &OsStr), to: (u64, &OsStr), whiteout: bool) -> bool {
        match self.intents.outcome() {
            Some(IntentOutcome::Made) => true,
            Some(IntentOutcome::Unknown) if whiteout => {
                let renamed = self.intents.begun().zip(self.find(to.0, to.1).ok());
                renamed.is_some_and(|(begun, found)| begun.is_of(&found.stat))
            }
            Some(IntentOutcome::Unknown) => {
                matches!(self.find(from.0, from.1), Err(Errno::NOENT))
                    && self.find(to.0, to.1).is_ok()
            }
            _ => false,
        }
    }

    /// Returns where an internal file may be renamed to another internal name: the file then hides the folder's file of
    /// this name, as an internal file does after a write.
    fn replaceable_internal(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        directory: bool,
    ) -> Result<Option<Target>> {
        match self.holder(&self.node(parent)?)? {
            Some(holder) if holder.is_internal(name, directory, None) => {
                self.target(caller, parent, name, directory).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Returns where a file may be renamed to, and the attributes of the existing entry there that is replaced. `within`: as
    /// [`Mount::prepare_rename_inside`] has returned it.
    fn replaceable(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        directory: bool,
        flags: RenameFlags,
        within: Option<StillInPrimary>,
    ) -> Result<(Target, Option<Statx>)> {
        let node = self.node(parent)?;
        let existing = match within {
            Some(_) => self.find_unless_moved(parent, &node, name, NodeRole::Inside),
            None => self.find(parent, name),
        };
        let existing = match existing {
            Ok(found) => found,
            Err(Errno::NOENT) if within.is_some() => {
                let target = Target::known(self.directory(parent)?, node.location, node.role);
                return Ok((target, None));
            }
            Err(Errno::NOENT) => {
                self.permit(caller, parent, name, directory)?;
                return Ok((self.target(caller, parent, name, directory)?, None));
            }
            Err(error) => return Err(error),
        };
        if flags.contains(RenameFlags::NOREPLACE) {
            return Err(Errno::EXIST);
        }
        let occupied = at::is_dir(&existing.stat);
        if !occupied && !directory && !flags.contains(RenameFlags::EXCHANGE) {
            // A file of an archived job that is replaced changes the job.
            if existing.location == node.location && self.needs_recovery(&node) {
                self.permit(caller, parent, name, directory)?;
                let target = self.target(caller, parent, name, directory)?;
                return Ok((target, Some(existing.stat)));
            }
        }
        match self.removal(caller, parent, name, &existing, within) {
            Ok(removable) => {
                let target = Target::known(removable.dir, removable.location, node.role);
                Ok((target, Some(existing.stat)))
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

    /// Updates the nodes after a rename of the file with these attributes. If another process has renamed or removed it meanwhile, the next
    /// request for its node will notice.
    fn note_move(&self, stat: &Statx, from: (u64, &OsStr), to: (u64, &OsStr), target: &Target) {
        let identity = FileId::of(stat);
        let directory = at::is_dir(stat);
        let role = target.role(to.1, directory);
        let id = self.nodes.number(self.devices.node(&identity), &identity);
        let node = Node {
            identity,
            parent: to.0,
            name: Name::from(to.1),
            location: target.location,
            role,
            directory,
        };
        let was = self.nodes.moved(id, from, node);
        if directory && was.is_some_and(|was| was.role != role) {
            self.nodes.change_roles(id, NodeRole::of_directory);
        }
    }
}
