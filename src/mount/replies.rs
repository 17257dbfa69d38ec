//! Sends the results of operations to the kernel, in the form of fuser's reply to each request; `list_replies` has listings.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use fuser::{
    FileAttr, FileHandle, FopenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, ReplyXattr,
};
use rustix::io::{Errno, Result};

use crate::mount::Mount;
use crate::mount::attributes::errno;
use crate::mount::deferred::Reply;
use crate::mount::handover::intents::first_number;
use crate::mount::ops::file::Opened;
use crate::mount::ops::lookup::NodeEntry;
use crate::mount::ops::xattr::Value;
use crate::mount::tables::passthrough::Backing;
use crate::sys::fuse::NamesBacking;

pub(super) fn empty(result: Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

pub(super) fn written(result: Result<usize>, reply: ReplyWrite) {
    match result.map(|count| u32::try_from(count).unwrap_or(u32::MAX)) {
        Ok(count) => reply.written(count),
        Err(error) => reply.error(errno(error)),
    }
}

/// Implements [`Reply::refuse`] by fuser's reply, or the one in a field.
macro_rules! refuse {
    ($($field:tt)?) => {
        fn refuse(self, _mount: &Mount, error: Errno) {
            self$(.$field)?.error(errno(error));
        }
    };
}

impl Reply for ReplyEmpty {
    type Value = ();

    fn send(self, _mount: &Mount, (): ()) {
        self.ok();
    }

    refuse!();
}

impl Reply for ReplyWrite {
    type Value = usize;

    fn send(self, _mount: &Mount, count: usize) {
        written(Ok(count), self);
    }

    refuse!();
}

impl Reply for ReplyEntry {
    type Value = NodeEntry;

    fn send(self, _mount: &Mount, entry: NodeEntry) {
        self.entry(&entry.ttl, &entry.attributes, entry.generation);
    }

    refuse!();

    fn undo(mount: &Mount, entry: NodeEntry) {
        mount.forget(entry.id, 1);
    }
}

impl Reply for ReplyData {
    type Value = OsString;

    fn send(self, _mount: &Mount, data: OsString) {
        self.data(data.as_bytes());
    }

    refuse!();
}

/// The reply to a request for attributes or a change of them.
pub(super) struct AttributesReply {
    pub(super) reply: ReplyAttr,
    /// The calling thread, if the request may be a step of an `open`, which the kernel then tries again.
    pub(super) opened_by: Option<u32>,
}

impl Reply for AttributesReply {
    type Value = (FileAttr, Duration);

    fn send(self, _mount: &Mount, (attributes, ttl): (FileAttr, Duration)) {
        self.reply.attr(&ttl, &attributes);
    }

    fn refuse(self, mount: &Mount, error: Errno) {
        if let (Errno::STALE, Some(tid)) = (error, self.opened_by) {
            mount.retries.add(tid);
        }
        self.reply.error(errno(error));
    }
}

/// The reply to a request for extended attributes of at most `size` bytes, or for their length if that is 0.
pub(super) struct XattrReply {
    pub(super) reply: ReplyXattr,
    pub(super) size: u32,
}

impl Reply for XattrReply {
    type Value = Value;

    fn send(self, _mount: &Mount, value: Value) {
        let (length, value) = match value {
            Value::Length(length) => (length, None),
            Value::Bytes(value) => (value.len(), Some(value)),
        };
        match (u32::try_from(length), value) {
            (Ok(length), _) if self.size == 0 => self.reply.size(length),
            (Ok(length), Some(value)) if length <= self.size => self.reply.data(&value),
            _ => self.reply.error(fuser::Errno::ERANGE),
        }
    }

    refuse!(reply);
}

/// The reply to a request that has changed an extended attribute of a node.
pub(super) struct XattrChange {
    pub(super) reply: ReplyEmpty,
    pub(super) node: u64,
    /// Whether the attribute is an access control list: it changes the mode, which the kernel notices only if it
    /// handles such lists itself.
    pub(super) of_mode: bool,
}

impl Reply for XattrChange {
    type Value = ();

    fn send(self, mount: &Mount, (): ()) {
        if self.of_mode && !mount.options.allow_other {
            let invalidate = &mount.invalidate;
            invalidate.before_reply(self.node, Vec::new(), move |_| self.reply.ok());
        } else {
            self.reply.ok();
        }
    }

    refuse!(reply);
}

/// The reply to the opening of a directory; its value is whether the kernel may cache the listing.
pub(super) struct OpenDirectoryReply(pub(super) ReplyOpen);

impl Reply for OpenDirectoryReply {
    type Value = bool;

    fn send(self, _mount: &Mount, cacheable: bool) {
        let flags = match cacheable {
            true => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
            false => FopenFlags::empty(),
        };
        self.0.opened(FileHandle(0), flags);
    }

    refuse!(0);
}

/// With what flags a file is opened, and what the kernel can do with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct HowOpened {
    /// The flags of `open`.
    pub(super) flags: i32,
    /// The number of the request.
    pub(super) request: u64,
    /// Whether files that are read and written past the cache can be mapped.
    pub(super) maps_uncached: bool,
}

