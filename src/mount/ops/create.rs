//! Creates files, directories, symlinks, links and special files.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

use crate::mount::caller::Caller;
use crate::mount::copy_up::{Alteration, Target};
use crate::mount::find::Found;
use crate::mount::handover::intent_slots::Begun;
use crate::mount::handover::intents::{Before, IntentOutcome};
use crate::mount::ops::file::{Opened, open_flags};
use crate::mount::ops::lookup::NodeEntry;
use crate::mount::tables::handles;
use crate::mount::tables::nodes::{INTERNAL, NodeRole};
use crate::mount::{Mount, caller, deferred};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;

/// Opens only the file itself, without blocking, whatever kind of file has the name.
const CREATE_FLAGS: OFlags = OFlags::NOFOLLOW
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// Whether an earlier process has made the file that has a name now.
fn made_by(begun: &Begun, target: &Target, name: &OsStr) -> Result<Option<u64>> {
    let there = at::absent(at::stat(&target.dir, name))?;
    Ok(there.filter(|stat| begun.may_have_made(stat)).map(|_| 0))
}

impl Mount {
    pub(in crate::mount) fn mknod(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        mode: u32,
        device: u32,
    ) -> Result<NodeEntry> {
        self.make(caller, parent, name, false, |target| {
            caller::set_umask(caller.umask)?;
            let kind = FileType::from_raw_mode(mode);
            let mode = Mode::from_raw_mode(mode & 0o7777);
            rustix::fs::mknodat(&target.dir, name, kind, mode, device.into())
        })
    }

    pub(in crate::mount) fn mkdir(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        mode: u32,
    ) -> Result<NodeEntry> {
        self.make(caller, parent, name, true, |target| {
            caller::set_umask(caller.umask)?;
            rustix::fs::mkdirat(&target.dir, name, Mode::from_raw_mode(mode & 0o7777))
        })
    }

    pub(in crate::mount) fn symlink(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        target: &OsStr,
    ) -> Result<NodeEntry> {
        let stored = self.view.stored_target(target);
        let written = stored.as_deref().unwrap_or(target);
        self.make(caller, parent, name, false, |target| {
            rustix::fs::symlinkat(written, &target.dir, name)
        })
    }

    /// Returns the attributes of what an earlier process has made for this request: a directory may be missing by now that
    /// the request names, and what may be checked before a change may not be true after it.
    fn made_before(&self, parent: u64, name: &OsStr) -> Option<Result<NodeEntry>> {
        (self.intents.outcome()? == IntentOutcome::Made).then(|| {
            let found = self.find(parent, name)?;
            self.enter(parent, name, found)
        })
    }

    /// Creates an entry by `make`, with the caller's ownership, and returns its attributes.
    fn make(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        directory: bool,
        make: impl FnOnce(&Target) -> Result<()>,
    ) -> Result<NodeEntry> {
        if let Some(made) = self.made_before(parent, name) {
            return made;
        }
        self.permit(caller, parent, name, directory)?;
        self.must_be_free(parent, name)?;
        let target = {
            let _identity = self.assume(caller)?;
            let target = self.target(caller, parent, name, directory)?;
            deferred::commit()?;
            self.intents.change(
                || Ok(Before::default()),
                |begun| made_by(begun, &target, name),
                || make(&target).map(|()| 0),
            )?;
            target
        };
        self.made(parent, name, &target)
    }

    /// Makes sure that no folder has a name that is to be created: the view shows the entries of folders, too.
    fn must_be_free(&self, parent: u64, name: &OsStr) -> Result<()> {
        let node = self.node(parent)?;
        let taken = match node.role {
            NodeRole::Jobs => self.view.task_in_folders(name),
            NodeRole::Task => {
                self.view.expect_unrecorded(&node.name, name)?;
                self.view.served_by_folder(&node.name, name)?
            }
            _ => false,
        };
        match taken {
            true => Err(Errno::EXIST),
            false => Ok(()),
        }
    }

    fn made(&self, parent: u64, name: &OsStr, target: &Target) -> Result<NodeEntry> {
        self.activity.entry_altered(parent, name, target.location);
        let stat = at::stat(&target.dir, name)?;
        let found = Found {
            location: target.location,
            role: target.role(name, at::is_dir(&stat)),
            stat,
        };
        self.enter(parent, name, found)
    }

