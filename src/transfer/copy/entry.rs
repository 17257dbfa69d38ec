//! Reads, records and writes one entry that is not a directory.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{FileType, Mode, OFlags, Statx};
use rustix::io::Errno;

use super::data::Stream;
use super::digest::{BLOCK, Buffer};
use super::holes::Holes;
use super::page_cache::{self, Before, WINDOW};
use super::work::{FEW, Target, Work};
use crate::sys::at;
use crate::sys::at::open_noatime;
use crate::transfer::attributes::Attributes;
use crate::transfer::attributes::loss::Lost;
use crate::transfer::error::{Context, Failure, OTHER, SYMLINK, Side};
use crate::transfer::manifest::Kind;
use crate::transfer::stamp;

/// The smallest file for which a clone costs less than writing.
const CLONE: u64 = 64 << 10;

const ITSELF: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// `NONBLOCK`: opening must not wait for a fifo or a device that another process put in the file's place.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(ITSELF);

/// One entry to copy.
pub(super) struct Task {
    /// The directory of the entry.
    pub(super) source: Arc<OwnedFd>,
    /// The directory in the copy.
    pub(super) copy: Option<Arc<OwnedFd>>,
    /// The position of the directory in the manifest.
    pub(super) parent: usize,
    pub(super) name: Box<OsStr>,
    pub(super) kind: FileType,
    /// The file, if the disk has been asked to read it.
    pub(super) opened: Option<Opened>,
}

/// Copies an entry, and records a failure.
pub(super) fn copy(work: &Work<'_>, mut task: Task, buffer: &mut Buffer) {
    if work.stopped() {
        return;
    }
    let opened = task.opened.take();
    let task = &task;
    let done = work.go_on().and_then(|()| match task.kind {
        FileType::RegularFile => file(work, task, opened, buffer),
        FileType::Symlink => symlink(work, task),
        FileType::Fifo => fifo(work, task),
        _ => {
            work.lose(Lost::Special, task.parent, &task.name);
            Ok(())
        }
    });
    match done {
        Ok(()) if work.look_only => {}
        Ok(()) => work.count_file(),
        Err(failure) => work.fail(failure, task.parent, &task.name),
    }
}

/// A small file of the source that the disk has been asked to read.
pub(super) struct Opened {
    file: OwnedFd,
    stat: Statx,
    before: Before,
}

impl Opened {
    /// Asks the disk to read a file, if that is useful: the kernel reads ahead in large files, and a clone needs no
    /// reading of the source. Ignores errors, because copying the file meets them again.
    pub(super) fn ahead(work: &Work<'_>, task: &Task) -> Option<Opened> {
        let Work { options, .. } = work;
        let useless = work.look_only || work.afresh || options.bandwidth.is_some();
        if useless || task.kind != FileType::RegularFile {
            return None;
        }
        let file = open_noatime(&*task.source, &task.name, READ).ok()?;
        let stat = at::stat_fd(&file).ok()?;
        let clones = |target: &Target<'_>| target.clones.load(Ordering::Relaxed);
        let cloned = stat.stx_size >= CLONE && work.target.as_ref().is_some_and(clones);
        if cloned || stat.stx_size > BLOCK as u64 || stamp::kind(&stat) != FileType::RegularFile {
            return None;
        }
        let before = Before::of(&file, stat.stx_size);
        if !before.was_cached(0) {
            page_cache::ask(&file, 0, stat.stx_size);
        }
        Some(Opened { file, stat, before })
    }
}

