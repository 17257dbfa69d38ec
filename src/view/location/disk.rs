//! Recognizes the disk on which a folder lies, so that the jobs in the mount point of a disk that is away are not mistaken for the folder's.
//!
//! Device numbers change when a disk is mounted again. So a folder is compared by its file system (kind and id) and by its directory (inode
//! and time of birth), and counts as another one only if neither is the same and the file systems are known to differ.

use std::fmt;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::io::Result;

use super::Location;
use crate::sys::at;
use crate::workspace::layout::{ARCHIVE, XPMFS};

/// The directory of the records about folders, in `.xpmfs/archive`.
pub(in crate::view) const KNOWN: &str = "known";

/// The file in it that says on which disk a folder lies. No task has this name.
pub(in crate::view) const DISK: &str = ".disk";

/// The first word of that file.
const HEAD: &str = "xpmfs-disk-1";

/// The directory of the records about a folder, from the top of the primary.
pub(in crate::view) fn known_dir(folder: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let name = blake3::hash(folder.as_os_str().as_bytes()).to_hex();
    [XPMFS, ARCHIVE, KNOWN, name.as_str()].iter().collect()
}

/// The disk on which a folder lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::view) struct Disk {
    /// The kind of its file system (statfs(2)).
    kind: u64,
    /// The id of its file system, 0 if it has none.
    id: u64,
    inode: u64,
    /// When the directory was made, 0 if unknown.
    birth: (i64, u32),
}

impl Disk {
    pub(in crate::view) fn of(directory: impl AsFd) -> Result<Disk> {
        let file_system = rustix::fs::fstatfs(&directory)?;
        let id = rustix::fs::fstatvfs(&directory)?.f_fsid;
        let stat = at::stat_fd(&directory)?;
        Ok(Disk {
            kind: u64::from(file_system.f_type as u32),
            id,
            inode: stat.stx_ino,
            birth: (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
        })
    }

    /// Reads what its `to_string` has written.
    pub(super) fn parse(text: &str) -> Option<Disk> {
        let mut words = text.strip_prefix(HEAD)?.split_whitespace();
        Some(Disk {
            kind: words.next()?.parse().ok()?,
            id: words.next()?.parse().ok()?,
            inode: words.next()?.parse().ok()?,
            birth: (words.next()?.parse().ok()?, words.next()?.parse().ok()?),
        })
    }

    /// Whether it is known to be another disk.
    pub(super) fn is_other(&self, recorded: &Disk) -> bool {
        let same_directory =
            self.birth != (0, 0) && (self.inode, self.birth) == (recorded.inode, recorded.birth);
        let same_kind = self.kind == recorded.kind;
        let same_id = self.id == recorded.id;
        let known = self.id != 0 && recorded.id != 0;
        !same_directory && (!same_kind || known && !same_id)
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Disk {
            kind,
            id,
            inode,
            birth: (seconds, nanoseconds),
        } = self;
        writeln!(f, "{HEAD} {kind} {id} {inode} {seconds} {nanoseconds}")
    }
}

impl Location {
    /// What to do about a folder on another disk.
    pub(super) fn other_disk(&self) -> String {
        let record = self.disk_record();
        let record = self.primary.as_ref().map_or(record.clone(), |primary| {
            let jobs = primary.jobs_paths().first();
            let top = jobs.and_then(|jobs| jobs.parent());
            top.map_or(record.clone(), |top| top.join(&record))
        });
        format!(
            "it lies on another disk than before, whose jobs are not used: check that its own disk is mounted; if this is its disk now, remove {}",
            record.display()
        )
    }

    /// The file that records on which disk it lies.
    pub(super) fn disk_record(&self) -> PathBuf {
        known_dir(&self.path).join(DISK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_disk_is_one_that_is_known_to_be() {
        let disk = Disk {
            kind: 1,
            id: 7,
            inode: 2,
            birth: (5, 5),
        };
        assert_eq!(Disk::parse(&disk.to_string()), Some(disk));
        assert!(!disk.is_other(&disk));
        // Mounted again under another device number, restored, or without ids.
        assert!(!Disk { id: 8, ..disk }.is_other(&disk));
        assert!(!Disk { inode: 3, ..disk }.is_other(&disk));
        let unknown = Disk {
            id: 0,
            inode: 3,
            ..disk
        };
        assert!(!unknown.is_other(&disk) && !disk.is_other(&unknown));
        assert!(
            Disk {
                id: 8,
                inode: 3,
                ..disk
            }
            .is_other(&disk)
        );
        assert!(
            Disk {
                kind: 2,
                inode: 3,
                ..disk
            }
            .is_other(&disk)
        );
        let unborn = Disk {
            birth: (0, 0),
            ..disk
        };
        assert!(Disk { kind: 2, ..unborn }.is_other(&unborn));
    }
}
