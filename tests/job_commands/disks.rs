//! Disks that are not ext4: that are wrong about holes, or keep less of a file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use super::common::run;
use super::common::{is_root, program};
use super::stage::{
    HASH, Stage, TASK, assert_tree, job_id, memory, run_again, said, whole, write_job,
};

/// A program that makes a file system, its arguments, and the size of the disk in MiB.
type Make = (&'static str, &'static [&'static str], u64);

/// ext4 with small inodes keeps whole seconds.
const COARSE: Make = ("mkfs.ext4", &["-q", "-I", "128"], 32);
const XFS: Make = ("mkfs.xfs", &["-q"], 320);
const BTRFS: Make = ("mkfs.btrfs", &["-q"], 128);

/// A disk in a file, unmounted when it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn coarse(stage: &Stage, at: PathBuf) -> Disk {
        Disk::mount(&stage.top().join("image"), at, COARSE)
    }

    fn mount(image: &Path, at: PathBuf, (make, arguments, size): Make) -> Disk {
        File::create(image).unwrap().set_len(size << 20).unwrap();
        run(Command::new(make).args(arguments).arg(image));
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(image)
            .arg(&at));
        Disk(at)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// What is added to a job is archived, and nothing is found wrong with its copy.
fn add_and_archive(stage: &Stage) {
    fs::write(stage.job().join("notes.txt"), "new").unwrap();
    stage.archive();
    assert!(stage.archived("backup").join("notes.txt").exists());
    stage.verify();
}

#[test]
fn a_job_comes_back_from_a_disk_of_whole_seconds_as_it_was() {
    if !is_root() {
        return;
    }
    let stage = Stage::new(&["backup"]);
    let _disk = Disk::coarse(&stage, stage.folder("backup"));
    write_job(&stage.job());
    let tree = whole(&stage.job()).unwrap();
    stage.archive();
    let archived = stage.archived("backup").join("train.out");
    assert_eq!(fs::metadata(archived).unwrap().mtime_nsec(), 0);
    // Neither the copy nor the primary is said to have other times.
    let output = stage.jobs(&["verify", "--all"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains("time of last change"), "{text}");
    stage.verify();
    fs::remove_dir_all(stage.job()).unwrap();
    let before = SystemTime::now();
    let output = stage.jobs(&["recover", "--all"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_tree("the recovered job", &tree, whole(&stage.job()).as_ref());
    assert_accessed_since(&stage.job(), before);
    add_and_archive(&stage);
}

/// Where a site's purge goes by the time of access, it must not take at once what came back.
fn assert_accessed_since(job: &Path, before: SystemTime) {
    let seconds = before
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    for path in ["train.out", "data/model.bin", "latest", "data", ""] {
        let accessed = fs::symlink_metadata(job.join(path)).unwrap().atime();
        assert!(
            accessed >= i64::try_from(seconds).unwrap(),
            "{path}: {accessed}"
        );
    }
}

#[test]
fn a_job_on_a_disk_of_whole_seconds_is_what_it_was_recovered_from() {
    if !is_root() {
        return;
    }
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    stage.archive();
    fs::remove_dir_all(stage.primary()).unwrap();
    fs::create_dir(stage.primary()).unwrap();
    let _disk = Disk::coarse(&stage, stage.primary());
    let output = stage.jobs(&["recover", "--all"]);
    assert!(output.status.success(), "{}", said(&output));
    let recovered = fs::metadata(stage.job().join("train.out")).unwrap();
    assert_eq!(recovered.mtime_nsec(), 0);
    stage.verify();
    let output = stage.jobs(&["archive", "--all"]);
    assert!(said(&output).contains("1 up to date"), "{}", said(&output));
    add_and_archive(&stage);
}

#[test]
fn a_disk_that_has_no_modes_takes_jobs_all_the_same() {
    if program("strace").is_none() {
        return;
    }
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    let log = stage.top().join("strace").to_str().unwrap().to_owned();
    let strace = [
        "--trace=fchmod".to_owned(),
        "--inject=fchmod:error=EPERM:when=2+".to_owned(),
        "-o".to_owned(),
        log,
    ];
    let output = stage
        .by_one_thread_at_once("archive", &strace)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("the mode was not kept"),
        "{}",
        said(&output)
    );
    stage.verify();
}

#[test]
fn a_file_system_that_calls_data_a_hole_makes_no_zeros_of_it() {
    if program("strace").is_none() {
        return;
    }
    let stage = Stage::new(&["move"]);
    write_job(&stage.job());
    // Data that is as large as the file, and some in a file of holes.
    fs::write(stage.job().join("model.bin"), [9; 100_000]).unwrap();
    let sparse = File::create(stage.job().join("sparse.bin")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    sparse.write_all_at(&[8; 5000], 3 << 20).unwrap();
    drop(sparse);
    let before = ["model.bin", "sparse.bin"].map(|name| fs::read(stage.job().join(name)).unwrap());
    let tree = whole(&stage.job());
    let log = stage.top().join("strace").to_str().unwrap().to_owned();
    let strace = [
        "--trace=lseek".to_owned(),
        "--inject=lseek:error=ENXIO".to_owned(),
        "-o".to_owned(),
        log,
    ];
    let output = stage
        .by_one_thread_at_once("archive", &strace)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(stage.job().is_symlink());
    let after = ["model.bin", "sparse.bin"].map(|name| fs::read(stage.job().join(name)).unwrap());
    assert!(before == after, "bytes that nobody read");
    let blocks = fs::metadata(stage.archived("move").join("sparse.bin"))
        .unwrap()
        .blocks();
    assert!(blocks <= 32, "zeros that were read are holes: {blocks}");
    stage.verify();
    assert_eq!(whole(&stage.job()), tree);
}

#[test]
fn what_is_left_of_files_that_were_open_is_no_data() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    let left = [
        ".nfs00000000004c29a300000005",
        "data/.fuse_hidden0000000500000001",
    ];
    for name in left {
        fs::write(stage.job().join(name), "x").unwrap();
    }
    fs::write(stage.job().join(".nfsrc"), "x").unwrap();
    stage.archive();
    let archived = stage.archived("backup");
    assert!(left.iter().all(|name| !archived.join(name).exists()));
    assert!(archived.join(".nfsrc").exists());
    stage.verify();
}

#[test]
fn what_an_earlier_version_has_copied_of_such_files_is_not_missing() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    fs::write(stage.job().join("open"), "x").unwrap();
    stage.archive();
    // As it would have been archived.
    let left = ".nfs00000000004c29a300000005";
    fs::rename(
        stage.archived("backup").join("open"),
        stage.archived("backup").join(left),
    )
    .unwrap();
    let manifest = stage
        .folder("backup")
        .join(format!(".xpmfs/manifests/{TASK}/{HASH}.json"));
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"open\"", &format!("\"{left}\""))).unwrap();
    fs::remove_file(stage.job().join("open")).unwrap();
    stage.verify();
    let output = stage.jobs(&["archive", "--all"]);
    assert!(said(&output).contains("1 up to date"), "{}", said(&output));
}

