//! Returns attributes, targets of symlinks, and whether a caller has access.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use fuser::FileAttr;
use rustix::fs::{Access, AtFlags, OFlags, Statx};
use rustix::io::{Errno, Result};

use crate::mount::tables::nodes::{INTERNAL, Node, NodeRole, Version};
use crate::mount::{Mount, attributes};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::view::PRIMARY;

impl Mount {
    /// Returns the attributes of a node, and how long the kernel may cache them.
    pub(in crate::mount) fn getattr(
        &self,
        id: u64,
        handle: Option<u64>,
    ) -> Result<(FileAttr, Duration)> {
        if let Some(recovered) = self.superseded.successor(id) {
            return self.attributes_of_superseded(id, recovered, handle);
        }
        if let Some(handle) = handle
            && let Ok(file) = self.handles.file(handle)
        {
            let node = self.node(id)?;
            let stat = at::stat_fd(&file.fd)?;
            let ttl = self.attributes_ttl(id, &node, &stat);
            self.nodes.sent(id, Version::of(&stat));
            let inode = self.devices.inode(&FileId::of(&stat));
            return Ok((attributes::attributes(&stat, inode), ttl));
        }
        let (node, stat) = self.stat(id)?;
        let ttl = self.attributes_ttl(id, &node, &stat);
        self.nodes.sent(id, Version::of(&stat));
        Ok((self.attributes(&node, &stat), ttl))
    }

    /// Returns the attributes of a file of a job that has been recovered: those of the recovered file, which calls on open
    /// descriptors change, but the size of what was opened.
    fn attributes_of_superseded(
        &self,
        id: u64,
        recovered: u64,
        handle: Option<u64>,
    ) -> Result<(FileAttr, Duration)> {
        let opened = match handle.and_then(|handle| self.handles.file(handle).ok()) {
            Some(file) => Some(file),
            None => self.handles.file_of(id),
        };
        let opened = opened.map(|file| at::stat_fd(&file.fd)).transpose()?;
        let mut shown = match (self.stat(recovered), opened) {
            (Ok((_, stat)), _) => stat,
            // The recovered file has been removed, or its job moved to a folder again.
            (Err(_), Some(opened)) => opened,
            (Err(error), None) => return Err(error),
        };
        if let Some(opened) = opened {
            shown.stx_size = opened.stx_size;
            shown.stx_blocks = opened.stx_blocks;
        }
        let identity = self.nodes.identity(id).ok_or(Errno::STALE)?;
        let inode = self.devices.inode(&identity);
        Ok((attributes::attributes(&shown, inode), Duration::ZERO))
    }

    fn attributes_ttl(&self, id: u64, node: &Node, stat: &Statx) -> Duration {
        match self.is_lock_file(id, node.parent, &node.name) {
            true => Duration::ZERO,
            false => self
                .ttls
                .of(node.location, node.role, stat)
                .min(self.passthrough.ttl_max(id)),
        }
    }

    /// Whether processes synchronize by this file, also through another mount or beneath: the kernel must then cache
    /// neither its link count nor its name.
    pub(super) fn is_lock_file(&self, id: u64, parent: u64, name: &OsStr) -> bool {
        self.lock_names.contains(parent, name) || self.handles.is_locked(id)
    }

    /// The attributes that are shown for a node.
    pub(in crate::mount) fn attributes(&self, node: &Node, stat: &Statx) -> FileAttr {
        let inode = self.devices.inode(&FileId::of(stat));
        let mut shown = match node.role {
            NodeRole::Jobs | NodeRole::Task => {
                let mut newest = *stat;
                let task = (node.role == NodeRole::Task).then_some(&*node.name);
                self.view.make_newest(&mut newest, node.location, task);
                attributes::attributes(&newest, inode)
            }
            _ => attributes::attributes(stat, inode),
        };
        if at::is_symlink(stat)
            && let Ok(Some(target)) = self.changed_target(node, stat.stx_size)
        {
            shown.size = target.len() as u64;
        }
        if self.options.allow_other && node.role == NodeRole::Job && node.location != PRIMARY {
            // The kernel decides by the attributes which users may create files in a directory. In a job that a folder
            // serves, files are created in the primary, which decides then.
            shown.perm |= (shown.perm & 0o111) << 1;
        }
        if self.options.allow_other && self.is_internal_of_folder(node, stat) {
            shown.perm |= (shown.perm & 0o444) >> 1;
        }
        shown
    }

    /// Whether a node is an internal file of a folder, which would move to the primary on the first write.
    fn is_internal_of_folder(&self, node: &Node, stat: &Statx) -> bool {
        if node.role != NodeRole::Inside
            || node.directory
            || matches!(node.location, PRIMARY | INTERNAL)
        {
            return false;
        }
        let holder = self
            .node(node.parent)
            .and_then(|parent| self.holder(&parent));
        matches!(holder, Ok(Some(holder)) if holder.is_internal(&node.name, false, Some(stat.stx_size)))
    }

