//! Converts attributes and errors of the disk to what the kernel expects.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo};
use rustix::fs::{Statx, StatxTimestamp};
use rustix::io::Errno;

use crate::sys::namespaces::{known_group, known_user};

/// Returns the attributes of a file, with the inode number to show.
pub(super) fn attributes(stat: &Statx, inode: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(inode),
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        atime: time(stat.stx_atime),
        mtime: time(stat.stx_mtime),
        ctime: time(stat.stx_ctime),
        crtime: time(stat.stx_btime),
        kind: kind(stat.stx_mode.into()),
        perm: stat.stx_mode & 0o7777,
        nlink: stat.stx_nlink,
        // The kernel lets no process change a file whose owner or group the mount's user namespace lacks (`HAS_UNMAPPED_ID`). Who may change
        // it is decided by the disk, which knows both, and all groups of the caller.
        uid: known_user(stat.stx_uid),
        gid: known_group(stat.stx_gid),
        // The kernel's 32-bit form; the same as the lower half of glibc's.
        rdev: rustix::fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor) as u32,
        blksize: stat.stx_blksize,
        flags: 0,
    }
}

/// Returns placeholder attributes of a file that could not be examined.
pub(super) fn unknown(inode: u64, kind: rustix::fs::FileType) -> FileAttr {
    let never = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(inode),
        size: 0,
        blocks: 0,
        atime: never,
        mtime: never,
        ctime: never,
        crtime: never,
        kind: self::kind(kind.as_raw_mode()),
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Returns the file type of a mode.
pub(super) fn kind(mode: u32) -> FileType {
    use rustix::fs::FileType as Kind;
    match Kind::from_raw_mode(mode) {
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharacterDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::RegularFile | Kind::Unknown => FileType::RegularFile,
    }
}

/// Returns an error as fuser expects it.
pub(super) fn errno(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.raw_os_error())
}

/// Converts a time stamp, which may lie before 1970.
fn time(stamp: StatxTimestamp) -> SystemTime {
    let nanoseconds = Duration::from_nanos(stamp.tv_nsec.into());
    let seconds = Duration::from_secs(stamp.tv_sec.unsigned_abs());
    let whole = if stamp.tv_sec >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    };
    whole
        .and_then(|whole| whole.checked_add(nanoseconds))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_nanoseconds() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let before = SystemTime::UNIX_EPOCH - Duration::new(5, 250_000_000);
        path.as_file().set_modified(before).unwrap();
        let stat = crate::sys::at::stat_fd(path.as_file()).unwrap();
        assert_eq!(attributes(&stat, 7).mtime, before);
    }
}