fn file(
    work: &Work<'_>,
    task: &Task,
    opened: Option<Opened>,
    buffer: &mut Buffer,
) -> Result<(), Failure> {
    if work.look_only {
        let stat = at::stat_at(&*task.source, &task.name).listed("look at")?;
        if stamp::kind(&stat) != FileType::RegularFile {
            return Err(Failure::Changed(OTHER));
        }
        work.add_file(task.parent, &task.name, &stat);
        return Ok(());
    }
    let (source, stat, before) = match opened {
        Some(Opened { file, stat, before }) => (file, stat, Some(before)),
        None => {
            let file = open_noatime(&*task.source, &task.name, READ).listed("open")?;
            let stat = at::stat_fd(&file).source("look at")?;
            (file, stat, None)
        }
    };
    if stamp::kind(&stat) != FileType::RegularFile {
        return Err(Failure::Changed(OTHER));
    }
    let (index, first) = work.add_file(task.parent, &task.name, &stat);
    if first.is_some() {
        // `finish` links it to the first name, when that is complete.
        return Ok(());
    }
    if work.afresh {
        page_cache::uncache(&source, 0, 0);
    }
    let stream = Stream {
        from: source.as_fd(),
        to: None,
        size: stat.stx_size,
        holes: Holes::None,
        before,
    };
    let (Some(target), Some(copy)) = (&work.target, &task.copy) else {
        let holes = Holes::of(source.as_fd(), &stat, &work.believed)?;
        let hash = Stream { holes, ..stream }.run(work, buffer)?;
        work.finish_file(index, hash, None);
        return Ok(());
    };
    let mut attributes = Attributes::read(&source, &stat)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | ITSELF;
    let mode = attributes.mode_at_first();
    let to = rustix::fs::openat(&**copy, &*task.name, flags, mode).copy("create")?;
    let clone = stat.stx_size >= CLONE && cloned(target, &to, &source)?;
    let stream = match clone {
        true => Stream {
            from: to.as_fd(),
            holes: {
                let stat = at::stat_fd(&to).copy("look at")?;
                Holes::of(to.as_fd(), &stat, &work.believed)?
            },
            before: None,
            ..stream
        },
        false => Stream {
            to: Some(to.as_fd()),
            holes: Holes::of(source.as_fd(), &stat, &work.believed)?,
            ..stream
        },
    };
    let hash = stream.run(work, buffer)?;
    let kind = Kind::File {
        size: stat.stx_size,
        hash,
        link: None,
    };
    work.restore_times(&mut attributes, task.parent, &task.name, &kind);
    let mode = attributes.apply(&target.created, &to, |lost| {
        work.lose(lost, task.parent, &task.name)
    })?;
    work.finish_file(index, hash, Some(mode));
    make_durable(target, to, &stat)
}

/// Makes a further name of a file of the copy a separate file, by copying the first one.
pub(super) fn duplicate(
    work: &Work<'_>,
    target: &Target<'_>,
    (from_dir, from_name): (&OwnedFd, &OsStr),
    (to_dir, to_name): (&OwnedFd, &OsStr),
) -> Result<(), Failure> {
    // The file that is read is in the copy, too.
    let of_copy = |failure| match failure {
        Failure::Io(_, operation, errno) => Failure::Io(Side::Copy, operation, errno),
        failure => failure,
    };
    let from = open_noatime(from_dir, from_name, READ).copy("open")?;
    let stat = at::stat_fd(&from).copy("look at")?;
    if stamp::kind(&stat) != FileType::RegularFile {
        return Err(Errno::STALE).copy("open");
    }
    let attributes = Attributes::read(&from, &stat).map_err(of_copy)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | ITSELF;
    let mode = attributes.mode_at_first();
    let to = rustix::fs::openat(to_dir, to_name, flags, mode).copy("create")?;
    let stream = Stream {
        from: from.as_fd(),
        to: Some(to.as_fd()),
        size: stat.stx_size,
        holes: Holes::of(from.as_fd(), &stat, &work.believed).map_err(of_copy)?,
        before: None,
    };
    stream.run(work, &mut Buffer::default()).map_err(of_copy)?;
    // An attribute that cannot be kept here was not kept of the first name either.
    attributes.apply(&target.created, &to, |_| {})?;
    make_durable(target, to, &stat)
}

