//! Opens, reads, writes and closes files.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FallocateFlags, FileType, Mode, OFlags, SeekFrom, Statx};
use rustix::io::{Errno, ReadWriteFlags, Result};
use rustix::process::geteuid;

use crate::mount::Mount;
use crate::mount::caller::{AssumedIdentity, Caller};
use crate::mount::copy_up::Alteration;
use crate::mount::deferred;
use crate::mount::handover::intents::{Before, first_number, is_resent};
use crate::mount::tables::handles::{File, Kept, Lock};
use crate::mount::tables::nodes::Version;
use crate::mount::tables::ttl::age;
use crate::sys::file_id::FileId;
use crate::sys::{at, calls};
use crate::view::PRIMARY;

/// A file up to this size, in bytes, that has not been changed for so long, is read through the kernel's cache of this
/// mount, which keeps the pages from one open to the next: setting up passthrough takes longer than reading the file. A
/// file that is being written is left to the kernel, whose times are exact.
const LITTLE_MAX: u64 = 64 * 1024;
const UNCHANGED_FOR: Duration = Duration::from_secs(60);

fn is_little(stat: &Statx) -> bool {
    stat.stx_size <= LITTLE_MAX && age(stat) >= UNCHANGED_FOR
}

/// A file that was changed more recently than this may be changed again while it is read.
const CHANGING: Duration = Duration::from_secs(2);

/// An open file, as described in the reply to the kernel.
#[derive(Debug)]
pub(in crate::mount) struct Opened {
    pub(in crate::mount) handle: u64,
    pub(in crate::mount) file: Arc<File>,
    /// Whether the kernel may read and write the disk's file by itself.
    pub(in crate::mount) direct: bool,
    /// Whether the file was changed a moment ago.
    pub(in crate::mount) changing: bool,
    /// Whether the contents that the kernel has cached are still right.
    pub(in crate::mount) unchanged: bool,
    /// Whether the kernel must report each close: of a file that serves as a lock, by its name, and of one that may have been written on
    /// a disk whose `close` returns errors.
    pub(in crate::mount) reports_close: bool,
}

/// The flags of an `open` that are passed on to the disk.
///
/// `O_DIRECT` is not: it would require alignment of our memory, not of the caller's. Nor is `O_APPEND`: the kernel
/// states for each write whether it appends, since pages of a mapped file that it writes back belong at their own
/// offset, through any descriptor.
pub(in crate::mount) fn open_flags(flags: i32) -> OFlags {
    let honoured = libc::O_ACCMODE
        | libc::O_TRUNC
        | libc::O_EXCL
        | libc::O_SYNC
        | libc::O_DSYNC
        | libc::O_NOATIME;
    OFlags::from_bits_retain((flags & honoured).cast_unsigned())
}

/// Whether the mode of an open file does not let its owner, this process, open it in this way.
fn lacks_rights(file: &File, stat: &Statx) -> bool {
    let mut needed = Mode::empty();
    needed.set(Mode::RUSR, file.readable);
    needed.set(Mode::WUSR, file.writable);
    !Mode::from_raw_mode(stat.stx_mode.into()).contains(needed) && !geteuid().is_root()
}

