//! What is written stands on the disk before anybody is told that it is there.
//!
//! A copy of many small files is made durable by one `syncfs`, which costs one commit of the file system's
//! journal in place of one for each file. That is as good as `fsync` only where it tells of
//! what could not be written:
//!
//! - Since Linux 5.8, `syncfs` returns the first error of writing back anything of the file system since
//!   the descriptor was opened, once for each descriptor. So the descriptor must be older than the first
//!   write: [`Writeback::watch`] comes before the copy. An error in somebody else's file is
//!   reported too, and the copy is then made again, which does no harm.
//! - Network file systems, FUSE and overlays promise nothing of the kind: there, each file gets its `fsync`, by the
//!   descriptor that wrote it. An `fsync` through a descriptor that is opened later can miss an error, if the
//!   inode has left memory meanwhile.
//! - `syncfs` writes what others have written too, which may be much. A copy of few files is made durable by
//!   `fsync`, and so are large files at once when they are written, on any file system.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The file systems whose `syncfs` writes everything and tells of errors (`statfs`' `f_type`).
const WHOLE: [u64; 7] = [
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683E, // btrfs
    0xF2F5_2010, // f2fs
    0xCA45_1A4E, // bcachefs
    0x2FC1_2FC1, // zfs
    0x0102_1994, // tmpfs
];

/// The first version of Linux whose `syncfs` tells of errors.
const TELLS: (u32, u32) = (5, 8);

/// How a copy becomes durable.
#[derive(Debug, Clone, Copy, Default)]
pub enum Durability<'a> {
    /// It is when the copy returns.
    #[default]
    Now,
    /// It is after [`Writeback::sync`], so that several copies share the cost. All that is copied with it must be on
    /// one file system.
    Together(&'a Writeback),
}

/// Sees to it that what is written to a file system from now on is durable.
#[derive(Debug)]
pub struct Writeback {
    fd: OwnedFd,
    whole: bool,
}

impl Writeback {
    /// Begins to watch the file system that a directory is on. Call it before anything is written.
    ///
    /// # Errors
    ///
    /// What `openat` and `fstatfs` give; the directory must be readable.
    pub fn watch(directory: impl AsFd) -> io::Result<Writeback> {
        let directory = directory.as_fd();
        // Not a duplicate: errors are counted from the opening on. Nor O_PATH, which syncfs refuses.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
        // The type of this field differs from one architecture to the next.
        #[allow(clippy::unnecessary_cast)]
        let kind = rustix::fs::fstatfs(&fd)?.f_type as u64 & 0xFFFF_FFFF;
        Ok(Writeback {
            fd,
            whole: WHOLE.contains(&kind) && kernel() >= TELLS && has_syncfs(directory),
        })
    }

    /// Waits until all that was written is on the disk.
    ///
    /// # Errors
    ///
    /// What could not be written since it watches, whoever wrote it: `EIO`, `ENOSPC`, `EDQUOT`. Then
    /// nothing that was copied may be relied upon.
    pub fn sync(&self) -> io::Result<()> {
        if self.whole {
            rustix::fs::syncfs(&self.fd)?;
        }
        Ok(())
    }

    /// Whether one call makes everything durable; if not, each file and directory is to be synced.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }
}

/// Makes the names in a directory durable. The descriptor must be open for reading.
///
/// # Errors
///
/// What could not be written. A file system that cannot sync one directory (CIFS, some of FUSE) is synced as a whole.
pub(crate) fn sync_directory(directory: impl AsFd) -> rustix::io::Result<()> {
    match rustix::fs::fsync(&directory) {
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF) => {}
        synced => return synced,
    }
    match rustix::fs::syncfs(&directory) {
        Err(Errno::NOSYS) => Ok(()),
        synced => synced,
    }
}

/// Whether a sandbox lets this process call `syncfs`, asked once: the kernel refuses such a descriptor with `EBADF` before it writes anything.
fn has_syncfs(directory: impl AsFd) -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let refused = rustix::fs::openat(directory, ".", flags, Mode::empty())
            .and_then(|path| rustix::fs::syncfs(&path));
        !matches!(
            refused,
            Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP)
        )
    })
}

/// The version of the kernel; of one that cannot be read, none.
fn kernel() -> (u32, u32) {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