/// Makes the copy share the source's blocks, where the file system supports that.
fn cloned(target: &Target<'_>, to: &OwnedFd, source: &OwnedFd) -> Result<bool, Failure> {
    if !target.clones.load(Ordering::Relaxed) {
        return Ok(false);
    }
    match rustix::fs::ioctl_ficlone(to, source) {
        Ok(()) => Ok(true),
        // Another file may be accepted, for example with other attributes or another block size.
        Err(Errno::INVAL | Errno::PERM | Errno::TXTBSY) => Ok(false),
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY | Errno::NOSYS) => {
            target.clones.store(false, Ordering::Relaxed);
            Ok(false)
        }
        Err(errno) => Err(errno).copy("clone"),
    }
}

/// Makes a written file durable, at once or together with all others.
fn make_durable(target: &Target<'_>, file: OwnedFd, stat: &Statx) -> Result<(), Failure> {
    let large = stat.stx_size > WINDOW;
    if large || !target.writeback.is_whole() {
        rustix::fs::fsync(&file).copy("write")?;
        if large {
            page_cache::uncache(&file, 0, 0);
        }
    } else if target.now {
        // The files are closed after the lock is released.
        let _many = {
            let mut held = target.held.lock();
            match &mut *held {
                Some(files) if files.len() < FEW => {
                    files.push(file);
                    None
                }
                held => held.take(),
            }
        };
    }
    Ok(())
}

fn symlink(work: &Work<'_>, task: &Task) -> Result<(), Failure> {
    let stat = at::stat_at(&*task.source, &task.name).listed("look at")?;
    if stamp::kind(&stat) != FileType::Symlink {
        return Err(Failure::Changed(OTHER));
    }
    let target = match rustix::fs::readlinkat(&*task.source, &*task.name, Vec::new()) {
        Err(Errno::INVAL) => return Err(Failure::Changed(OTHER)),
        target => target.listed("read the symlink")?,
    };
    let target = OsString::from_vec(target.into_bytes()).into_boxed_os_str();
    let kind = Kind::Symlink { target };
    if let (Some(to), Some(copy), Kind::Symlink { target }) = (&work.target, &task.copy, &kind) {
        rustix::fs::symlinkat(&**target, &**copy, &*task.name).copy(SYMLINK)?;
        let mut attributes = Attributes::read_at(&*task.source, &task.name, &stat)?;
        work.restore_times(&mut attributes, task.parent, &task.name, &kind);
        let lose = |lost| work.lose(lost, task.parent, &task.name);
        if work.is_further_name(&stat) {
            lose(Lost::HardLink);
        }
        attributes.apply_to_link(&to.created, &**copy, &task.name, lose)?;
    }
    work.add(task.parent, &task.name, &stat, kind);
    Ok(())
}

fn fifo(work: &Work<'_>, task: &Task) -> Result<(), Failure> {
    // Not opened for reading: that would wake a process that waits at the other end.
    let stat = at::stat_at(&*task.source, &task.name).listed("look at")?;
    if stamp::kind(&stat) != FileType::Fifo {
        return Err(Failure::Changed(OTHER));
    }
    let mut got = None;
    if let (Some(to), Some(copy)) = (&work.target, &task.copy) {
        let name: &OsStr = &task.name;
        let mode = Mode::RUSR | Mode::WUSR;
        match rustix::fs::mknodat(&**copy, name, FileType::Fifo, mode, 0) {
            Err(Errno::PERM | Errno::OPNOTSUPP) => {
                work.lose(Lost::Special, task.parent, name);
                return Ok(());
            }
            made => made.copy("create")?,
        }
        let fifo = rustix::fs::openat(&**copy, name, READ, Mode::empty()).copy("open")?;
        if stamp::kind(&at::stat_fd(&fifo).copy("look at")?) != FileType::Fifo {
            return Err(Errno::STALE).copy("open");
        }
        let lose = |lost| work.lose(lost, task.parent, name);
        if work.is_further_name(&stat) {
            lose(Lost::HardLink);
        }
        let mut attributes = Attributes::read_at(&*task.source, name, &stat)?;
        work.restore_times(&mut attributes, task.parent, name, &Kind::Fifo);
        got = Some(attributes.apply(&to.created, &fifo, lose)?);
    }
    let index = work.add(task.parent, &task.name, &stat, Kind::Fifo);
    work.set_mode(index, got);
    Ok(())
}
