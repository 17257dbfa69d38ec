//! Implements fuser's trait: translates the kernel's requests to operations of the mount, and does nothing else.
//!
//! The replies are in `replies`, and how a request waits is in `deferred`. Rust wants all methods of a trait in one block, however long.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::Access;
use rustix::io::{Errno, Result};
use rustix::process::geteuid;

use crate::mount::attributes::errno;
use crate::mount::caller::Caller;
use crate::mount::deferred::Reply;
use crate::mount::handover::intents::RequestGuard;
use crate::mount::ops::lookup::NodeEntry;
use crate::mount::ops::setattr::Changes;
use crate::mount::ops::xattr::Value;
use crate::mount::replies::{
    AttributesReply, CreateReply, HowOpened, OpenDirectoryReply, OpenReply, XattrChange,
    XattrReply, empty, written,
};
use crate::mount::{Mount, capabilities};

/// A mount in the form that fuser expects.
#[derive(Debug)]
pub(super) struct Fuse {
    mount: Arc<Mount>,
    /// Whether files that are read and written past the cache can be mapped.
    maps_uncached: bool,
    /// Whether this process has root's rights, which keep set-id bits of files that are written.
    serves_as_root: bool,
}

thread_local! {
    /// The data that was read, on its way to the kernel.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Fuse {
    pub(super) fn new(mount: Mount) -> Fuse {
        Fuse {
            mount: Arc::new(mount),
            maps_uncached: false,
            serves_as_root: geteuid().is_root(),
        }
    }

    /// The mount.
    pub(super) fn mount(&self) -> Arc<Mount> {
        self.mount.clone()
    }

    /// Answers a request for a node.
    fn on_node<R: Reply>(
        &self,
        node: INodeNo,
        reply: R,
        work: impl Fn(&Mount) -> Result<R::Value> + Send + Sync + 'static,
    ) {
        let may_wait = self.mount.may_wait(node.0);
        self.mount.answer(may_wait, reply, work);
    }

    /// Answers a request that makes or removes a name in a directory.
    fn on_name<R: Reply>(
        &self,
        request: &Request,
        (parent, name): (INodeNo, &OsStr),
        umask: u32,
        reply: R,
        work: impl Fn(&Mount, &Caller, &OsStr) -> Result<R::Value> + Send + Sync + 'static,
    ) {
        self.mount.names_change(parent.0);
        let (caller, name) = (caller(request, umask), name.to_owned());
        let may_wait = self.mount.may_wait_at(parent.0, &name);
        let work = move |mount: &Mount| work(mount, &caller, &name);
        self.mount.answer(may_wait, reply, changing(request, work));
    }

    fn how_opened(&self, request: &Request, flags: i32) -> HowOpened {
        HowOpened {
            flags,
            request: request.unique().0,
            maps_uncached: self.maps_uncached,
        }
    }
}

fn caller(request: &Request, umask: u32) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        tid: request.pid(),
        umask,
    }
}

/// Marks the work for a request that changes something, so that the change is not made again if this process is killed
/// before it replies ([`intents`](crate::mount::handover::intents)).
fn changing<R>(
    request: &Request,
    work: impl Fn(&Mount) -> Result<R> + Send + Sync + 'static,
) -> impl Fn(&Mount) -> Result<R> + Send + Sync + 'static {
    let number = request.unique().0;
    move |mount| {
        let _current = RequestGuard::new(number);
        mount.not_failed()?;
        work(mount)
    }
}

/// Whether an extended attribute is an access control list.
fn is_acl(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"system.posix_acl_")
}

impl Filesystem for Fuse {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let agreed = capabilities::request(config, &self.mount.options);
        self.maps_uncached = agreed.maps_uncached;
        if agreed.passthrough {
            self.mount.passthrough.enable();
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (may_wait, name) = (self.mount.may_wait_at(parent.0, name), name.to_owned());
        let tid = request.pid();
        self.mount.answer(may_wait, reply, move |mount: &Mount| {
            match mount.lookup_for(tid, parent.0, &name) {
                // States for how long the kernel may cache that the name does not exist.
                Err(Errno::NOENT) => match mount.absent_for(parent.0, &name) {
                    Duration::ZERO => Err(Errno::NOENT),
                    ttl => Ok(NodeEntry::absent(ttl)),
                },
                found => found,
            }
        });
    }

    fn forget(&self, _request: &Request, node: INodeNo, count: u64) {
        self.mount.forget(node.0, count);
    }

    fn getattr(
        &self,
        request: &Request,
        node: INodeNo,
        handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let opened_by = Some(request.pid());
        self.on_node(node, AttributesReply { reply, opened_by }, move |mount| {
            mount.getattr(node.0, handle.map(|handle| handle.0))
        });
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changes = Changes {
            mode,
            uid,
            gid,
            size,
            atime,
            mtime,
        };
        let handle = handle.map(|handle| handle.0);
        let (caller, opened_by) = (caller(request, 0), None);
        let work = move |mount: &Mount| mount.setattr(&caller, node.0, handle, &changes);
        let reply = AttributesReply { reply, opened_by };
        self.on_node(node, reply, changing(request, work));
    }