    /// Whether an internal file in the primary hides a node of a folder: another mount has made it since the kernel
    /// looked the name up.
    pub(super) fn is_hidden(&self, id: u64, stat: &Statx) -> Result<bool> {
        let node = self.node(id)?;
        if !self.is_internal_of_folder(&node, stat) {
            return Ok(false);
        }
        let Some(holder) = self.holder(&self.node(node.parent)?)? else {
            return Ok(false);
        };
        match self.view.internal_dir(&holder)? {
            Some(dir) => Ok(at::absent(at::stat(dir, &node.name))?.is_some()),
            None => Ok(false),
        }
    }

    pub(in crate::mount) fn readlink(&self, id: u64) -> Result<OsString> {
        let id = self.recovered(id);
        // Not by its name alone, which may be that of another file by now.
        let link = self.open_verified(id, OFlags::PATH)?;
        let written = at::read_link(&link, OsStr::new(""))?;
        let node = self.node(id)?;
        match self.may_change_target(&node, written.len() as u64)? {
            true => Ok(self.target_shown(&node, &written)?.unwrap_or(written)),
            false => Ok(written),
        }
    }

    /// Returns the target of a symlink, if the target that is shown differs from the one on the disk, which has `length` bytes. Reading it
    /// changes the symlink's access time, so it is read only if need be.
    fn changed_target(&self, node: &Node, length: u64) -> Result<Option<OsString>> {
        if !self.may_change_target(node, length)? {
            return Ok(None);
        }
        let file = self.named_file(node)?;
        self.target_shown(node, &at::read_link(&file.dir, &file.name)?)
    }

    /// Whether the target shown for a symlink could differ from the one on the disk, which has `length` bytes.
    fn may_change_target(&self, node: &Node, length: u64) -> Result<bool> {
        let primary = self.view.primary_path().as_os_str().len() as u64;
        let below_primary = self.view.elsewhere().is_some() && length >= primary;
        Ok(below_primary || self.is_in_place_of_job(node)?)
    }

    /// Whether a symlink of a folder is in the place of a job.
    fn is_in_place_of_job(&self, node: &Node) -> Result<bool> {
        let of_folder = node.location != PRIMARY && node.location != INTERNAL;
        Ok(of_folder
            && node.role == NodeRole::Outside
            && self.node(node.parent)?.role == NodeRole::Task)
    }

    fn target_shown(&self, node: &Node, written: &OsStr) -> Result<Option<OsString>> {
        if self.is_in_place_of_job(node)? && Path::new(written).is_relative() {
            // The target is relative to the folder, not to the place where the mount shows the symlink.
            let task = self.node(node.parent)?.name;
            let root = self.root(node.location)?;
            let jobs = root.jobs_paths().first().ok_or(Errno::STALE)?;
            return Ok(Some(jobs.join(&*task).join(written).into_os_string()));
        }
        Ok(self.view.shown_target(written))
    }

    /// Returns the size and the free space of the primary's disk.
    pub(in crate::mount) fn statfs(&self) -> Result<rustix::fs::StatVfs> {
        rustix::fs::fstatvfs(self.view.primary().root()?.fd())
    }

    /// Checks whether the daemon's own user has access to a node. Not called where the kernel checks rights.
    pub(in crate::mount) fn access(&self, id: u64, wanted: Access) -> Result<()> {
        let id = self.recovered(id);
        // Not by a name alone, which may be that of another file by now.
        let object = match self.open_verified(id, OFlags::PATH) {
            Err(Errno::STALE) => self.with_open_fd(id, |fd| rustix::io::fcntl_dupfd_cloexec(fd, 0)),
            result => result,
        }?;
        let node = self.node(id)?;
        let check = |object: &OwnedFd, access| {
            let path = at::proc_path(object);
            rustix::fs::accessat(rustix::fs::CWD, path, access, AtFlags::EACCESS)
        };
        let archived = node.location != PRIMARY && node.location != INTERNAL;
        if !archived || !wanted.contains(Access::WRITE_OK) {
            if !node.directory && at::is_symlink(&at::stat_fd(&object)?) {
                return Ok(());
            }
            return check(&object, wanted);
        }
        check(&object, wanted - Access::WRITE_OK)?;
        match node.role {
            // New entries in these directories are created in the primary.
            NodeRole::Root | NodeRole::Jobs | NodeRole::Task | NodeRole::Job => {
                let primary = self.primary_dir()?;
                rustix::fs::accessat(primary, ".", Access::WRITE_OK, AtFlags::EACCESS)
            }
            NodeRole::Inside if self.needs_recovery(&node) => {
                self.check_writing_copy(&object, node.directory)
            }
            NodeRole::Inside | NodeRole::Outside => Err(Errno::ROFS),
        }
    }
}