impl HowOpened {
    /// How the kernel must treat a file that it does not read and write by itself.
    fn cached(self, opened: &Opened) -> FopenFlags {
        // The kernel writes the pages of a mapped file when the file is closed.
        let is_mapped = self.flags & libc::O_ACCMODE == libc::O_RDWR;
        let mut how = closing_flags(opened, is_mapped);
        // Through its cache, the kernel splits a write at page boundaries: another process's append could come between.
        let append = self.flags & libc::O_APPEND != 0
            && (self.maps_uncached || self.flags & libc::O_ACCMODE == libc::O_WRONLY);
        // The kernel accepts a new size a moment before it drops the page in which the file ended. Another reader would
        // find zeros there. A file that is opened for reading and writing may be mapped for writing: writes past the cache, beside
        // changes of the same page through a map, would be lost.
        let reads = self.flags & libc::O_ACCMODE == libc::O_RDONLY;
        let growing = opened.changing && reads && self.maps_uncached;
        if append || growing || self.flags & libc::O_DIRECT != 0 {
            how |= FopenFlags::FOPEN_DIRECT_IO;
        }
        if opened.unchanged {
            how |= FopenFlags::FOPEN_KEEP_CACHE;
        }
        how
    }
}

/// Whether the kernel must report each close of a file, for which the program waits. `is_mapped`: whether the kernel may have pages of it
/// to write then.
fn closing_flags(opened: &Opened, is_mapped: bool) -> FopenFlags {
    if opened.reports_close || is_mapped {
        return FopenFlags::empty();
    }
    opened.file.lock.set_unreported();
    FopenFlags::FOPEN_NOFLUSH
}

/// Registers a file with the kernel for passthrough. The kernel uses the file with the rights of the registering
/// thread, which must not keep set-id bits.
fn register(mount: &Mount, opened: &Opened) -> io::Result<Backing> {
    let _unprivileged = mount.clearing_set_id()?;
    mount.passthrough.register(&opened.file.fd)
}

/// Records an open file for the next process that serves the mount, before the kernel receives its number.
fn record(mount: &Mount, opened: &Opened, how: HowOpened, backing: Option<&Backing>) {
    mount.handles.record(
        opened.handle,
        &opened.file,
        backing.map(|backing| backing.id),
        first_number(how.request),
    );
}

/// The reply to the opening of a node.
pub(super) struct OpenReply {
    pub(super) reply: ReplyOpen,
    pub(super) node: u64,
    pub(super) how: HowOpened,
}

impl Reply for OpenReply {
    type Value = Opened;

    fn send(self, mount: &Mount, opened: Opened) {
        let OpenReply { reply, node, how } = self;
        let register = || register(mount, &opened);
        let file = opened.file.identity;
        let choice = (mount.passthrough).open(node, file, how.flags, opened.direct, register);
        let Some(choice) = choice else {
            mount.discard(&opened);
            return reply.error(errno(Errno::STALE));
        };
        record(mount, &opened, how, choice.backing.as_deref());
        let handle = FileHandle(opened.handle);
        let Some(backing) = choice.backing else {
            return reply.opened(handle, how.cached(&opened));
        };
        let flags = closing_flags(&opened, false);
        let answer = move |_| {
            let named = reply.backing(backing.id);
            reply.opened_passthrough(handle, flags, &named);
            named.into_raw();
        };
        if choice.becomes_mapped {
            mount.invalidate.before_reply(node, Vec::new(), answer);
        } else {
            answer(true);
        }
    }

    refuse!(reply);

    fn undo(mount: &Mount, opened: Opened) {
        mount.discard(&opened);
    }
}

/// The reply to the creation of a file, which opens it.
pub(super) struct CreateReply {
    pub(super) reply: ReplyCreate,
    pub(super) how: HowOpened,
}

impl Reply for CreateReply {
    type Value = (NodeEntry, Opened);

    fn send(self, mount: &Mount, (entry, opened): (NodeEntry, Opened)) {
        let CreateReply { reply, how } = self;
        let register = || register(mount, &opened);
        let file = opened.file.identity;
        let choice = (mount.passthrough).open(entry.id, file, how.flags, opened.direct, register);
        let Some(choice) = choice else {
            mount.discard(&opened);
            mount.forget(entry.id, 1);
            return reply.error(errno(Errno::STALE));
        };
        record(mount, &opened, how, choice.backing.as_deref());
        let handle = FileHandle(opened.handle);
        let ttl = &entry.ttl.min(mount.passthrough.ttl_max(entry.id));
        let (made, generation) = (&entry.attributes, entry.generation);
        match choice.backing {
            Some(backing) => {
                let flags = closing_flags(&opened, false);
                let named = reply.backing(backing.id);
                reply.created_passthrough(ttl, made, generation, handle, flags, &named);
                named.into_raw();
            }
            None => reply.created(ttl, made, generation, handle, how.cached(&opened)),
        }
    }

    refuse!(reply);

    fn undo(mount: &Mount, (entry, opened): (NodeEntry, Opened)) {
        mount.discard(&opened);
        mount.forget(entry.id, 1);
    }
}