/// Writes all of the data, or as much as possible before an error.
fn write_all(file: &File, offset: u64, data: &[u8], append: bool) -> Result<usize> {
    let mut written = 0;
    while let Some(rest) = data.get(written..).filter(|rest| !rest.is_empty()) {
        let at = offset + written as u64;
        let done = match append {
            true => {
                let rest = [IoSlice::new(rest)];
                rustix::io::pwritev2(&file.fd, &rest, at, ReadWriteFlags::APPEND)
            }
            false => rustix::io::pwrite(&file.fd, rest, at),
        };
        match done {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(_) if written > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// How much of a file is searched for data that an earlier process has appended.
const SEARCHED_MAX: u64 = 64 * 1024 * 1024;

/// Whether data has been appended to a file since the file had this size: the data's length, if it has.
fn appended(fd: &OwnedFd, size: u64, data: &[u8]) -> Result<Option<u64>> {
    let end = at::stat_fd(fd)?.stx_size;
    let length = end.saturating_sub(size).min(SEARCHED_MAX);
    let mut added = vec![0; usize::try_from(length).unwrap_or(0)];
    // A descriptor for writing only cannot be read.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(at::proc_path(fd), flags, Mode::empty())?;
    let mut filled = 0;
    while let Some(rest) = added.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(&file, rest, size + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    added.truncate(filled);
    let found = added.windows(data.len().max(1)).any(|part| part == data);
    Ok(found.then_some(data.len() as u64))
}

impl Mount {
    pub(in crate::mount) fn open(&self, caller: &Caller, id: u64, flags: i32) -> Result<Opened> {
        let opened = self.open_node(caller, id, flags);
        if let Err(Errno::STALE) = opened
            && flags & libc::O_ACCMODE != libc::O_RDONLY
        {
            self.recover_by_name(caller, id)?;
        }
        opened
    }

    /// Recovers the archived job to which the file belongs that has the name of a node now. The kernel opens that file next, and looks
    /// its name up only once more: another `ESTALE`, after a recovery, would reach the program.
    fn recover_by_name(&self, caller: &Caller, id: u64) -> Result<()> {
        let Ok(entered) = self.enter_again(id, |found, _| found.location != PRIMARY) else {
            return Ok(());
        };
        let needed = match entered.last() {
            Some(there) => self
                .node_to_change(caller, *there, Alteration::Contents)
                .err(),
            None => None,
        };
        self.forget_each(&entered);
        // Any other error is that of the next attempt.
        needed
            .filter(|error| deferred::is_recovery_needed(*error))
            .map_or(Ok(()), Err)
    }

    fn open_node(&self, caller: &Caller, id: u64, flags: i32) -> Result<Opened> {
        let append = flags & libc::O_APPEND != 0;
        // Truncating the file is a separate request.
        let flags = open_flags(flags).difference(OFlags::TRUNC);
        let writable = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        if !writable {
            return self.open_file(caller, id, flags, append);
        }
        let (changed, node) = self.node_to_change(caller, id, Alteration::Contents)?;
        if changed != id {
            // Another process may have the archived file open by this node. The kernel looks the path up again, and
            // finds the recovered file.
            return Err(Errno::STALE);
        }
        // Checked before the open: a job with a file that is open for writing is not purged.
        self.changeable_in_primary(caller, id, &node, Alteration::Contents)?;
        let opened = self.open_file(caller, id, flags, append);
        // Checked after the open: the process that moves the job asks for open files after the move.
        if let Err(error) = self.still_in_primary(&node) {
            if let Ok(opened) = opened {
                self.discard(&opened);
            }
            return Err(error);
        }
        opened
    }

    /// Closes a file that was opened for a request which has failed since.
    pub(in crate::mount) fn discard(&self, opened: &Opened) {
        if self.handles.remove_file(opened.handle).is_some() {
            self.open_limit.closed();
        }
    }

    fn open_file(&self, caller: &Caller, id: u64, flags: OFlags, append: bool) -> Result<Opened> {
        let writable = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        let opened = match self.open_with_stat(id, flags) {
            Ok((_, stat)) if self.is_hidden(id, &stat)? => Err(Errno::STALE),
            opened => opened,
        };
        let (fd, stat) = match opened {
            Err(Errno::STALE) => self.open_nameless(caller, id, flags)?,
            // The file itself may be appended to only (`chattr +a`).
            Err(Errno::PERM) if append => self.open_with_stat(id, flags | OFlags::APPEND)?,
            result => result?,
        };
        self.retries.opened(caller.tid);
        if !writable {
            self.opened_for_reading(id, &stat);
        }
        let file = File {
            fd,
            identity: FileId::of(&stat),
            node: id,
            readable: !flags.contains(OFlags::WRONLY),
            writable,
            only_lock: writable && self.is_only_lock(id)?,
            lock: Lock::default(),
            kept: Kept::default(),
        };
        Ok(self.opened(file, &stat))
    }

    /// Registers a file that was opened.
    pub(in crate::mount) fn opened(&self, file: File, stat: &Statx) -> Opened {
        self.apply_noatime(&file.fd);
        let regular = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
        // The kernel writes with the rights of the daemon, which would keep set-id bits.
        let set_id = stat.stx_mode & at::SET_ID != 0;
        let direct = regular && !set_id && !file.only_lock && (file.writable || !is_little(stat));
        let unchanged = self.nodes.opened(file.node, Version::of(stat));
        if !unchanged {
            // The kernel drops the contents itself on the reply, but would cut them at its cached size.
            self.invalidate.attributes_now(file.node);
        }
        let node = self.node(file.node);
        let is_lock = node.is_ok_and(|node| node.name.as_bytes().ends_with(b".lock"));
        let reports_close =
            is_lock || file.writable && self.local_disk != Some(file.identity.device());
        self.open_limit.opened();
        let (handle, file) = self.handles.add_file(file);
        if lacks_rights(&file, stat) {
            // The next process that serves the mount could not open it again.
            self.handles.keep(&file);
        }
        if file.writable {
            self.activity.altered(file.node);
        }
        Opened {
            handle,
            file,
            direct,
            unchanged,
            reports_close,
            changing: regular && age(stat) < CHANGING,
        }
    }

    /// Opens a node whose name leads elsewhere, if it is already open: `/proc/PID/fd/N` leads here. A caller that used
    /// the name gets the file that has the name now, since the kernel looks the name up again.
    fn open_nameless(&self, caller: &Caller, id: u64, flags: OFlags) -> Result<(OwnedFd, Statx)> {
        let opened = match self.retries.contains(caller.tid) {
            true => self.reopen(id, flags),
            false => {
                let node = self.node(id)?;
                self.contended.note(node.parent, node.name);
                Err(Errno::STALE)
            }
        };
        if let Err(Errno::STALE) = opened {
            self.retries.add(caller.tid);
        }
        opened
    }

    pub(in crate::mount) fn reopen(&self, id: u64, flags: OFlags) -> Result<(OwnedFd, Statx)> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let writable = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        let fd = self.with_open_fd(id, |fd| {
            // What was opened may be an archived file, which the node stood for before.
            if writable && self.nodes.identity(id) != Some(at::file_id(fd)?) {
                return Err(Errno::STALE);
            }
            rustix::fs::open(at::proc_path(fd), flags, Mode::empty())
        })?;
        let stat = at::stat_fd(&fd)?;
        Ok((fd, stat))
    }

    /// Reads up to the buffer's length; less only at the end of the file.
    pub(in crate::mount) fn read(
        &self,
        handle: u64,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize> {
        let file = self.handles.file(handle)?;
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(&file.fd, rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                // The data that was read is returned; the error occurs again with the next read.
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Writes all of the data, or as much as possible before an error; with `append`, at the end of the file, wherever
    /// that is by then. `clear_set_id_for`: a caller who may not keep set-id bits.
    pub(in crate::mount) fn write(
        &self,
        handle: u64,
        offset: u64,
        data: &[u8],
        append: bool,
        tid: u32,
        clear_set_id_for: Option<&Caller>,
    ) -> Result<usize> {
        let file = self.handles.file(handle)?;
        self.fillable(tid, &file)?;
        let _rights = self.set_id_rights(clear_set_id_for, &file)?;
        let _write = self.own_writes.begin(file.node);
        let written = match append {
            // A second time, the data would be there twice.
            true => {
                let written = self.intents.change(
                    || {
                        let size = at::stat_fd(&file.fd)?.stx_size;
                        Ok(Before {
                            identity: None,
                            size,
                        })
                    },
                    |begun| appended(&file.fd, begun.size, data),
                    || write_all(&file, offset, data, append).map(|count| count as u64),
                )?;
                usize::try_from(written).unwrap_or(usize::MAX)
            }
            false => write_all(&file, offset, data, append)?,
        };
        if append && at::stat_fd(&file.fd)?.stx_size != offset + written as u64 {
            // The kernel has put the data into its cache at its own idea of the end.
            self.invalidate.pages(file.node);
        }
        Ok(written)
    }

    /// Makes the disk clear the set-id bits of an open file that changes for a caller.
    fn set_id_rights(
        &self,
        caller: Option<&Caller>,
        file: &File,
    ) -> Result<Option<AssumedIdentity>> {
        match caller {
            Some(caller) => self.clearing_set_id_for(caller, &at::stat_fd(&file.fd)?),
            None => Ok(None),
        }
    }

    /// Notes that a descriptor of the file is closed, and returns the disk's error for data written through it.
    pub(in crate::mount) fn flush(&self, handle: u64) -> Result<()> {
        let file = self.handles.file(handle)?;
        file.lock.set_closing();
        if file.writable {
            calls::close_duplicate(&file.fd)?;
        }
        Ok(())
    }

    pub(in crate::mount) fn release(&self, handle: u64) {
        let unlocked = self.release_lock(handle);
        if let Some(file) = self.handles.remove_file(handle) {
            self.open_limit.closed();
            self.passthrough.close(file.node);
            if file.writable || unlocked {
                self.activity.altered_for_good(file.node);
            }
        }
    }

    /// Closes the file that an earlier process has opened for this request without replying. Returns another descriptor of it.
    pub(in crate::mount) fn close_unanswered(&self, request: u64) -> Option<OwnedFd> {
        if !is_resent(request) {
            return None;
        }
        let handle = self.handles.take_unanswered(first_number(request))?;
        let file = self.handles.file(handle).ok();
        let copy = file.and_then(|file| file.fd.try_clone().ok());
        self.release(handle);
        copy
    }

    pub(in crate::mount) fn fsync(&self, handle: u64, data_only: bool) -> Result<()> {
        let file = self.handles.file(handle)?;
        if data_only {
            rustix::fs::fdatasync(&file.fd)
        } else {
            rustix::fs::fsync(&file.fd)
        }
    }

    pub(in crate::mount) fn fallocate(
        &self,
        caller: &Caller,
        handle: u64,
        mode: i32,
        offset: u64,
        length: u64,
    ) -> Result<()> {
        let file = self.handles.file(handle)?;
        self.fillable(caller.tid, &file)?;
        let _rights = self.set_id_rights(caller.unprivileged(), &file)?;
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        rustix::fs::fallocate(&file.fd, mode, offset, length)
    }

    /// Only `SEEK_DATA` and `SEEK_HOLE` reach the daemon; the kernel handles the others.
    pub(in crate::mount) fn lseek(&self, handle: u64, offset: i64, whence: i32) -> Result<i64> {
        let file = self.handles.file(handle)?;
        let offset = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
        let position = match whence {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        let found = rustix::fs::seek(&file.fd, position)?;
        i64::try_from(found).map_err(|_| Errno::OVERFLOW)
    }

    pub(in crate::mount) fn copy_file_range(
        &self,
        caller: &Caller,
        from: (u64, u64),
        to: (u64, u64),
        length: u64,
    ) -> Result<usize> {
        let (source, destination) = (self.handles.file(from.0)?, self.handles.file(to.0)?);
        self.fillable(caller.tid, &destination)?;
        let _rights = self.set_id_rights(caller.unprivileged(), &destination)?;
        let (mut at, mut into) = (from.1, to.1);
        // The reply counts bytes in 32 bits.
        let length = usize::try_from(length.min(1 << 30)).map_err(|_| Errno::INVAL)?;
        rustix::fs::copy_file_range(
            &source.fd,
            Some(&mut at),
            &destination.fd,
            Some(&mut into),
            length,
        )
    }
}
