//! What is done with what is open.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, SeekFrom, Timespec,
    Timestamps, UTIME_NOW, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};

use crate::operation::{Operation, Slot, Time};
use crate::thread::Mapping;
use crate::world::{Mapped, World, digest, pattern, shown};

/// Whoever waits would wait for ever: nobody else opens the other end of a pipe.
const ALWAYS: OFlags = OFlags::NONBLOCK
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOCTTY);

impl World {
    /// `None` for operations that are none with open files.
    pub(crate) fn with_open_files(&mut self, operation: &Operation) -> Option<Result<String>> {
        use Operation as O;
        let done = |result: Result<()>| result.map(|()| String::new());
        Some(match operation {
            O::Open(slot, path, flags, mode) => {
                self.files[*slot] = None;
                let flags = OFlags::from_bits_retain(flags.cast_unsigned()) | ALWAYS;
                let mode = Mode::from_raw_mode(*mode);
                rustix::fs::openat(&self.root, &path.0, flags, mode).and_then(|fd| {
                    let stat = rustix::fs::fstat(&fd)?;
                    self.files[*slot] = Some(Arc::new(fd));
                    Ok(shown(&stat, false))
                })
            }
            O::Close(slot) => {
                self.files[*slot] = None;
                Ok(String::new())
            }
            O::Copy(from, to, at, into, length) => {
                self.two(*from, *to, |from, to| copy(from, to, (*at, *into), *length))
            }
            O::Map(slot, into, shared, write) => self.map(*slot, *into, *shared, *write),
            O::MapRead(slot, at) => self.mapped(*slot, *at, |mapped| {
                Ok(mapped.mapping.read(*at).to_string())
            }),
            O::MapWrite(slot, at, byte) => self.mapped(*slot, *at, |mapped| {
                if mapped.write {
                    mapped.mapping.write(*at, *byte);
                }
                Ok(String::new())
            }),
            O::OpenDirectory(slot, path) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                self.directories[*slot] = None;
                rustix::fs::openat(&self.root, &path.0, flags, Mode::empty()).map(|fd| {
                    self.directories[*slot] = Some(fd);
                    String::new()
                })
            }
            O::List(slot) => self.directory(*slot, list),
            O::MakeIn(slot, path) => self.directory(*slot, |dir| {
                let mode = Mode::from_raw_mode(0o666);
                done(rustix::fs::mknodat(
                    dir,
                    &path.0,
                    FileType::RegularFile,
                    mode,
                    0,
                ))
            }),
            O::Read(slot, length) => self.file(*slot, |fd| {
                let mut bytes = vec![0; *length];
                let count = rustix::io::read(fd, &mut *bytes)?;
                Ok(digest(&bytes[..count]))
            }),
            O::Write(slot, length, byte) => self.file(*slot, |fd| {
                Ok(rustix::io::write(fd, &pattern(*length, *byte))?.to_string())
            }),
            O::ReadAt(slot, at, length) => self.file(*slot, |fd| {
                let mut bytes = vec![0; *length];
                let count = rustix::io::pread(fd, &mut *bytes, *at)?;
                Ok(digest(&bytes[..count]))
            }),
            O::WriteAt(slot, at, length, byte) => self.file(*slot, |fd| {
                Ok(rustix::io::pwrite(fd, &pattern(*length, *byte), *at)?.to_string())
            }),
            O::Seek(slot, at, whence) => self.file(*slot, |fd| seek(fd, *at, *whence)),
            O::TruncateOpen(slot, length) => {
                self.file(*slot, |fd| done(rustix::fs::ftruncate(fd, *length)))
            }
            O::Allocate(slot, mode, at, length) => self.file(*slot, |fd| {
                let mode = FallocateFlags::from_bits_retain(*mode);
                done(rustix::fs::fallocate(fd, mode, *at, *length))
            }),
            O::Sync(slot, data) => self.file(*slot, |fd| {
                done(match data {
                    true => rustix::fs::fdatasync(fd),
                    false => rustix::fs::fsync(fd),
                })
            }),
            O::StatOpen(slot) => self.file(*slot, |fd| Ok(shown(&rustix::fs::fstat(fd)?, false))),
            O::ModeOpen(slot, mode) => self.file(*slot, |fd| {
                rustix::fs::fchmod(fd, Mode::from_raw_mode(*mode))?;
                Ok(shown(&rustix::fs::fstat(fd)?, false))
            }),
            O::OwnOpen(slot, user, group) => self.file(*slot, |fd| {
                rustix::fs::fchown(fd, owner(*user), group_of(*group))?;
                Ok(shown(&rustix::fs::fstat(fd)?, false))
            }),
            O::TimesOpen(slot, access, change) => self.file(*slot, |fd| {
                rustix::fs::futimens(fd, &times(*access, *change))?;
                Ok(shown(&rustix::fs::fstat(fd)?, access.is_some()))
            }),
            O::Lock(slot, kind) => self.file(*slot, |fd| {
                done(rustix::fs::flock(
                    fd,
                    match *kind {
                        libc::LOCK_SH => FlockOperation::NonBlockingLockShared,
                        libc::LOCK_EX => FlockOperation::NonBlockingLockExclusive,
                        _ => FlockOperation::NonBlockingUnlock,
                    },
                ))
            }),
            O::SetAttributeOpen(slot, name, length) => self.file(*slot, |fd| {
                let value = pattern(*length, 1);
                done(rustix::fs::fsetxattr(
                    fd,
                    *name,
                    &value,
                    XattrFlags::empty(),
                ))
            }),
            _ => return None,
        })
    }

    fn file(&self, slot: Slot, call: impl FnOnce(&OwnedFd) -> Result<String>) -> Result<String> {
        call(self.files[slot].as_ref().ok_or(Errno::BADF)?)
    }

    fn two(
        &self,
        first: Slot,
        second: Slot,
        call: impl FnOnce(&OwnedFd, &OwnedFd) -> Result<String>,
    ) -> Result<String> {
        let file = |slot: Slot| self.files[slot].as_ref().ok_or(Errno::BADF);
        call(file(first)?, file(second)?)
    }

    fn directory(
        &self,
        slot: Slot,
        call: impl FnOnce(&OwnedFd) -> Result<String>,
    ) -> Result<String> {
        call(self.directories[slot].as_ref().ok_or(Errno::BADF)?)
    }

    fn map(&mut self, slot: Slot, into: Slot, shared: bool, write: bool) -> Result<String> {
        self.mappings[into] = None;
        let file = self.files[slot].clone().ok_or(Errno::BADF)?;
        let mapping = Mapping::new(&*file, shared, write)?;
        self.mappings[into] = Some(Mapped {
            mapping,
            file,
            write,
        });
        Ok(String::new())
    }

    /// Touches a mapping where the file has something: there would be a signal elsewhere.
    fn mapped(
        &self,
        slot: Slot,
        at: usize,
        touch: impl FnOnce(&Mapped) -> Result<String>,
    ) -> Result<String> {
        let mapped = self.mappings[slot].as_ref().ok_or(Errno::BADF)?;
        match rustix::fs::fstat(&mapped.file)?.st_size > at as i64 {
            true => touch(mapped),
            false => Ok("beyond the end".to_owned()),
        }
    }
}

