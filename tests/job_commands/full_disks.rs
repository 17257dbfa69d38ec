//! Disks that are full or read-only: the command says so, and archives once there is space.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::{is_root, run, say};
use crate::stage::{Stage, TASK, assert_tree, leftovers, run_again, said, whole, write_job};

/// A small disk in place of a folder, with this much space, taken away when it is dropped.
pub(crate) struct Disk(std::path::PathBuf);

impl Disk {
    pub(crate) fn memory(folder: &Path, options: &str) -> Disk {
        let mut mount = Command::new("mount");
        run(mount
            .args(["-t", "tmpfs", "-o", options, "xpmfs-test"])
            .arg(folder));
        Disk(folder.to_owned())
    }

    fn ext4(image: &Path, folder: &Path) -> Disk {
        run(Command::new("truncate").args(["-s", "16M"]).arg(image));
        run(Command::new("mkfs.ext4")
            .args(["-q", "-m", "0", "-O", "^has_journal"])
            .arg(image));
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(image)
            .arg(folder));
        Disk(folder.to_owned())
    }

    pub(crate) fn again(&self, options: &str) {
        let mut mount = Command::new("mount");
        run(mount
            .arg("-o")
            .arg(format!("remount,{options}"))
            .arg(&self.0));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// `jobs archive --all`, which must fail with status 1 and say these.
pub(crate) fn archive_fails(stage: &Stage, says: &[&str]) -> Output {
    let output = stage.jobs(&["archive", "--all"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    for say in says {
        assert!(
            said(&output).contains(say),
            "{say} is not in {}",
            said(&output)
        );
    }
    output
}

/// Archives to a full disk, then to one with a little more space each time; gives how often that failed.
fn until_it_fits(stage: &Stage, mode: &str, mut more: impl FnMut()) -> usize {
    let job = whole(&stage.job()).unwrap();
    let before = whole(&stage.archived(mode));
    let folder = stage.folder(mode);
    for failed in 0..200 {
        let output = stage.jobs(&["archive", "--all"]);
        let found = whole(&stage.job());
        assert_tree("the primary's job", &job, found.as_ref());
        let archived = whole(&stage.archived(mode));
        if output.status.success() {
            assert_tree("the copy", &job, archived.as_ref());
            stage.verify();
            stage.assert_clean();
            return failed;
        }
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let text = said(&output);
        assert!(text.to_lowercase().contains("no space"), "{text}");
        assert!(text.contains(folder.to_str().unwrap()), "{text}");
        assert!(text.contains("make room there and try again"), "{text}");
        if archived != before {
            // It may be there already, and only what is written about it not.
            assert_tree("the copy", &job, archived.as_ref());
        }
        // What was copied in vain does not take space away.
        assert_eq!(leftovers(&folder), [] as [std::path::PathBuf; 0], "{text}");
        more();
    }
    panic!("it never fits");
}

#[test]
fn a_full_disk_is_told_of_and_archived_to_when_there_is_space() {
    if !is_root() {
        return;
    }
    for (mode, older) in [
        ("backup", false),
        ("backup", true),
        ("move", false),
        ("move", true),
    ] {
        let stage = Stage::new(&[if mode == "move" { "move" } else { "backup" }]);
        let disk = Disk::memory(&stage.folder(mode), "size=4m");
        write_job(&stage.job());
        if older {
            let other = Stage::new(&["backup"]);
            super::stage::duplicate(&stage.primary(), &other.primary());
            other.archive();
            super::stage::duplicate(&other.folder("backup"), &stage.folder(mode));
            run_again(&stage.job());
        }
        // Down to nothing, then a page more at a time: bytes, then inodes.
        let ballast = disk.0.join("ballast");
        let fill = |bytes: u64| fs::write(&ballast, vec![1; usize::try_from(bytes).unwrap()]);
        let space = || {
            let space = rustix::fs::statvfs(&disk.0).unwrap();
            space.f_bavail * space.f_frsize
        };
        let mut size = space();
        fill(size).unwrap();
        let failed = until_it_fits(&stage, mode, || {
            size -= 2 * 4096;
            fs::OpenOptions::new()
                .write(true)
                .open(&ballast)
                .unwrap()
                .set_len(size)
                .unwrap();
        });
        assert!(failed > 2, "{mode}, {older}: {failed}");
        say(&format!("{mode}, {older}: full {failed} times"));
    }
    let stage = Stage::new(&["backup"]);
    let disk = Disk::memory(&stage.folder("backup"), "nr_inodes=4");
    write_job(&stage.job());
    let mut inodes = 4;
    let failed = until_it_fits(&stage, "backup", || {
        inodes += 1;
        disk.again(&format!("nr_inodes={inodes}"));
    });
    assert!(failed > 8, "{failed}");
}

#[test]
fn a_full_disk_of_ext4_is_told_of_and_archived_to_when_there_is_space() {
    if !is_root() {
        return;
    }
    let stage = Stage::new(&["backup"]);
    let disk = Disk::ext4(&stage.top().join("image"), &stage.folder("backup"));
    write_job(&stage.job());
    let ballast = |number: usize| disk.0.join(format!("ballast-{number}"));
    // Until nothing more can be written, to the last block.
    let mut pieces = 0;
    for bytes in [1 << 20, 64 << 10, 4096, 1024] {
        while fs::write(ballast(pieces), vec![1; bytes]).is_ok() {
            pieces += 1;
        }
        fs::remove_file(ballast(pieces)).unwrap();
    }
    let failed = until_it_fits(&stage, "backup", || {
        pieces -= 1;
        fs::remove_file(ballast(pieces)).unwrap();
    });
    assert!(failed > 2, "{failed}");
}

/// The bytes of each of [`large_jobs`], without what names take.
const LARGE: usize = 1 << 20;

/// Finished jobs of equal size, which are copied so slowly that all copies begin before one ends; gives their paths.
fn large_jobs(stage: &Stage, count: usize) -> Vec<PathBuf> {
    let keys = "{settle: 0s, bandwidth: 2M}";
    stage.workspace().write_settings(stage.modes(), Some(keys));
    let hashes = crate::others::small_jobs(stage, count);
    let task = stage.primary().join("jobs").join(TASK);
    let jobs = hashes.iter().map(|hash| task.join(hash));
    jobs.inspect(|job| fs::write(job.join("data/large"), vec![b'a'; LARGE]).unwrap())
        .collect()
}

/// Asserts that of eight jobs as many have been copied as fit, and that the others were refused before anything was written.
fn assert_fits(stage: &Stage, place: &Path, output: &Output, fit: usize) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let jobs = crate::common::names(&place.join("jobs").join(TASK));
    let copied = jobs.iter().filter(|name| name.len() == 64).count();
    assert_eq!(copied, fit, "{text}");
    assert!(text.contains("no space: "), "{text}");
    assert!(text.contains(&format!("{} failed", 8 - fit)), "{text}");
    assert!(text.contains("make room there and try again"), "{text}");
    assert!(!text.contains("No space left on device"), "{text}");
    stage.assert_clean();
}

#[test]
fn copies_that_run_together_do_not_count_on_the_same_space() {
    if !is_root() {
        return;
    }
    for (mode, memory) in [("backup", true), ("move", true), ("backup", false)] {
        let stage = Stage::new(if mode == "move" {
            &["move"]
        } else {
            &["backup"]
        });
        large_jobs(&stage, 8);
        let folder = stage.folder(mode);
        let disk = match memory {
            true => Disk::memory(&folder, "size=16m"),
            false => Disk::ext4(&stage.top().join("image"), &folder),
        };
        // For two jobs, and a half of one.
        let ballast = fs::File::create(disk.0.join("ballast")).unwrap();
        let space = rustix::fs::statvfs(&disk.0).unwrap();
        let size = space.f_bavail * space.f_frsize - (LARGE * 5 / 2) as u64;
        rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, size).unwrap();
        let output = stage.jobs(&["archive", "--all"]);
        assert_fits(&stage, &folder, &output, 2);
        drop(ballast);
        fs::remove_file(disk.0.join("ballast")).unwrap();
        stage.settle("0s");
        stage.archive();
        stage.verify_all();
    }
}

#[test]
fn recoveries_that_run_together_do_not_count_on_the_same_space() {
    if !is_root() {
        return;
    }
    let stage = Stage::new(&["backup"]);
    let jobs = large_jobs(&stage, 8);
    let slow = fs::read(stage.settings()).unwrap();
    stage.settle("0s");
    stage.archive();
    fs::write(stage.settings(), slow).unwrap();
    for job in jobs {
        fs::remove_dir_all(job).unwrap();
    }
    let kilobytes = LARGE * 5 / 2 / 1024;
    let disk = Disk::memory(&stage.primary(), &format!("size={kilobytes}k"));
    fs::create_dir(stage.primary().join("jobs")).unwrap();
    let output = stage.jobs(&["recover", "--all"]);
    assert_fits(&stage, &stage.primary(), &output, 2);
    disk.again("size=64m");
    let output = stage.jobs(&["recover", "--all"]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_disk_that_is_read_only_is_told_of() {
    if !is_root() {
        return;
    }
    for mode in ["backup", "move"] {
        let stage = Stage::new(if mode == "move" {
            &["move"]
        } else {
            &["backup"]
        });
        let disk = Disk::memory(&stage.folder(mode), "size=16m");
        write_job(&stage.job());
        let job = whole(&stage.job()).unwrap();
        disk.again("ro");
        archive_fails(
            &stage,
            &[
                "Read-only file system",
                disk.0.to_str().unwrap(),
                "mount it to be written",
            ],
        );
        assert!(!stage.job().is_symlink());
        assert_tree("the primary's job", &job, whole(&stage.job()).as_ref());
        disk.again("rw");
        stage.archive();
        assert_tree("the copy", &job, whole(&stage.archived(mode)).as_ref());
        stage.verify();
        stage.assert_clean();
    }
}

/// Each job needs another amount, and the reason is one.
#[test]
fn a_full_folder_is_reported_once_for_all_jobs() {
    if !is_root() {
        return;
    }
    let stage = Stage::on_disk(&["backup"]);
    let hashes = crate::others::small_jobs(&stage, 3);
    for (number, hash) in hashes.iter().enumerate() {
        let job = stage.job().with_file_name(hash);
        fs::write(job.join("weights"), vec![7; (2 << 20) + (number << 16)]).unwrap();
    }
    let _disk = Disk::memory(&stage.folder("backup"), "size=1M");
    let output = archive_fails(&stage, &["2 more jobs failed", "3 failed"]);
    let text = said(&output);
    assert_eq!(text.matches("are needed").count(), 1, "{text}");
}
