//! Makes written data durable before the copy is reported as complete.
//!
//! A copy of many small files is made durable by one `syncfs`, which costs one commit of the file system's journal
//! instead of one for each file. That is as good as `fsync` only where `syncfs` reports data that could not be written:
//!
//! - Since Linux 5.8, `syncfs` returns the first error of writing back any file of the file system since the descriptor
//!   was opened, once for each descriptor. So the descriptor must be older than the first write: [`Writeback::watch`]
//!   comes before the copy. An error in another process's file is reported too; the copy is then repeated, which is
//!   harmless.
//! - Network file systems, FUSE and overlays do not promise this: there, each file gets its `fsync`, by the descriptor
//!   that wrote it. An `fsync` through a descriptor that is opened later can miss an error, if the inode has left
//!   memory meanwhile.
//! - `syncfs` also writes the data of other processes, which may be much. So a copy of few files is made durable by
//!   `fsync`. Large files get `fsync` right after they are written, on any file system.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The file systems whose `syncfs` writes everything and reports errors (`statfs`' `f_type`).
const WHOLE: [u64; 7] = [
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683E, // btrfs
    0xF2F5_2010, // f2fs
    0xCA45_1A4E, // bcachefs
    0x2FC1_2FC1, // zfs
    0x0102_1994, // tmpfs
];

/// The first version of Linux whose `syncfs` reports errors.
const SYNCFS_REPORTS: (u32, u32) = (5, 8);

/// When a copy becomes durable.
#[derive(Debug, Clone, Copy, Default)]
pub enum Durability<'a> {
    /// Before the copy returns.
    #[default]
    Now,
    /// After [`Writeback::sync`], so that several copies share the cost. All copies that share it must be on one file
    /// system.
    Together(&'a Writeback),
}

/// Makes all later writes to a file system durable.
#[derive(Debug)]
pub struct Writeback {
    fd: OwnedFd,
    whole: bool,
}

impl Writeback {
    /// Starts to watch the file system of a directory. Call this before the first write.
    ///
    /// # Errors
    ///
    /// As `openat` and `fstatfs`; the directory must be readable.
    pub fn watch(directory: impl AsFd) -> io::Result<Writeback> {
        let directory = directory.as_fd();
        // Opened anew, not duplicated: errors are counted from the opening on. Not O_PATH, which syncfs refuses.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
        // The type of this field differs between architectures.
        #[allow(clippy::unnecessary_cast)]
        let kind = rustix::fs::fstatfs(&fd)?.f_type as u64 & 0xFFFF_FFFF;
        Ok(Writeback {
            fd,
            whole: WHOLE.contains(&kind) && kernel() >= SYNCFS_REPORTS && has_syncfs(directory),
        })
    }

    /// Waits until all written data is on the disk.
    ///
    /// # Errors
    ///
    /// An error of writing by any process since the watch began: `EIO`, `ENOSPC`, `EDQUOT`. Then no file that was
    /// copied is reliable.
    pub fn sync(&self) -> io::Result<()> {
        if self.whole {
            rustix::fs::syncfs(&self.fd)?;
        }
        Ok(())
    }

    /// Whether one call makes everything durable; if not, each file and directory must be synced.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }
}

/// Makes the names in a directory durable. The descriptor must be open for reading.
///
/// # Errors
///
/// As `fsync`. A file system that cannot sync one directory (CIFS, some of FUSE) is synced as a whole.
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

/// Whether a sandbox lets this process call `syncfs`. Checked once, with an `O_PATH` descriptor, which the kernel
/// refuses with `EBADF` before it writes anything.
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

/// The version of the kernel; 0.0 if it cannot be read.
fn kernel() -> (u32, u32) {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
