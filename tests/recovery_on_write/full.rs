//! The primary's disk fills while several writers recover jobs: each call that fails has the disk's error, no job is
//! recovered by half, and with space the calls succeed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use rustix::fs::{AtFlags, CWD, FallocateFlags, Timespec, Timestamps};

use crate::common::{self, Folders, Workspace, run};
use crate::many::{hash, jobs, with_writers};
use crate::stage::{Beneath, TASK, archived, assert_clean, contents};

/// The bytes of a job's largest file.
const LARGE: usize = 400_000;

/// A disk for the primary.
#[derive(Debug, Clone, Copy)]
enum Disk {
    Tmpfs,
    Ext4,
}

/// The primary on a small disk of its own, which is taken away in the end.
struct Small<'a> {
    workspace: &'a Workspace,
}

impl<'a> Small<'a> {
    /// With a disk of so many MiB, of which `free` are free.
    fn new(workspace: &'a Workspace, disk: Disk, megabytes: u64, free: u64) -> Small<'a> {
        let mut command = Command::new("mount");
        let image = workspace.top().join("image");
        match disk {
            Disk::Tmpfs => {
                command.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "xpmfs"]);
            }
            Disk::Ext4 => {
                let file = File::create(&image).unwrap();
                file.set_len(megabytes << 20).unwrap();
                run(Command::new("mkfs.ext4")
                    .args(["-q", "-F", "-m", "0", "-O", "^has_journal"])
                    .arg(&image));
                command.args(["-o", "loop"]).arg(&image);
            }
        }
        run(command.arg(workspace.primary()));
        fs::create_dir_all(workspace.primary().join("jobs")).unwrap();
        let small = Small { workspace };
        let filler = File::create(small.filler()).unwrap();
        let there = rustix::fs::statvfs(workspace.primary()).unwrap();
        let filled = there.f_bavail * there.f_frsize - (free << 20);
        rustix::fs::fallocate(filler, FallocateFlags::empty(), 0, filled).unwrap();
        small
    }

    fn filler(&self) -> PathBuf {
        self.workspace.primary().join("filler")
    }

    /// Makes space for all jobs.
    fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let primary = self.workspace.primary();
        let _ = Command::new("umount").arg("-l").arg(primary).output();
    }
}

/// One change of a job, which can be made again if it has failed.
fn change(job: &Path, name: &str, kind: u64) -> io::Result<()> {
    match kind {
        0 => {
            let mut file = File::options().append(true).open(job.join("train.out"))?;
            file.write_all(format!("{name}\n").as_bytes())
        }
        1 => fs::create_dir(job.join(name)),
        2 => match fs::rename(job.join("uv.lock"), job.join("renamed")) {
            // Another writer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed,
        },
        3 => {
            let five = Timespec {
                tv_sec: 5,
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: five,
                last_modification: five,
            };
            rustix::fs::utimensat(CWD, job.join("model.bin"), &times, AtFlags::empty())?;
            Ok(())
        }
        _ => File::options()
            .write(true)
            .open(job.join("cut"))?
            .set_len(1),
    }
}

/// Asserts that a job is whole in the view, and returns whether it is recovered.
fn assert_whole(at: &Path, archive: &Path, beneath: &Path, number: usize) -> bool {
    let but = ["train.out", "uv.lock", "renamed", "cut"];
    let expected = contents(&archive.join(hash(number)), &but);
    let (there, shown) = (beneath.join(hash(number)), at.join(hash(number)));
    let is_recovered = there.symlink_metadata().is_ok_and(|stat| stat.is_dir());
    for job in [Some(&shown), is_recovered.then_some(&there)]
        .into_iter()
        .flatten()
    {
        let now = contents(job, &but);
        for line in &expected {
            assert!(now.contains(line), "{line} is not in {}", job.display());
        }
        let text = fs::read_to_string(job.join("train.out")).unwrap();
        assert!(text.starts_with("step 1\nstep 2\n"), "{text}");
    }
    is_recovered
}

#[test]
fn a_disk_that_fills_fails_writers_and_loses_nothing() {
    if !common::is_root() {
        return;
    }
    for disk in [Disk::Tmpfs, Disk::Ext4] {
        let workspace = Workspace::new();
        let jobs = jobs();
        // Each job has 0.4 MiB: there is room for a third of them.
        let size = jobs as u64 * 2;
        let primary = Small::new(&workspace, disk, size.max(32), size / 15);
        for number in 0..jobs {
            let job = archived(&workspace, common::FOLDERS[number % 3], &hash(number));
            fs::write(job.join("large"), vec![b'a'; LARGE]).unwrap();
            fs::write(job.join("cut"), "0123").unwrap();
        }
        let folders = Folders::of(&workspace);
        let beneath = Beneath::of(&workspace.primary());
        let elsewhere = workspace.mountpoint("elsewhere");
        let mounted = workspace.mount_at(&elsewhere);
        let failed = Mutex::new(Vec::new());
        let lines = Mutex::new(BTreeSet::new());
        let changed = |number: usize, name: &str, kind: u64| {
            change(&mounted.job(TASK, &hash(number)), name, kind).inspect(|()| {
                if kind == 0 {
                    lines.lock().unwrap().insert((number, name.to_owned()));
                }
            })
        };
        with_writers(jobs, 5, |(number, _), name, kind| {
            if let Err(error) = changed(number, name, kind) {
                assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{disk:?} {error}");
                failed.lock().unwrap().push((number, name.to_owned(), kind));
            }
        });
        let failed = failed.into_inner().unwrap();
        let archive = |number: usize| {
            let folder = workspace.folder(common::FOLDERS[number % 3]);
            folder.join("jobs").join(TASK)
        };
        let (shown, there) = (
            mounted.path().join("jobs").join(TASK),
            beneath.path().join("jobs").join(TASK),
        );
        let whole = |number: &usize| assert_whole(&shown, &archive(*number), &there, *number);
        let recovered = (0..jobs).filter(whole).count();
        assert!(
            recovered > 0 && recovered < jobs && !failed.is_empty(),
            "{disk:?}: {recovered} of {jobs} were recovered, {} calls failed",
            failed.len()
        );
        assert_clean(&beneath.path());
        folders.assert_unchanged();
        if common::soak() {
            let failed = failed.len();
            common::say(&format!(
                "{disk:?}: {recovered} of {jobs} jobs recovered, {failed} calls failed"
            ));
        }

        primary.free();
        for (number, name, kind) in failed {
            changed(number, &name, kind).unwrap();
        }
        assert!((0..jobs).all(|number| whole(&number)));
        for (number, line) in lines.lock().unwrap().iter() {
            let text = fs::read_to_string(there.join(hash(*number)).join("train.out")).unwrap();
            assert_eq!(text.matches(&format!("{line}\n")).count(), 1, "{text}");
        }
        assert_clean(&beneath.path());
        folders.assert_unchanged();
        mounted.unmount();
    }
}