    fn readlink(&self, _request: &Request, node: INodeNo, reply: ReplyData) {
        self.on_node(node, reply, move |mount| mount.readlink(node.0));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let work = move |mount: &Mount, caller: &Caller, name: &OsStr| {
            mount.mknod(caller, parent.0, name, mode, device)
        };
        self.on_name(request, (parent, name), umask, reply, work);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let work = move |mount: &Mount, caller: &Caller, name: &OsStr| {
            mount.mkdir(caller, parent.0, name, mode)
        };
        self.on_name(request, (parent, name), umask, reply, work);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let work = move |mount: &Mount, caller: &Caller, name: &OsStr| {
            mount.unlink(caller, parent.0, name)
        };
        self.on_name(request, (parent, name), 0, reply, work);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let work =
            move |mount: &Mount, caller: &Caller, name: &OsStr| mount.rmdir(caller, parent.0, name);
        self.on_name(request, (parent, name), 0, reply, work);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = target.as_os_str().to_owned();
        let work = move |mount: &Mount, caller: &Caller, name: &OsStr| {
            mount.symlink(caller, parent.0, name, &target)
        };
        self.on_name(request, (parent, name), 0, reply, work);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.mount.names_change(parent.0);
        self.mount.names_change(new_parent.0);
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let (caller, old, new) = (caller(request, 0), name.to_owned(), new_name.to_owned());
        let may_wait =
            self.mount.may_wait_at(parent.0, &old) || self.mount.may_wait_at(new_parent.0, &new);
        let work =
            move |mount: &Mount| mount.rename(&caller, parent.0, &old, new_parent.0, &new, flags);
        self.mount.answer(may_wait, reply, changing(request, work));
    }

