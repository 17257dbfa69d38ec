//! Files are removed from archived jobs on a full disk: a removal that is reported as done stays done, and one that fails says so.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;

use crate::common::{Workspace, eventually, is_root, run, say};
use crate::mounted::hash;
use crate::scratch::{Random, write_job};

/// The bytes of each job's largest file.
const LARGE: usize = 400_000;

/// What is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    Ext4,
    Ext4WithoutJournal,
    /// Its bytes.
    Tmpfs,
    /// Its inodes.
    TmpfsInodes,
}

/// What is done to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    RemoveLarge,
    /// This frees no block.
    RemoveEmpty,
    RemoveDirectory,
    RenameAway,
    RenameOver,
    /// A file that no copy has.
    RemoveNew,
    RenameNew,
    /// Of a job that no folder has.
    RemoveUnarchived,
}
use Operation::{
    RemoveDirectory, RemoveEmpty, RemoveLarge, RemoveNew, RemoveUnarchived, RenameAway, RenameNew,
    RenameOver,
};

const ALL: [Operation; 8] = [
    RemoveEmpty,
    RemoveLarge,
    RemoveDirectory,
    RenameAway,
    RenameOver,
    RemoveNew,
    RenameNew,
    RemoveUnarchived,
];

impl Operation {
    /// A job of its own, whose task is another than those of the others: their records are in another directory.
    fn job(self) -> PathBuf {
        let task = format!("{self:?}.train").to_lowercase();
        Path::new("jobs").join(task).join(hash(0))
    }

    /// The entry that is removed or renamed.
    fn name(self) -> &'static str {
        match self {
            RemoveLarge | RenameAway | RenameOver => "large",
            RemoveEmpty => "none",
            RemoveDirectory => "empty",
            RemoveNew | RenameNew => "new",
            RemoveUnarchived => "large",
        }
    }

    fn run(self, top: &Path) -> io::Result<()> {
        let job = top.join(self.job());
        let path = job.join(self.name());
        match self {
            RemoveDirectory => fs::remove_dir(path),
            RenameAway => fs::rename(path, top.join("away")),
            RenameOver => fs::rename(path, job.join("train.out")),
            RenameNew => fs::rename(path, job.join("newer")),
            _ => fs::remove_file(path),
        }
    }
}

/// A small disk in place of the primary, until it is dropped.
struct Small(PathBuf);

impl Small {
    fn mount(workspace: &Workspace, disk: Disk) -> Small {
        let primary = workspace.primary();
        let mut mount = Command::new("mount");
        match disk {
            Disk::Tmpfs => drop(mount.args(["-t", "tmpfs", "-o", "size=16m", "xpmfs"])),
            Disk::TmpfsInodes => drop(mount.args(["-t", "tmpfs", "-o", "nr_inodes=300", "xpmfs"])),
            Disk::Ext4 | Disk::Ext4WithoutJournal => {
                let image = workspace.top().join("image");
                File::create(&image).unwrap().set_len(32 << 20).unwrap();
                let mut make = Command::new("mkfs.ext4");
                make.args(["-q", "-F", "-m", "0"]);
                if disk == Disk::Ext4WithoutJournal {
                    make.args(["-O", "^has_journal"]);
                }
                run(make.arg(&image));
                mount.args(["-o", "loop"]).arg(&image);
            }
        }
        run(mount.arg(&primary));
        fs::create_dir(primary.join("jobs")).unwrap();
        Small(primary)
    }

    /// Fills it, up to the last block and the last inode that a file needs.
    fn fill(&self, disk: Disk) {
        let filler = self.0.join("filler");
        if disk == Disk::TmpfsInodes {
            fs::create_dir_all(&filler).unwrap_or_default();
            let mut names = 0..;
            while File::create_new(filler.join(names.next().unwrap().to_string())).map_or_else(
                |error| error.kind() == io::ErrorKind::AlreadyExists,
                |_| true,
            ) {}
            return;
        }
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(filler)
            .unwrap();
        for size in [1 << 20, 4096, 512, 1] {
            while file
                .write_all(&vec![1; size])
                .and_then(|()| file.sync_data())
                .is_ok()
            {}
        }
    }

