//! Implements fuser's trait: translates from and to it, and does nothing else.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BackingId, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{Access, FileType};
use rustix::io::{Errno, Result};

use super::caller::Caller;
use super::file::Opened;
use super::load::Working;
use super::lookup::Entry;
use super::rescue::{Slot, Turn, Watched};
use super::setattr::Changes;
use super::xattr::Value;
use super::{Mount, attributes};

/// A reply that can report an error.
trait Refuse: Send + 'static {
    fn refuse(self, error: Errno);
}

macro_rules! refuse {
    ($($reply:ty),*) => {
        $(impl Refuse for $reply {
            fn refuse(self, error: Errno) {
                self.error(errno(error));
            }
        })*
    };
}

refuse!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyEmpty,
    ReplyEntry,
    ReplyOpen,
    ReplyXattr
);

/// A mount in the form that fuser expects.
#[derive(Debug, Clone)]
pub(super) struct Adaptor {
    mount: Arc<Mount>,
    /// Whether files that are read and written past the cache can be mapped.
    maps_uncached: bool,
}

thread_local! {
    /// The data that was read, on its way to the kernel.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How many background requests, closing files among them, the kernel sends before it holds further ones back. Closes
/// must not wait behind opens, or all descriptors are used up.
const BACKGROUND_MAX: u16 = 8192;

/// The largest read or write request.
const TRANSFER_MAX: u32 = 1024 * 1024;

impl Adaptor {
    pub(super) fn new(mount: Mount) -> Adaptor {
        let mount = Arc::new(mount);
        Adaptor {
            mount,
            maps_uncached: false,
        }
    }

    /// The mount, for work that may wait for a disk.
    fn mount(&self) -> Working<'_> {
        self.mount.work()
    }

    /// Returns the error of a request that may be a step of an `open`, which the kernel then tries again.
    fn retried(&self, tid: u32, error: Errno) -> fuser::Errno {
        if error == Errno::STALE {
            self.mount.retries.add(tid);
        }
        errno(error)
    }

    /// Answers a request that has changed an extended attribute. An access control list changes the mode, which the
    /// kernel notices only if it handles such lists itself.
    fn xattr_changed(&self, node: INodeNo, name: &OsStr, result: Result<()>, reply: ReplyEmpty) {
        let of_mode = name.as_bytes().starts_with(b"system.posix_acl_");
        if of_mode && !self.mount.options.allow_other {
            let notices = &self.mount.notices;
            notices.forget_before(node.0, None, move || empty(result, reply));
        } else {
            empty(result, reply);
        }
    }

    /// Answers a request by `work`. If the request may wait for a folder, another thread may run `work`, and may
    /// attempt it again or give it up.
    fn answer<R: Refuse>(
        &self,
        may_wait: bool,
        reply: R,
        work: impl Fn(&Adaptor, &Turn<R>) + Send + Sync + 'static,
    ) {
        let turn = Turn::new(reply);
        if !may_wait {
            return work(self, &turn);
        }
        let (this, work) = (self.clone(), Arc::new(work));
        self.mount.deferred.run(move || this.attempt(&turn, work));
    }

    fn attempt<R: Refuse, W>(&self, turn: &Turn<R>, work: Arc<W>)
    where
        W: Fn(&Adaptor, &Turn<R>) + Send + Sync + 'static,
    {
        if turn.is_lost() {
            return;
        }
        let (this, next, again) = (self.clone(), turn.next(), work.clone());
        let again = move || this.attempt(&next, again.clone());
        let last = turn.next();
        let give_up = move || {
            if let Some(reply) = last.take() {
                reply.refuse(Errno::TIMEDOUT);
            }
        };
        let _watched = self.mount.rescue.watch(again, give_up);
        let _current = turn.begin();
        work(self, turn);
    }

    fn open_now(&self, caller: &Caller, node: INodeNo, flags: OpenFlags, turn: &Turn<ReplyOpen>) {
        let opened = self.mount().open(caller, node.0, flags.0);
        let (opened, reply) = match (opened, turn.take()) {
            (Ok(opened), Some(reply)) => (opened, reply),
            (Ok(opened), None) => return self.mount().discard(&opened),
            (Err(error), Some(reply)) => return reply.error(errno(error)),
            (Err(_), None) => return,
        };
        let register = || self.register(|| reply.open_backing(&opened.file.fd));
        let way = (self.mount.backings).open(node.0, flags.0, opened.direct, register);
        let (handle, how) = (
            FileHandle(opened.handle),
            self.fopen_flags(flags.0, &opened),
        );
        match way.backing {
            Some(backing) => {
                let how = closing_flags(&opened);
                let answer = move || reply.opened_passthrough(handle, how, &backing);
                if way.becomes_mapped {
                    self.mount.notices.forget_before(node.0, None, answer);
                } else {
                    answer();
                }
            }
            None => reply.opened(handle, how),
        }
    }

    /// How the kernel must treat a file that it does not read and write by itself.
    fn fopen_flags(&self, flags: i32, opened: &Opened) -> FopenFlags {
        let mut how = closing_flags(opened);
        // Through its cache, the kernel splits a write at page boundaries: another process's append could come between.
        let append = flags & libc::O_APPEND != 0
            && (self.maps_uncached || flags & libc::O_ACCMODE == libc::O_WRONLY);
        // The kernel accepts a new size a moment before it drops the page in which the file ended. Another reader would
        // find zeros there.
        let growing = opened.changing && self.maps_uncached;
        if append || growing || flags & libc::O_DIRECT != 0 {
            how |= FopenFlags::FOPEN_DIRECT_IO;
        }
        if opened.unchanged {
            how |= FopenFlags::FOPEN_KEEP_CACHE;
        }
        how
    }

    fn create_now(
        &self,
        caller: &Caller,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        flags: i32,
        turn: &Turn<ReplyCreate>,
    ) {
        let created = self.mount().create(caller, parent.0, name, mode, flags);
        let Some(reply) = turn.take() else {
            if let Ok((entry, opened)) = created {
                self.mount().discard(&opened);
                self.mount().forget(entry.id, 1);
            }
            return;
        };
        match created {
            Ok((entry, opened)) => {
                let register = || self.register(|| reply.open_backing(&opened.file.fd));
                let way = (self.mount.backings).open(entry.id, flags, opened.direct, register);
                let handle = FileHandle(opened.handle);
                let ttl = &entry.ttl.min(self.mount.mapped_ttl(entry.id));
                let (made, generation) = (&entry.attributes, entry.generation);
                match way.backing {
                    Some(backing) => {
                        let how = closing_flags(&opened);
                        reply.created_passthrough(ttl, made, generation, handle, how, &backing);
                    }
                    None => {
                        let how = self.fopen_flags(flags, &opened);
                        reply.created(ttl, made, generation, handle, how);
                    }
                }
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    /// Restarts a listing that waits for a folder which does not answer, and ends it after a long wait.
    fn watch<R: Send + 'static>(
        &self,
        slot: &Slot<R>,
        again: impl Fn(&Adaptor, R) + Send + Sync + 'static,
        give_up: impl Fn(R) + Send + Sync + 'static,
    ) -> Option<Watched<'_>> {
        // Without folders, no request waits for one.
        self.mount.view.folders().first()?;
        let (this, begun, last) = (self.clone(), slot.clone(), slot.clone());
        let again = move || {
            if let Some(reply) = begun.take() {
                again(&this, reply);
            }
        };
        let give_up = move || {
            if let Some(reply) = last.take() {
                give_up(reply);
            }
        };
        Some(self.mount.rescue.watch(again, give_up))
    }

    fn lookup_now(&self, parent: INodeNo, name: &OsStr, turn: &Turn<ReplyEntry>) {
        let found = self.mount().lookup(parent.0, name);
        let Some(reply) = turn.take() else {
            // The kernel has received the entry from another thread.
            if let Ok(entry) = found {
                self.mount.forget(entry.id, 1);
            }
            return;
        };
        match found {
            // Number 0 states that the name does not exist, and how long the kernel may cache that.
            Err(Errno::NOENT) => match self.mount().absent_for(parent.0) {
                Duration::ZERO => reply.error(fuser::Errno::ENOENT),
                ttl => {
                    let nothing = attributes::unknown(0, FileType::Unknown);
                    reply.entry(&ttl, &nothing, fuser::Generation(0));
                }
            },
            found => entry(found, reply),
        }
    }

    fn opendir_now(&self, node: INodeNo, turn: &Turn<ReplyOpen>) {
        let opened = self.mount().opendir(node.0);
        let Some(reply) = turn.take() else { return };
        let keep = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
        match opened {
            Ok(true) => reply.opened(FileHandle(0), keep),
            Ok(false) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn made(&self, made: Result<Entry>, turn: &Turn<ReplyEntry>) {
        match (made, turn.take()) {
            (made, Some(reply)) => entry(made, reply),
            (Ok(entry), None) => self.mount.forget(entry.id, 1),
            (Err(_), None) => {}
        }
    }

    fn read_now(&self, handle: FileHandle, offset: u64, size: usize, reply: ReplyData) {
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            let buffer = buffer.get_mut(..size).unwrap_or_default();
            match self.mount().read(handle.0, offset, buffer) {
                Ok(count) => reply.data(buffer.get(..count).unwrap_or_default()),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    /// Runs work that may wait for a folder without delaying other requests.
    fn defer(&self, may_wait: bool, work: impl FnOnce(&Adaptor) + Send + 'static) {
        if !may_wait {
            return work(self);
        }
        let this = self.clone();
        self.mount.deferred.run(move || work(&this));
    }

    fn readdir_watched(&self, node: INodeNo, offset: u64, reply: ReplyDirectory) {
        // The flag states whether the reply already has entries: the kernel receives these, and asks for the rest.
        let slot = Slot::new((reply, false));
        let again = move |this: &Adaptor, (reply, begun): (ReplyDirectory, bool)| match begun {
            true => reply.ok(),
            false => {
                this.mount.listings.let_go(node.0);
                this.readdir_watched(node, offset, reply);
            }
        };
        let _watched = self.watch(&slot, again, |(reply, begun)| match begun {
            true => reply.ok(),
            false => reply.error(fuser::Errno::ETIMEDOUT),
        });
        let listed = self.mount().list(node.0, offset, |item| {
            let kind = attributes::kind(item.kind.as_raw_mode());
            let given = slot.with(|(reply, begun)| {
                let full = reply.add(INodeNo(item.inode), item.next, kind, item.name);
                *begun |= !full;
                !full
            });
            given.unwrap_or(false)
        });
        match (listed, slot.take()) {
            (_, None) => {}
            (Ok(()), Some((reply, _))) => reply.ok(),
            (Err(error), Some((reply, _))) => reply.error(errno(error)),
        }
    }

    fn readdirplus_watched(&self, node: INodeNo, offset: u64, reply: ReplyDirectoryPlus) {
        let slot = Slot::new((reply, false));
        let again = move |this: &Adaptor, (reply, begun): (ReplyDirectoryPlus, bool)| match begun {
            true => reply.ok(),
            false => {
                this.mount.listings.let_go(node.0);
                this.readdirplus_watched(node, offset, reply);
            }
        };
        let _watched = self.watch(&slot, again, |(reply, begun)| match begun {
            true => reply.ok(),
            false => reply.error(fuser::Errno::ETIMEDOUT),
        });
        let listed = self.mount().list_plus(node.0, offset, |name, next, entry| {
            let attributes = &entry.attributes;
            let number = attributes.ino;
            let given = slot.with(|(reply, begun)| {
                let full = reply.add(number, next, name, &entry.ttl, attributes, entry.generation);
                *begun |= !full;
                !full
            });
            given.unwrap_or(false)
        });
        match (listed, slot.take()) {
            (_, None) => {}
            (Ok(()), Some((reply, _))) => reply.ok(),
            (Err(error), Some((reply, _))) => reply.error(errno(error)),
        }
    }

    /// Registers a file with the kernel for passthrough. The kernel uses the file with the rights of the registering
    /// thread, which must not keep set-id bits.
    fn register(&self, register: impl FnOnce() -> io::Result<BackingId>) -> io::Result<BackingId> {
        let _unprivileged = self.mount.clearing_set_id()?;
        register()
    }
}

pub(super) fn errno(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.raw_os_error())
}

pub(super) fn empty(result: Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

fn entry(result: Result<Entry>, reply: ReplyEntry) {
    match result {
        Ok(entry) => reply.entry(&entry.ttl, &entry.attributes, entry.generation),
        Err(error) => reply.error(errno(error)),
    }
}

fn done(result: Result<()>, turn: &Turn<ReplyEmpty>) {
    if let Some(reply) = turn.take() {
        empty(result, reply);
    }
}

fn xattr(result: Result<Value>, size: u32, reply: ReplyXattr) {
    match result {
        Ok(Value::Length(length)) => match u32::try_from(length) {
            Ok(length) if size == 0 => reply.size(length),
            _ => reply.error(fuser::Errno::ERANGE),
        },
        Ok(Value::Bytes(value)) => match u32::try_from(value.len()) {
            Ok(length) if size == 0 => reply.size(length),
            Ok(length) if length <= size => reply.data(&value),
            _ => reply.error(fuser::Errno::ERANGE),
        },
        Err(error) => reply.error(errno(error)),
    }
}

fn written(result: Result<usize>, reply: ReplyWrite) {
    match result.map(|count| u32::try_from(count).unwrap_or(u32::MAX)) {
        Ok(count) => reply.written(count),
        Err(error) => reply.error(errno(error)),
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

impl Filesystem for Adaptor {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without FUSE_ATOMIC_O_TRUNC: the daemon would empty a running program before the kernel reports that it is
        // busy (ETXTBSY).
        let mut wanted = vec![
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_DONT_MASK,
            // Always, and not when the kernel guesses that it helps: a process that walks a tree reads a directory to
            // the end before it looks at the entries, and the guess is wrong then.
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            // The disk clears set-id bits, given the caller's rights: see `clearing_set_id_for`.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            // Without POSIX locks, so that every lock request is a flock.
            InitFlags::FUSE_FLOCK_LOCKS,
            // The daemon's node ids end with the mount, so a file handle would be lost with it, or as soon as the
            // kernel forgets the node: `name_to_handle_at` reports that handles are not supported.
            InitFlags::FUSE_NO_EXPORT_SUPPORT,
        ];
        if self.mount.options.allow_other {
            wanted.push(InitFlags::FUSE_POSIX_ACL);
        }
        for flag in wanted {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!(?flag, "the kernel does not have a capability");
            }
        }
        self.maps_uncached = config
            .add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP)
            .is_ok();
        // The kernel reads the disk's file with the caller's flags, which would change its access time.
        let passthrough = !self.mount.options.noatime
            && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok();
        if passthrough && config.set_max_stack_depth(1).is_ok() {
            self.mount.backings.enable();
        }
        if let Err(nearest) = config.set_max_background(BACKGROUND_MAX) {
            tracing::debug!(
                nearest,
                "the kernel does not take so many requests at a time"
            );
        }
        if let Err(nearest) = config.set_max_write(TRANSFER_MAX) {
            tracing::debug!(nearest, "the kernel does not take such large writes");
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (may_wait, name) = (self.mount.may_wait_at(parent.0, name), name.to_owned());
        self.answer(may_wait, reply, move |this, turn| {
            this.lookup_now(parent, &name, turn);
        });
    }

    fn forget(&self, _request: &Request, node: INodeNo, count: u64) {
        self.mount().forget(node.0, count);
    }

    fn getattr(
        &self,
        request: &Request,
        node: INodeNo,
        handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let (may_wait, tid) = (self.mount.may_wait(node.0), request.pid());
        self.answer(may_wait, reply, move |this, turn| {
            let got = this.mount().getattr(node.0, handle.map(|handle| handle.0));
            let Some(reply) = turn.take() else { return };
            match got {
                Ok((attributes, ttl)) => reply.attr(&ttl, &attributes),
                Err(error) => reply.error(this.retried(tid, error)),
            }
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
        let (may_wait, caller) = (self.mount.may_wait(node.0), caller(request, 0));
        self.answer(may_wait, reply, move |this, turn| {
            let set = this.mount().setattr(&caller, node.0, handle, &changes);
            let Some(reply) = turn.take() else { return };
            match set {
                Ok((attributes, ttl)) => reply.attr(&ttl, &attributes),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn readlink(&self, _request: &Request, node: INodeNo, reply: ReplyData) {
        let may_wait = self.mount.may_wait(node.0);
        self.answer(may_wait, reply, move |this, turn| {
            let target = this.mount().readlink(node.0);
            let Some(reply) = turn.take() else { return };
            match target {
                Ok(target) => reply.data(target.as_bytes()),
                Err(error) => reply.error(errno(error)),
            }
        });
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
        let caller = caller(request, umask);
        let (may_wait, name) = (self.mount.may_wait_at(parent.0, name), name.to_owned());
        self.answer(may_wait, reply, move |this, turn| {
            let made = this.mount().mknod(&caller, parent.0, &name, mode, device);
            this.made(made, turn);
        });
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
        let caller = caller(request, umask);
        let (may_wait, name) = (self.mount.may_wait_at(parent.0, name), name.to_owned());
        self.answer(may_wait, reply, move |this, turn| {
            let made = this.mount().mkdir(&caller, parent.0, &name, mode);
            this.made(made, turn);
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (caller, name) = (caller(request, 0), name.to_owned());
        let may_wait = self.mount.may_wait_at(parent.0, &name);
        self.answer(may_wait, reply, move |this, turn| {
            let removed = this.mount().unlink(&caller, parent.0, &name);
            done(removed, turn);
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (caller, name) = (caller(request, 0), name.to_owned());
        let may_wait = self.mount.may_wait_at(parent.0, &name);
        self.answer(may_wait, reply, move |this, turn| {
            let removed = this.mount().rmdir(&caller, parent.0, &name);
            done(removed, turn);
        });
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let caller = caller(request, 0);
        let (may_wait, name) = (self.mount.may_wait_at(parent.0, name), name.to_owned());
        let target = target.as_os_str().to_owned();
        self.answer(may_wait, reply, move |this, turn| {
            let made = this.mount().symlink(&caller, parent.0, &name, &target);
            this.made(made, turn);
        });
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
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let (caller, old, new) = (caller(request, 0), name.to_owned(), new_name.to_owned());
        let may_wait =
            self.mount.may_wait_at(parent.0, &old) || self.mount.may_wait_at(new_parent.0, &new);
        self.answer(may_wait, reply, move |this, turn| {
            let mount = this.mount();
            let renamed = mount.rename(&caller, parent.0, &old, new_parent.0, &new, flags);
            done(renamed, turn);
        });
    }

    fn link(
        &self,
        request: &Request,
        node: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let (caller, name) = (caller(request, 0), name.to_owned());
        let may_wait = self.mount.may_wait(node.0) || self.mount.may_wait_at(parent.0, &name);
        self.answer(may_wait, reply, move |this, turn| {
            let made = this.mount().link(&caller, node.0, parent.0, &name);
            this.made(made, turn);
        });
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (this, caller) = (self.clone(), caller(request, 0));
        self.mount.room.when_free(move |free| match free {
            true => {
                let may_wait = this.mount.may_wait(node.0);
                this.answer(may_wait, reply, move |this, turn| {
                    this.open_now(&caller, node, flags, turn);
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
        let (this, caller, name) = (self.clone(), caller(request, umask), name.to_owned());
        self.mount.room.when_free(move |free| match free {
            true => {
                let may_wait = this.mount.may_wait_at(parent.0, &name);
                this.answer(may_wait, reply, move |this, turn| {
                    this.create_now(&caller, parent, &name, mode, flags, turn);
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
        let of_folder = self.mount.is_of_folder(node.0);
        self.defer(of_folder, move |this| {
            this.read_now(handle, offset, size as usize, reply);
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
        let clear_set_id = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let caller = clear_set_id.then(|| caller(request, 0));
        // Data that is written back from the cache has its own offset, through any descriptor.
        let cached = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let append = flags.0 & libc::O_APPEND != 0 && !cached;
        let count = self
            .mount
            .write(handle.0, offset, data, append, caller.as_ref());
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
        empty(self.mount().flush(handle.0), reply);
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
        self.defer(of_folder, move |this| {
            this.mount().release(handle.0);
            reply.ok();
        });
    }

    fn fsync(
        &self,
        _request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        empty(self.mount().fsync(handle.0, data_only), reply);
    }

    fn opendir(&self, _request: &Request, node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.mount.options.default_permissions {
            // The kernel then sends no further requests to open or close directories.
            return reply.error(fuser::Errno::ENOSYS);
        }
        let may_wait = self.mount.may_wait(node.0);
        self.answer(may_wait, reply, move |this, turn| {
            this.opendir_now(node, turn)
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
        self.defer(may_wait, move |this| {
            this.readdir_watched(node, offset, reply)
        });
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
        self.defer(may_wait, move |this| {
            this.readdirplus_watched(node, offset, reply)
        });
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        empty(self.mount().fsyncdir(node.0, data_only), reply);
    }

    fn statfs(&self, _request: &Request, _node: INodeNo, reply: ReplyStatfs) {
        let primary = self.mount.view.primary().root();
        match primary.and_then(|root| rustix::fs::fstatvfs(root.fd())) {
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
        let (may_wait, caller) = (self.mount.may_wait(node.0), caller(request, 0));
        let (name, value) = (name.to_owned(), value.to_owned());
        self.answer(may_wait, reply, move |this, turn| {
            let set = this.mount().setxattr(&caller, node.0, &name, &value, flags);
            if let Some(reply) = turn.take() {
                this.xattr_changed(node, &name, set, reply);
            }
        });
    }

    fn getxattr(
        &self,
        _request: &Request,
        node: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let (may_wait, name) = (self.mount.may_wait(node.0), name.to_owned());
        self.answer(may_wait, reply, move |this, turn| {
            let got = this.mount().getxattr(node.0, &name, size as usize);
            if let Some(reply) = turn.take() {
                xattr(got, size, reply);
            }
        });
    }

    fn listxattr(&self, request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let (may_wait, caller) = (self.mount.may_wait(node.0), caller(request, 0));
        self.answer(may_wait, reply, move |this, turn| {
            let names = this.mount().listxattr(&caller, node.0);
            if let Some(reply) = turn.take() {
                xattr(names.map(Value::Bytes), size, reply);
            }
        });
    }

    fn removexattr(&self, request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (may_wait, caller) = (self.mount.may_wait(node.0), caller(request, 0));
        let name = name.to_owned();
        self.answer(may_wait, reply, move |this, turn| {
            let removed = this.mount().removexattr(&caller, node.0, &name);
            if let Some(reply) = turn.take() {
                this.xattr_changed(node, &name, removed, reply);
            }
        });
    }

    fn access(&self, _request: &Request, node: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let wanted = Access::from_bits_retain(mask.bits().cast_unsigned());
        let may_wait = self.mount.may_wait(node.0);
        self.answer(may_wait, reply, move |this, turn| {
            done(this.mount().access(node.0, wanted), turn);
        });
    }

    fn setlk(
        &self,
        request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        _owner: LockOwner,
        _start: u64,
        _end: u64,
        kind: i32,
        _pid: u32,
        wait: bool,
        reply: ReplyEmpty,
    ) {
        self.mount()
            .flock(handle.0, kind, wait, request.pid(), reply);
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
        let done = self
            .mount
            .fallocate(&caller, handle.0, mode, offset, length);
        empty(done, reply);
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
        self.defer(of_folder, move |this| {
            match this.mount().lseek(handle.0, offset, whence) {
                Ok(position) => reply.offset(position),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _from: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _to: INodeNo,
        to: FileHandle,
        to_offset: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let copied = self.mount().copy_file_range(
            &caller(request, 0),
            (from.0, from_offset),
            (to.0, to_offset),
            length,
        );
        written(copied, reply);
    }
}

/// Whether the kernel must report the closing of a file: not if no data can have been written whose error the close
/// would return.
fn closing_flags(opened: &Opened) -> FopenFlags {
    match opened.file.writable {
        true => FopenFlags::empty(),
        false => FopenFlags::FOPEN_NOFLUSH,
    }
}