    fn link(
        &self,
        request: &Request,
        node: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        self.mount.names_change(parent.0);
        let (caller, name) = (caller(request, 0), name.to_owned());
        let may_wait = self.mount.may_wait(node.0) || self.mount.may_wait_at(parent.0, &name);
        let work = move |mount: &Mount| mount.link(&caller, node.0, parent.0, &name);
        self.mount.answer(may_wait, reply, changing(request, work));
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (mount, caller) = (self.mount.clone(), caller(request, 0));
        let how = self.how_opened(request, flags.0);
        self.mount.open_limit.when_free(move |free| match free {
            true => {
                let may_wait = mount.may_wait(node.0);
                let node = node.0;
                let reply = OpenReply { reply, node, how };
                mount.answer(may_wait, reply, move |mount| {
                    mount.close_unanswered(how.request);
                    mount.open(&caller, node, how.flags)
                });
            }
            false => reply.error(fuser::Errno::ENFILE),
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.mount.names_change(parent.0);
        let (mount, caller, name) = (self.mount.clone(), caller(request, umask), name.to_owned());
        let how = self.how_opened(request, flags);
        self.mount.open_limit.when_free(move |free| match free {
            true => {
                let may_wait = mount.may_wait_at(parent.0, &name);
                mount.answer(may_wait, CreateReply { reply, how }, move |mount| {
                    let _current = RequestGuard::new(how.request);
                    mount.not_failed()?;
                    let before = mount.close_unanswered(how.request);
                    mount.create(&caller, parent.0, &name, mode, flags, before)
                });
            }
            false => reply.error(fuser::Errno::ENFILE),
        });
    }

    fn read(
        &self,
        _request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (of_folder, size) = (self.mount.is_of_folder(node.0), size as usize);
        self.mount.defer(of_folder, move |mount| {
            BUFFER.with_borrow_mut(|buffer| {
                if buffer.len() < size {
                    buffer.resize(size, 0);
                }
                let buffer = buffer.get_mut(..size).unwrap_or_default();
                match mount.read(handle.0, offset, buffer) {
                    Ok(count) => reply.data(buffer.get(..count).unwrap_or_default()),
                    Err(error) => reply.error(errno(error)),
                }
            });
        });
    }

    fn write(
        &self,
        request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // Without root's rights, the disk clears these bits by itself.
        let clear_set_id =
            write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) && self.serves_as_root;
        let (caller, tid) = (clear_set_id.then(|| caller(request, 0)), request.pid());
        // Data that is written back from the cache has its own offset, through any descriptor.
        let cached = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let append = flags.0 & libc::O_APPEND != 0 && !cached;
        if self.mount.may_fill_lock(handle.0) {
            // The write may wait for a recovery.
            let data = data.to_owned();
            let work = move |mount: &Mount| {
                mount.write(handle.0, offset, &data, append, tid, caller.as_ref())
            };
            return (self.mount).answer(false, reply, changing(request, work));
        }
        let _current = RequestGuard::new(request.unique().0);
        let count = self
            .mount
            .write(handle.0, offset, data, append, tid, caller.as_ref());
        written(count, reply);
    }

    fn flush(
        &self,
        _request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        empty(self.mount.flush(handle.0), reply);
    }

    fn release(
        &self,
        _request: &Request,
        node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let of_folder = self.mount.is_of_folder(node.0);
        self.mount.defer(of_folder, move |mount| {
            mount.release(handle.0);
            reply.ok();
        });
    }

    fn fsync(
        &self,
        _request: &Request,
        node: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        let of_folder = self.mount.is_of_folder(node.0);
        self.mount.answer(of_folder, reply, move |mount| {
            mount.fsync(handle.0, data_only)
        });
    }

    fn opendir(&self, _request: &Request, node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.mount.options.default_permissions {
            // The kernel then sends no further requests to open or close directories.
            return reply.error(fuser::Errno::ENOSYS);
        }
        self.on_node(node, OpenDirectoryReply(reply), move |mount| {
            mount.opendir(node.0)
        });
    }

    fn readdir(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let may_wait = self.mount.may_wait(node.0);
        self.mount.list_deferred(may_wait, node.0, offset, reply);
    }

    fn readdirplus(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let may_wait = self.mount.may_wait(node.0);
        self.mount.list_deferred(may_wait, node.0, offset, reply);
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        let may_wait = self.mount.may_wait(node.0);
        self.mount.answer(may_wait, reply, move |mount| {
            mount.fsyncdir(node.0, data_only)
        });
    }

    fn statfs(&self, _request: &Request, _node: INodeNo, reply: ReplyStatfs) {
        match self.mount.statfs() {
            Ok(stat) => reply.statfs(
                stat.f_blocks,
                stat.f_bfree,
                stat.f_bavail,
                stat.f_files,
                stat.f_ffree,
                u32::try_from(stat.f_bsize).unwrap_or(4096),
                u32::try_from(stat.f_namemax).unwrap_or(255),
                u32::try_from(stat.f_frsize).unwrap_or(4096),
            ),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (caller, name, value) = (caller(request, 0), name.to_owned(), value.to_owned());
        let reply = XattrChange {
            reply,
            node: node.0,
            of_mode: is_acl(&name),
        };
        let work = move |mount: &Mount| mount.setxattr(&caller, node.0, &name, &value, flags);
        self.on_node(node, reply, changing(request, work));
    }

    fn getxattr(
        &self,
        _request: &Request,
        node: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let name = name.to_owned();
        self.on_node(node, XattrReply { reply, size }, move |mount| {
            mount.getxattr(node.0, &name, size as usize)
        });
    }

    fn listxattr(&self, request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let caller = caller(request, 0);
        self.on_node(node, XattrReply { reply, size }, move |mount| {
            mount.listxattr(&caller, node.0).map(Value::Bytes)
        });
    }

    fn removexattr(&self, request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (caller, name) = (caller(request, 0), name.to_owned());
        let reply = XattrChange {
            reply,
            node: node.0,
            of_mode: is_acl(&name),
        };
        let work = move |mount: &Mount| mount.removexattr(&caller, node.0, &name);
        self.on_node(node, reply, changing(request, work));
    }

    fn access(&self, _request: &Request, node: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let wanted = Access::from_bits_retain(mask.bits().cast_unsigned());
        self.on_node(node, reply, move |mount| mount.access(node.0, wanted));
    }

    fn setlk(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        _owner: LockOwner,
        _start: u64,
        _end: u64,
        kind: i32,
        _pid: u32,
        wait: bool,
        reply: ReplyEmpty,
    ) {
        let (of_folder, tid) = (self.mount.is_of_folder(node.0), request.pid());
        self.mount.defer(of_folder, move |mount| {
            mount.flock(handle.0, kind, wait, tid, reply);
        });
    }

    fn ioctl(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _input: &[u8],
        _output_size: u32,
        reply: ReplyIoctl,
    ) {
        // Python asks of each file that it opens whether the file is a terminal.
        reply.error(fuser::Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let caller = caller(request, 0);
        let work = move |mount: &Mount| mount.fallocate(&caller, handle.0, mode, offset, length);
        self.mount.answer(false, reply, changing(request, work));
    }

    fn lseek(
        &self,
        _request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let of_folder = self.mount.is_of_folder(node.0);
        self.mount.defer(of_folder, move |mount| {
            match mount.lseek(handle.0, offset, whence) {
                Ok(position) => reply.offset(position),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        source: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _to: INodeNo,
        to: FileHandle,
        to_offset: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (of_folder, caller) = (self.mount.is_of_folder(source.0), caller(request, 0));
        let (from, to) = ((from.0, from_offset), (to.0, to_offset));
        self.mount.defer(of_folder, move |mount| {
            mount.answer(false, reply, move |mount| {
                mount.copy_file_range(&caller, from, to, length)
            });
        });
    }
}