/// What the files and symlinks of a job hold.
fn held(job: &Path) -> BTreeMap<PathBuf, String> {
    let entries = whole(job).unwrap().into_iter();
    entries.map(|(path, entry)| (path, entry.hold())).collect()
}

/// A job is archived, moved, recovered, run again and archived again in a directory of a disk.
fn assert_cycle(what: &str, within: &Path) {
    let stage = Stage::within(within, &["backup", "move"]);
    write_job(&stage.job());
    let job = held(&stage.job());
    stage.archive();
    assert!(stage.job().is_symlink(), "{what}");
    for mode in stage.modes() {
        assert_eq!(held(&stage.archived(mode)), job, "{what}: {mode}");
    }
    stage.verify();
    let output = stage.jobs(&["recover", &job_id()]);
    assert!(output.status.success(), "{what}: {}", said(&output));
    assert!(!stage.job().is_symlink(), "{what}");
    assert_eq!(held(&stage.job()), job, "{what}");
    run_again(&stage.job());
    let job = held(&stage.job());
    stage.archive();
    assert_eq!(held(&stage.job()), job, "{what}");
    assert_eq!(held(&stage.archived("backup")), job, "{what}");
    stage.verify_all();
    stage.assert_clean();
    let output = stage.jobs(&["archive", "--all"]);
    assert!(
        said(&output).contains("nothing to copy"),
        "{what}: {}",
        said(&output)
    );
}

#[test]
fn a_job_goes_and_comes_on_xfs_btrfs_and_ext4_with_small_inodes() {
    if !is_root() {
        return;
    }
    let cycle = |make: Make| {
        if program(make.0).is_none() {
            return;
        }
        // In memory: syncs of a busy disk take seconds each.
        let top = tempfile::tempdir_in(memory()).unwrap();
        let at = top.path().join("disk");
        fs::create_dir(&at).unwrap();
        let disk = Disk::mount(&top.path().join("image"), at, make);
        assert_cycle(make.0, &disk.0);
    };
    // A move takes seconds, in which it waits.
    std::thread::scope(|scope| {
        for make in [XFS, BTRFS, COARSE] {
            scope.spawn(move || cycle(make));
        }
    });
}
