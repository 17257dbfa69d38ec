//! Recognizes the disk on which a folder lies, so that the jobs in the mount point of a disk that is away are not mistaken for the folder's.
//!
//! Device numbers change when a disk is mounted again. So a folder is compared by its file system (kind and id) and by its directory (inode
//! and time of birth), and counts as another one only if neither is the same and the file systems are known to differ.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Result;

use super::Location;
use super::root::Root;
use crate::sys::at;
use crate::workspace::layout::{ARCHIVE, XPMFS, folder_name};

/// The directory of the records about folders, in `.xpmfs/archive`.
pub(in crate::view) const KNOWN: &str = "known";

/// The file in it that says on which disk a folder lies. No task has this name.
pub(in crate::view) const DISK: &str = ".disk";

/// The first word of that file.
const HEAD: &str = "xpmfs-disk-1";

/// The most bytes of that file.
const DISK_RECORD_MAX: u64 = 512;

/// The directory of the records about a folder, from the top of the primary.
pub(in crate::view) fn known_dir(folder: &Path) -> PathBuf {
    let name = folder_name(folder);
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

    /// Whether it is the directory that is recorded, as far as its file system shows.
    fn is_same(&self, recorded: &Disk) -> bool {
        // A file server sees another kind of file system than its clients.
        let same_kind = self.kind == recorded.kind || self.birth != (0, 0);
        same_kind && (self.inode, self.birth) == (recorded.inode, recorded.birth)
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
        format!(
            "it lies on another disk than before, whose jobs are not used: check that its own disk is mounted; if this is its disk now, remove {}",
            self.disk_record_path().display()
        )
    }

    /// The path of the record of its disk, for messages.
    fn disk_record_path(&self) -> PathBuf {
        let record = self.disk_record();
        let jobs = self.primary.as_ref().and_then(|it| it.jobs_paths().first());
        match jobs.and_then(|jobs| jobs.parent()) {
            Some(top) => top.join(record),
            None => record,
        }
    }

    /// Whether its open directory is the one that is recorded, and not another one that took its place; `None` if none is recorded.
    pub fn is_same_directory(&self, root: &Root) -> Option<bool> {
        let recorded = self.recorded_disk()?;
        Some(Disk::of(root.fd()).is_ok_and(|now| now.is_same(&recorded)))
    }

    /// Whether it had jobs when a mount last looked for its disk.
    pub fn is_recorded(&self) -> bool {
        self.recorded_disk().is_some()
    }

    /// What to do about a deletion that cannot be completed, since another directory is in the place of the one that had the job.
    pub fn replaced(&self) -> String {
        format!(
            "it is another directory than before, and lacks the copy: bring the old one back; if this one replaces it, remove {}",
            self.disk_record_path().display()
        )
    }

    /// The disk that is recorded, if any.
    pub(super) fn recorded_disk(&self) -> Option<Disk> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let primary = self.primary.as_ref()?;
        let file = at::open_below(primary.fd(), &self.disk_record(), flags).ok()?;
        let mut text = String::new();
        let mut file = File::from(file).take(DISK_RECORD_MAX);
        file.read_to_string(&mut text).ok()?;
        Disk::parse(&text)
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
        assert!(disk.is_same(&Disk { id: 8, ..disk }) && !disk.is_same(&Disk { inode: 3, ..disk }));
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