    /// Creates a file and opens it. `before`: the file that an earlier process has opened for the request.
    pub(in crate::mount) fn create(
        &self,
        caller: &Caller,
        parent: u64,
        name: &OsStr,
        mode: u32,
        flags: i32,
        before: Option<OwnedFd>,
    ) -> Result<(NodeEntry, Opened)> {
        caller::set_umask(caller.umask)?;
        let flags = open_flags(flags) | OFlags::CREATE;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        self.permit(caller, parent, name, false)?;
        self.must_be_free(parent, name)?;
        let (fd, target) = {
            let _identity = self.assume(caller)?;
            let target = self.target(caller, parent, name, false)?;
            deferred::commit()?;
            let mut created = None;
            let result = self.intents.change(
                || Ok(Before::default()),
                |begun| made_by(begun, &target, name),
                || {
                    created = Some(self.create_in(&target, name, flags, mode)?);
                    Ok(0)
                },
            );
            (result.map(|_| created), target)
        };
        let fd = match fd {
            Ok(Some(fd)) => Ok(fd),
            // An earlier process has created it for this request.
            Ok(None) => match before {
                Some(fd) => Ok(fd),
                None => self.open_created(&target, name, flags, mode),
            },
            Err(error) => Err(error),
        };
        let fd = match fd {
            // Another process has created the file since the kernel looked it up.
            Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => {
                self.open_existing(caller, &target, name, flags, mode)?
            }
            // A symlink, which the kernel has to follow.
            Err(Errno::LOOP) => return Err(Errno::STALE),
            result => result?,
        };
        self.retries.opened(caller.tid);
        self.activity.entry_altered(parent, name, target.location);
        let found = Found {
            location: target.location,
            role: target.role(name, false),
            stat: at::stat_fd(&fd)?,
        };
        if FileType::from_raw_mode(found.stat.stx_mode.into()) != FileType::RegularFile {
            // A pipe or a device, which the kernel opens itself.
            return Err(Errno::STALE);
        }
        let stat = found.stat;
        let entry = self.enter(parent, name, found)?;
        let file = handles::File {
            fd,
            identity: FileId::of(&stat),
            node: entry.id,
            readable: !flags.contains(OFlags::WRONLY),
            writable: flags.intersects(OFlags::WRONLY | OFlags::RDWR),
            only_lock: self.is_only_lock(entry.id)?,
            lock: handles::Lock::default(),
            kept: handles::Kept::default(),
        };
        let opened = self.opened(file, &stat);
        Ok((entry, opened))
    }

    /// Creates a file. Where users other than the daemon's may send requests, an existing file is not opened with the
    /// daemon's rights: the kernel has checked the caller's rights only to the directory.
    fn create_in(
        &self,
        target: &Target,
        name: &OsStr,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd> {
        let mut how = flags | CREATE_FLAGS;
        if self.options.allow_other {
            how |= OFlags::EXCL;
        }
        rustix::fs::openat(&target.dir, name, how, mode)
    }

    /// Opens a file that an earlier process has created for the same request and has not passed on. Its mode may not let its owner
    /// open it, as the creation does: then it is created again.
    fn open_created(
        &self,
        target: &Target,
        name: &OsStr,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd> {
        let again = flags.difference(OFlags::CREATE | OFlags::EXCL) | CREATE_FLAGS;
        let opened = rustix::fs::openat(&target.dir, name, again, mode);
        if let Err(Errno::ACCESS) = opened
            && at::stat(&target.dir, name)?.stx_size == 0
        {
            rustix::fs::unlinkat(&target.dir, name, AtFlags::empty())?;
            return self.create_in(target, name, flags, mode);
        }
        opened
    }

    /// Opens a file that another process has created since the kernel looked it up, with no more than the caller's
    /// rights. Where that fails, the kernel looks the name up again (`ESTALE`) and opens the file that it finds; but
    /// the kernel does so only once, and lock files are created and removed faster.
    fn open_existing(
        &self,
        caller: &Caller,
        target: &Target,
        name: &OsStr,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd> {
        let _rights = self.rights_of(caller).map_err(|_| Errno::STALE)?;
        // The file is created after all if it has been removed again.
        let opened = rustix::fs::openat(&target.dir, name, flags | CREATE_FLAGS, mode);
        opened.map_err(|_| Errno::STALE)
    }

    pub(in crate::mount) fn link(
        &self,
        caller: &Caller,
        id: u64,
        parent: u64,
        name: &OsStr,
    ) -> Result<NodeEntry> {
        if let Some(made) = self.made_before(parent, name) {
            return made;
        }
        if let Some(begun) = self.intents.begun()
            && let Ok(found) = self.find(parent, name)
            && begun.is_of(&found.stat)
        {
            return self.enter(parent, name, found);
        }
        // A second name of an archived file would allow changing the file under that name.
        let (id, node) = self.alterable(caller, id, Alteration::Attributes)?;
        self.permit(caller, parent, name, false)?;
        self.must_be_free(parent, name)?;
        let target = self.target(caller, parent, name, false)?;
        if (node.location == INTERNAL) != (target.location == INTERNAL) {
            return Err(Errno::XDEV);
        }
        // Under another name, data could be written to a lock that must stay empty.
        if node.location == INTERNAL && self.is_only_lock(id)? != self.is_lock_name(parent, name)? {
            return Err(Errno::ROFS);
        }
        let (file, stat) = self.open_with_stat(id, OFlags::PATH)?;
        deferred::commit()?;
        self.intents.change(
            || {
                let identity = Some(FileId::of(&stat));
                Ok(Before { identity, size: 0 })
            },
            |begun| {
                let there = at::absent(at::stat(&target.dir, name))?;
                Ok(there.filter(|stat| begun.is_of(stat)).map(|_| 0))
            },
            || {
                let path = at::proc_path(&file);
                let flags = AtFlags::SYMLINK_FOLLOW;
                rustix::fs::linkat(rustix::fs::CWD, path, &target.dir, name, flags)?;
                Ok(0)
            },
        )?;
        self.activity.altered(id);
        // Nothing else can be opened and locked, and the attributes of a symlink are better cached: to show them, its target is read, which
        // changes its time of access.
        if FileType::from_raw_mode(stat.stx_mode.into()).is_file() {
            for (parent, name) in self.nodes.names(id) {
                self.lock_names.add(parent, &name);
            }
            self.lock_names.add(parent, &Name::from(name));
        }
        self.made(parent, name, &target)
    }
}