/// A directory's names and what they are, from the beginning, sorted.
pub(crate) fn list(dir: &OwnedFd) -> Result<String> {
    let mut entries = rustix::fs::Dir::read_from(dir)?;
    entries.rewind();
    let mut lines = Vec::new();
    while let Some(entry) = entries.read() {
        let entry = entry?;
        lines.push(format!("{:?} {:?}", entry.file_name(), entry.file_type()));
    }
    lines.sort();
    Ok(lines.join(", "))
}

fn seek(fd: &OwnedFd, at: u64, whence: i32) -> Result<String> {
    if FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory {
        // Positions in directories are the file system's own.
        return Ok("a directory".to_owned());
    }
    let position = match whence {
        libc::SEEK_CUR => SeekFrom::Current(at as i64 - 1000),
        libc::SEEK_END => SeekFrom::End(at as i64 - 5000),
        libc::SEEK_DATA | libc::SEEK_HOLE => return seek_data(fd, at, whence),
        _ => SeekFrom::Start(at),
    };
    Ok(rustix::fs::seek(fd, position)?.to_string())
}

/// What is allocated and not written counts as data while the system happens to have read it: only that there
/// is an answer is the same everywhere.
fn seek_data(fd: &OwnedFd, at: u64, whence: i32) -> Result<String> {
    let found = match whence {
        libc::SEEK_DATA => rustix::fs::seek(fd, SeekFrom::Data(at)),
        _ => rustix::fs::seek(fd, SeekFrom::Hole(at)),
    };
    match found {
        Ok(_) | Err(Errno::NXIO) => Ok(rustix::fs::seek(fd, SeekFrom::Start(0))?.to_string()),
        Err(error) => Err(error),
    }
}

fn copy(from: &OwnedFd, to: &OwnedFd, at: (u64, u64), length: usize) -> Result<String> {
    let (mut from_at, mut to_at) = at;
    let copied =
        rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), length)?;
    Ok(copied.to_string())
}

pub(crate) fn owner(user: u32) -> Option<Uid> {
    (user != u32::MAX).then(|| Uid::from_raw(user))
}

pub(crate) fn group_of(group: u32) -> Option<Gid> {
    (group != u32::MAX).then(|| Gid::from_raw(group))
}

pub(crate) fn times(access: Time, change: Time) -> Timestamps {
    let special = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let time = |time: Time| match time {
        None => special(UTIME_OMIT),
        Some(None) => special(UTIME_NOW),
        Some(Some((seconds, nanoseconds))) => Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds.into(),
        },
    };
    Timestamps {
        last_access: time(access),
        last_modification: time(change),
    }
}

/// Flags of calls that take a path and whether a symlink is meant itself.
pub(crate) fn itself(symlink: bool) -> AtFlags {
    match symlink {
        true => AtFlags::SYMLINK_NOFOLLOW,
        false => AtFlags::empty(),
    }
}
