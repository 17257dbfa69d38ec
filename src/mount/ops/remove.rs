//! Removes entries: unlink, rmdir.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx};
use rustix::io::{Errno, Result};

use crate::mount::caller::Caller;
use crate::mount::copy_up::StillInPrimary;
use crate::mount::find::Found;
use crate::mount::handover::intents::{Before, IntentOutcome};
use crate::mount::locate::Dir;
use crate::mount::tables::nodes::{INTERNAL, Node, NodeRole};
use crate::mount::{Mount, deferred};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::view::change::{Change, Verdict, judge};
use crate::workspace::layout;

/// More than the longest tick of the kernel's clock, by which files created in succession have the same time of birth.
const BIRTH_PRECISION: Duration = Duration::from_millis(100);

/// A name that may be removed.
#[derive(Debug)]
pub(super) struct Removable {
    pub(super) dir: Dir,
    pub(super) location: u8,
    /// The attributes of the file under the name.
    pub(super) stat: Statx,
    /// The attributes of the directory of the job in the primary that it belongs to, if they were needed.
    pub(super) job: Option<Statx>,
}

impl Mount {
    pub(in crate::mount) fn unlink(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
    ) -> Result<()> {
        if self.is_removed(parent, name) {
            return Ok(());
        }
        let from = self.removable(caller, parent, name)?;
        let removed = self.descriptor_to_keep(name, &from.dir, &from.stat);
        deferred::commit()?;
        let unrecorded = self.note_unlink(parent, name, &from)?;
        self.remove_name(&from, name, AtFlags::empty())?;
        self.lost_name(parent, name, &from.stat);
        self.activity.entry_altered(parent, name, from.location);
        self.keep_descriptor(removed);
        match unrecorded {
            Some(removal) => self.record_after(parent, name, &removal),
            None => Ok(()),
        }
    }

    pub(in crate::mount) fn rmdir(&self, caller: &Caller, parent: u64, name: &OsStr) -> Result<()> {
        if self.is_removed(parent, name) {
            return Ok(());
        }
        let from = self.removable(caller, parent, name)?;
        let removed = self.descriptor_to_keep(name, &from.dir, &from.stat);
        deferred::commit()?;
        self.remove_name(&from, name, AtFlags::REMOVEDIR)?;
        self.activity.entry_altered(parent, name, from.location);
        self.keep_descriptor(removed);
        self.forget_removed_job(parent, name);
        self.forget_tasks(parent)
    }

    /// Whether an earlier process has removed a name for this request.
    fn is_removed(&self, parent: u64, name: &OsStr) -> bool {
        match self.intents.outcome() {
            Some(IntentOutcome::Made) => true,
            Some(IntentOutcome::Unknown) => matches!(self.find(parent, name), Err(Errno::NOENT)),
            _ => false,
        }
    }

    fn remove_name(&self, from: &Removable, name: &OsStr, flags: AtFlags) -> Result<()> {
        let removed = self.intents.change(
            || Ok(Before::default()),
            // The name is there: it was found.
            |_| Ok(None),
            || rustix::fs::unlinkat(&from.dir, name, flags).map(|()| 0),
        );
        removed.map(drop)
    }

