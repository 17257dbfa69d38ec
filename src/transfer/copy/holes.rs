//! Finds the data of a file: by its file system's report, if reliable, or by reading all of it.
//!
//! A wrong `SEEK_DATA` (OpenZFS has reported data that was just written as a hole) would replace data by zeros without
//! reading it. So only file systems that are known to be right are asked, and believed only if they report at least as
//! much data as the file has blocks. All other files are read completely. Blocks hold more than data (attributes,
//! preallocated space): such a file is read without need, which costs no more than hashing its holes.

use std::os::fd::BorrowedFd;

use parking_lot::Mutex;
use rustix::fs::SeekFrom::{Data, Hole};
use rustix::fs::Statx;
use rustix::io::Errno;

use crate::transfer::error::{Context, Failure};

/// The file systems whose `SEEK_DATA` is believed (`statfs`' `f_type`).
const BELIEVED: [u64; 4] = [
    0xEF53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683E, // btrfs
    0x0102_1994, // tmpfs
];

/// The unit of `stx_blocks`, on every disk.
const BLOCK: u64 = 512;

/// How the data of a file is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holes {
    /// The file has no holes.
    None,
    /// By the report of the file system: so many bytes of data.
    Known(u64),
    /// By reading all of the file; zeros become holes.
    Unknown,
}

/// Which file systems are believed, by the devices of the files seen so far.
#[derive(Debug, Default)]
pub(super) struct Believed(Mutex<Vec<((u32, u32), bool)>>);

impl Believed {
    fn contains(&self, file: BorrowedFd<'_>, stat: &Statx) -> Result<bool, Failure> {
        let device = (stat.stx_dev_major, stat.stx_dev_minor);
        let known = self
            .0
            .lock()
            .iter()
            .find(|(known, _)| *known == device)
            .copied();
        if let Some((_, believed)) = known {
            return Ok(believed);
        }
        let kind = rustix::fs::fstatfs(file).source("look at the file system of")?;
        // The type of this field differs between architectures.
        #[allow(clippy::unnecessary_cast)]
        let kind = kind.f_type as u64 & 0xFFFF_FFFF;
        let believed = BELIEVED.contains(&kind);
        self.0.lock().push((device, believed));
        Ok(believed)
    }
}

impl Holes {
    /// For a file with these attributes, which must have been read after it was opened.
    pub(super) fn of(
        file: BorrowedFd<'_>,
        stat: &Statx,
        believed: &Believed,
    ) -> Result<Holes, Failure> {
        if stat.stx_size == 0 {
            return Ok(Holes::None);
        }
        let allocated = stat.stx_blocks.saturating_mul(BLOCK);
        if !believed.contains(file, stat)? {
            return Ok(match allocated < stat.stx_size {
                true => Holes::Unknown,
                false => Holes::None,
            });
        }
        let unit = u64::from(stat.stx_blksize).max(1);
        let (mut offset, mut data, mut whole) = (0, 0, 0_u64);
        while let Some((start, end)) = next(file, offset, stat.stx_size)? {
            data += end - start;
            // The last block of a file counts as a whole.
            let blocks = end.next_multiple_of(unit) - (start - start % unit);
            whole = whole.saturating_add(blocks);
            offset = end;
        }
        Ok(match (data == stat.stx_size, whole < allocated) {
            (true, _) => Holes::None,
            (false, true) => Holes::Unknown,
            (false, false) => Holes::Known(data),
        })
    }

    /// The next part of a file to read, from an offset on; `None` at the end.
    pub(super) fn next(
        self,
        file: BorrowedFd<'_>,
        offset: u64,
        size: u64,
    ) -> Result<Option<(u64, u64)>, Failure> {
        match self {
            Holes::Known(_) => next(file, offset, size),
            Holes::None | Holes::Unknown => Ok((offset < size).then_some((offset, size))),
        }
    }
}

/// The next part of a file that has data, as its file system reports.
fn next(file: BorrowedFd<'_>, offset: u64, size: u64) -> Result<Option<(u64, u64)>, Failure> {
    if offset >= size {
        return Ok(None);
    }
    let data = match rustix::fs::seek(file, Data(offset)) {
        Ok(data) => data.max(offset),
        Err(Errno::NXIO) => size,
        // The file system does not report its data: the whole rest is read.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((offset, size))),
        Err(errno) => return Err(errno).source("look for holes in"),
    };
    if data >= size {
        return Ok(None);
    }
    match rustix::fs::seek(file, Hole(data)) {
        Ok(hole) if hole > data => Ok(Some((data, hole.min(size)))),
        Ok(_) | Err(Errno::NXIO) => Err(Failure::Changed("its size is different")),
        Err(errno) => Err(errno).source("look for holes in"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::sys::at;

    fn sparse() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&[1; 4096], 512 << 10).unwrap();
        file
    }

    fn of(file: &File, stat: &Statx) -> Holes {
        Holes::of(file.as_fd(), stat, &Believed::default()).unwrap()
    }

    #[test]
    fn a_file_system_that_is_known_is_asked() {
        let file = sparse();
        let size = 1 << 20;
        let holes = of(&file, &at::stat_fd(&file).unwrap());
        assert_eq!(holes, Holes::Known(4096));
        let part = (512 << 10, (512 << 10) + 4096);
        assert_eq!(holes.next(file.as_fd(), 0, size).unwrap(), Some(part));
        assert_eq!(holes.next(file.as_fd(), part.1, size).unwrap(), None);
        file.write_all_at(&vec![0; 1 << 20], 0).unwrap();
        assert_eq!(of(&file, &at::stat_fd(&file).unwrap()), Holes::None);
    }

    #[test]
    fn one_that_admits_less_data_than_the_file_has_blocks_is_not_believed() {
        let file = sparse();
        let mut stat = at::stat_fd(&file).unwrap();
        stat.stx_blocks += 8;
        let holes = of(&file, &stat);
        assert_eq!(holes, Holes::Unknown);
        let all = holes.next(file.as_fd(), 0, 1 << 20).unwrap();
        assert_eq!(all, Some((0, 1 << 20)));
    }

    #[test]
    fn one_that_is_not_known_is_not_asked() {
        let file = sparse();
        let mut stat = at::stat_fd(&file).unwrap();
        let believed = Believed::default();
        let device = (stat.stx_dev_major, stat.stx_dev_minor);
        believed.0.lock().push((device, false));
        let holes = |stat: &Statx| Holes::of(file.as_fd(), stat, &believed).unwrap();
        assert_eq!(holes(&stat), Holes::Unknown);
        stat.stx_blocks = (1 << 20) / BLOCK;
        assert_eq!(holes(&stat), Holes::None);
    }
}