    fn empty(&self) {
        let filler = self.0.join("filler");
        fs::remove_file(&filler)
            .or_else(|_| fs::remove_dir_all(&filler))
            .unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn removals_on_a_full_disk_are_what_is_reported(disk: Disk) {
    if !is_root() {
        return say("SKIPPED: only root mounts small disks");
    }
    let workspace = Workspace::builder()
        .folders(&["backup"])
        .keys("{settle: 0s, scan_interval: 1h}")
        .build();
    let small = Small::mount(&workspace, disk);
    let primary = workspace.primary();
    let mut random = Random(97);
    let write = |operation: Operation, random: &mut Random| {
        let job = primary.join(operation.job());
        write_job(&job, random);
        fs::write(job.join("large"), vec![7; LARGE]).unwrap();
        fs::write(job.join("none"), "").unwrap();
    };
    let (unarchived, archived): (Vec<_>, Vec<_>) =
        ALL.into_iter().partition(|it| *it == RemoveUnarchived);
    for operation in archived {
        write(operation, &mut random);
    }
    run(workspace
        .xpmfs()
        .args(["jobs", "archive", "-w", "test", "--all"]));
    for operation in unarchived {
        write(operation, &mut random);
    }
    for operation in [RemoveNew, RenameNew] {
        fs::write(primary.join(operation.job()).join("new"), "mine").unwrap();
    }

    let mountpoint = workspace.mountpoint("elsewhere");
    let mounted = workspace.mount_at(&mountpoint);
    let done = ALL.map(|operation| {
        small.fill(disk);
        let result = operation.run(&mountpoint);
        say(&format!("{disk:?}: {operation:?}: {result:?}"));
        let path = mountpoint.join(operation.job()).join(operation.name());
        match &result {
            Ok(()) => assert!(!path.exists(), "{operation:?}: it is there"),
            Err(error) => {
                let errno = Errno::from_io_error(error);
                assert_eq!(errno, Some(Errno::NOSPC), "{operation:?}: {error}");
                eventually("it is there", || path.exists());
            }
        }
        (operation, result.is_ok())
    });
    mounted.unmount();
    small.empty();
    // What is in memory is forgotten.
    let _mounted = workspace.mount_at(&mountpoint);
    for (operation, is_done) in done {
        let path = mountpoint.join(operation.job()).join(operation.name());
        assert_eq!(!path.exists(), is_done, "{disk:?}: {operation:?}");
    }

    let failed = done.iter().filter(|(_, is_done)| !is_done);
    let failed: Vec<Operation> = failed.map(|(operation, _)| *operation).collect();
    match disk {
        // The record needs a block, for its directory. What was removed before may have left one a moment later.
        Disk::Ext4 | Disk::Ext4WithoutJournal => {
            assert!(failed.contains(&RemoveEmpty), "{failed:?}");
            let may_fail = [RemoveEmpty, RenameAway, RenameOver];
            assert!(failed.iter().all(|it| may_fail.contains(it)), "{failed:?}");
        }
        Disk::Tmpfs => assert_eq!(failed, []),
        // The record needs more inodes than one.
        Disk::TmpfsInodes => {
            for fine in [RemoveDirectory, RemoveNew, RenameNew, RemoveUnarchived] {
                assert!(!failed.contains(&fine), "{fine:?}");
            }
        }
    }
}

#[test]
fn removals_on_a_full_ext4_are_what_is_reported() {
    removals_on_a_full_disk_are_what_is_reported(Disk::Ext4);
}

#[test]
fn removals_on_a_full_ext4_without_a_journal_are_what_is_reported() {
    removals_on_a_full_disk_are_what_is_reported(Disk::Ext4WithoutJournal);
}

#[test]
fn removals_on_a_full_tmpfs_are_what_is_reported() {
    removals_on_a_full_disk_are_what_is_reported(Disk::Tmpfs);
}

#[test]
fn removals_on_a_tmpfs_without_inodes_are_what_is_reported() {
    removals_on_a_full_disk_are_what_is_reported(Disk::TmpfsInodes);
}