    /// Returns the file with these attributes that is about to lose its name, if the kernel knows it and its descriptor must be kept.
    ///
    /// A descriptor would keep the space of a regular file occupied after `unlink` has returned: until the kernel reports
    /// the file as forgotten, for a hard link until its other names are forgotten too. On NFS it would leave a `.nfs`
    /// file. So none is kept: if the file is open, the open file stands for it, and if a process has just looked it up to
    /// open it, the open fails with `ESTALE` and the kernel looks the name up again.
    pub(super) fn descriptor_to_keep(
        &self,
        name: &OsStr,
        dir: &Dir,
        stat: &Statx,
    ) -> Option<(u64, Arc<OwnedFd>)> {
        let identity = FileId::of(stat);
        let id = self.nodes.number(self.devices.node(&identity), &identity);
        if stat.stx_nlink <= 1 && !at::is_dir(stat) {
            // The next process that serves the mount could not open it again.
            self.handles.keep_all(id);
        }
        // Another file could get the number and the node of this one, and be opened in its place.
        let may_be_mistaken =
            || stat.stx_nlink == 1 && !is_distinct(stat) && self.handles.file_of(id).is_none();
        if !may_be_used_unknown(stat) && !may_be_mistaken() {
            return None;
        }
        if let Some(fd) = self.dir_cache.get(id, &identity) {
            return (self.nodes.identity(id)? == identity).then_some((id, fd));
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).ok()?;
        let is_it =
            FileId::of(&at::stat_fd(&fd).ok()?) == identity && self.nodes.identity(id)? == identity;
        is_it.then(|| (id, Arc::new(fd)))
    }

    /// Keeps the descriptor of what has lost its name until the kernel forgets it.
    pub(super) fn keep_descriptor(&self, removed: Option<(u64, Arc<OwnedFd>)>) {
        if let Some((id, fd)) = removed {
            self.dir_cache.keep_removed(id, fd);
            // If the kernel has forgotten the node meanwhile, no later request would remove the descriptor.
            if self.nodes.get(id).is_none() {
                self.dir_cache.forget(id);
            }
        }
    }

    /// Notes that a name of a file is gone; it may have others. `stat`: the attributes of the file before that.
    pub(super) fn lost_name(&self, parent: u64, name: &OsStr, stat: &Statx) {
        if stat.stx_nlink > 1 && !at::is_dir(stat) {
            let file = FileId::of(stat);
            let id = self.nodes.number(self.devices.node(&file), &file);
            self.nodes.lost_name(id, &file, (parent, name));
        }
    }

    /// Makes the view look up the directories of tasks again if one of them may have changed.
    pub(super) fn forget_tasks(&self, parent: u64) -> Result<()> {
        if matches!(self.node(parent)?.role, NodeRole::Root | NodeRole::Jobs) {
            self.root(crate::view::PRIMARY)?.forget_tasks();
        }
        Ok(())
    }

    /// Returns where a name lies that may be removed.
    pub(super) fn removable(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
    ) -> Result<Removable> {
        let found = self.find(parent, name)?;
        self.removal(caller, parent, name, &found, None)
    }

    /// Returns where a file lies that was found under a name, if the name may be removed. `in_primary`: if the job of `parent` was found to be
    /// in the primary already.
    pub(super) fn removal(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        found: &Found,
        in_primary: Option<StillInPrimary>,
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
                let internal = found.location == INTERNAL && !self.folder_has(parent, &node, name);
                if internal {
                    self.check_write_access(caller)?;
                }
                match judge(found.location, internal, Change::Remove) {
                    Verdict::Go | Verdict::Internal => {
                        let StillInPrimary { job } = match in_primary {
                            Some(found) => found,
                            None => self.still_in_primary(&node)?,
                        };
                        Ok(Removable {
                            dir: self.holding(parent, found.location)?,
                            location: found.location,
                            stat: found.stat,
                            job,
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

/// Whether the kernel may use an open file of this type without having asked the daemon to open it.
fn may_be_used_unknown(stat: &Statx) -> bool {
    match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile | FileType::Symlink | FileType::Socket => false,
        FileType::Directory
        | FileType::Fifo
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => true,
    }
}

/// Whether a file with the same inode number that is created from now on will differ from this one in its time of birth.
fn is_distinct(stat: &Statx) -> bool {
    // Where the disk keeps whole seconds or none, this is 0.
    if stat.stx_btime.tv_nsec == 0 {
        return false;
    }
    let born = Duration::new(
        stat.stx_btime.tv_sec.try_into().unwrap_or(0),
        stat.stx_btime.tv_nsec,
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.is_ok_and(|now| now > born + BIRTH_PRECISION)
}
