//! Identifies files and directories, independent of their names.

use rustix::fs::Statx;

/// The identity of an object of a file system: device, inode, and time of birth, since inode numbers are reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
// One is kept per node of a mount, so no byte is spent on alignment.
#[repr(Rust, packed(4))]
pub struct FileId {
    inode: u64,
    birth: u64,
    device: u32,
}

impl FileId {
    /// The identity of an object whose attributes could not be read. Differs from every real one.
    pub const UNKNOWN: FileId = FileId {
        device: u32::MAX,
        inode: u64::MAX,
        birth: u64::MAX,
    };

    /// The identity in the attributes that `statx` returns for `STATX_INO | STATX_BTIME`.
    #[must_use]
    pub fn of(stat: &Statx) -> FileId {
        FileId {
            device: device(stat),
            inode: stat.stx_ino,
            birth: birth(stat),
        }
    }

    /// The device number as the kernel keeps it.
    #[must_use]
    pub fn device(&self) -> u32 {
        self.device
    }

    /// The inode number, unique on one device at a time.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// The time of birth in nanoseconds; 0 where the file system does not keep it.
    #[must_use]
    pub fn birth(&self) -> u64 {
        self.birth
    }

    /// The identity with these numbers.
    #[must_use]
    pub fn new(device: u32, inode: u64, birth: u64) -> FileId {
        FileId {
            inode,
            birth,
            device,
        }
    }
}

/// 12 bits of major and 20 bits of minor (`MINORBITS` in the kernel's `kdev_t.h`).
fn device(stat: &Statx) -> u32 {
    stat.stx_dev_major << 20 | stat.stx_dev_minor
}

fn birth(stat: &Statx) -> u64 {
    let seconds = stat.stx_btime.tv_sec.unsigned_abs();
    seconds
        .wrapping_mul(1_000_000_000)
        .wrapping_add(stat.stx_btime.tv_nsec.into())
}
