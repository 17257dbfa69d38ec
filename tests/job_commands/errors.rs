//! What the system refuses: nothing is lost, it is told, and the next run does it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use super::common::{ORDINARY, run};
use super::common::{is_root, program, say, soak};
use super::scene::{Prepared, Scene, sample, try_each};
use super::stage::{
    HASH, Stage, assert_tree, leftovers, moment, run_again, said, set_time, whole, write_job,
};

/// Calls of which an error may be of no importance, and why.
const HARMLESS: [&str; 4] = [
    // Removing what is not needed any more is tried again by the next.
    "unlink",
    "rmdir",  // A lock that cannot be shared with others of the group is still one.
    "fchmod", // What a disk cannot keep is told as a loss.
    "fsetxattr",
];

/// Lets calls of a scene fail.
fn fail_at_each(scene: Scene, error: &str) {
    if program("strace").is_none() {
        return;
    }
    let prepared = Prepared::new(scene);
    let all = prepared.points();
    let points = sample(&all, &["rename", "symlink", "fsync", "syncfs"]);
    let failed = try_each(scene, &points, |point| {
        let (stage, output) = prepared.with_fault(point, &format!("error={error}"));
        let failed = !output.status.success();
        if failed {
            assert_eq!(output.status.code(), Some(1), "{}", said(&output));
            assert!(
                said(&output).contains(stage.top().to_str().unwrap()),
                "{}",
                said(&output)
            );
        } else if !HARMLESS.iter().any(|name| point.0.starts_with(name)) {
            say(&format!("{scene:?}: {error} of {point:?} was borne"));
        }
        prepared.again(&stage);
        failed
    });
    say(&format!(
        "{scene:?}: {error} stopped it at {failed} of {} calls",
        points.len()
    ));
    assert!(failed * 2 > points.len(), "{failed} of {}", points.len());
}

#[test]
fn an_error_while_copying_and_moving_loses_nothing() {
    let modes = &["backup", "move"];
    let scenes = [
        ("EIO", false, true),
        ("ENOSPC", true, false),
        ("EIO", true, true),
    ];
    let scenes = if soak() { &scenes[..] } else { &scenes[..2] };
    for &(error, more, exchange) in scenes {
        fail_at_each(
            Scene {
                what: "archive",
                modes,
                more,
                exchange,
            },
            error,
        );
    }
}

#[test]
fn an_error_while_recovering_loses_nothing() {
    let modes = &["move"];
    for (error, exchange) in [("EIO", true), ("ENOSPC", false)] {
        fail_at_each(
            Scene {
                what: "recover",
                modes,
                more: true,
                exchange,
            },
            error,
        );
    }
}

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
fn archive_fails(stage: &Stage, says: &[&str]) -> Output {
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

/// `jobs archive --all` by an ordinary user, whose the workspace is from now on.
fn as_ordinary(stage: &Stage) -> impl Fn() -> Output {
    let binary = stage.top().join("xpmfs");
    run(Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_xpmfs"))
        .arg(&binary));
    fs::set_permissions(stage.top(), Permissions::from_mode(0o755)).unwrap();
    give(&["-Rh"], &stage.primary());
    move || {
        let mut command = Command::new("setpriv");
        command
            .args([
                &format!("--reuid={ORDINARY}"),
                &format!("--regid={ORDINARY}"),
            ])
            .args(["--clear-groups", "--"])
            .arg(&binary)
            .arg("--settings")
            .arg(stage.settings())
            .args(["jobs", "archive", "-w", "test", "--all"])
            .current_dir(stage.top())
            .env("HOME", stage.top())
            .env("XDG_RUNTIME_DIR", stage.top());
        command.output().unwrap()
    }
}

fn give(how: &[&str], path: &Path) {
    let owner = format!("{ORDINARY}:{ORDINARY}");
    run(Command::new("chown").args(how).arg(owner).arg(path));
}

#[test]
fn whoever_lacks_a_right_is_told_whom_to_ask_or_how_to_take_it() {
    if !is_root() {
        return;
    }
    let stage = Stage::new(&["backup"]);
    let folder = stage.folder("backup");
    write_job(&stage.job());
    let archive = as_ordinary(&stage);
    let refused = |say: &str, path: &Path| {
        let output = archive();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let say = say.replace("PATH", path.to_str().unwrap());
        assert!(said.contains(&say), "{say}, not {said}");
        assert_eq!(
            said.contains("ask its owner"),
            say.contains("ask"),
            "{said}"
        );
    };
    refused(
        "ask its owner `root` for permission to write in PATH",
        &folder,
    );
    give(&[], &folder);
    fs::set_permissions(&folder, Permissions::from_mode(0o500)).unwrap();
    refused("may not write in PATH: `chmod u+w PATH`", &folder);
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    let data = stage.job().join("data");
    fs::set_permissions(&data, Permissions::from_mode(0o000)).unwrap();
    refused("may not list and go into PATH: `chmod u+rx PATH`", &data);
    fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    let file = stage.job().join("params.json");
    fs::set_permissions(&file, Permissions::from_mode(0o000)).unwrap();
    refused("may not read PATH: `chmod u+r PATH`", &file);
    run(Command::new("chown").arg("0:0").arg(&file));
    refused("ask its owner `root` for permission to read PATH", &file);
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let output = archive();
    assert!(output.status.success(), "{}", said(&output));
    stage.assert_clean();
}

#[test]
fn a_folder_without_rights_is_told_of() {
    if !is_root() {
        return;
    }
    let stage = Stage::new(&["backup", "move"]);
    write_job(&stage.job());
    let archive = as_ordinary(&stage);
    let job = whole(&stage.job()).unwrap();
    let output = archive();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    for say in [
        "Permission denied",
        stage.folder("backup").to_str().unwrap(),
    ] {
        assert!(said(&output).contains(say), "{}", said(&output));
    }
    // What `backup` cannot have, `move` does not take away.
    assert!(!stage.job().is_symlink());
    assert_tree("the primary's job", &job, whole(&stage.job()).as_ref());
    for mode in stage.modes() {
        give(&[], &stage.folder(mode));
    }
    let output = archive();
    assert!(output.status.success(), "{}", said(&output));
    for mode in stage.modes() {
        assert_tree(mode, &job, whole(&stage.archived(mode)).as_ref());
    }
    stage.verify();
    stage.assert_clean();
}

#[test]
fn a_folder_that_is_gone_is_told_of_and_archived_to_when_it_is_back() {
    for modes in [&["backup"][..], &["move"], &["backup", "move"]] {
        let stage = Stage::new(modes);
        write_job(&stage.job());
        let job = whole(&stage.job()).unwrap();
        let (folder, away) = (stage.folder(modes[0]), stage.top().join("away"));
        fs::rename(&folder, &away).unwrap();
        archive_fails(&stage, &[folder.to_str().unwrap()]);
        assert!(!folder.exists());
        // What `backup` cannot have, `move` does not take away.
        assert!(!stage.job().is_symlink());
        fs::rename(&away, &folder).unwrap();
        stage.archive();
        for mode in modes {
            assert_tree(mode, &job, whole(&stage.archived(mode)).as_ref());
        }
        stage.verify();
        stage.assert_clean();
    }
}

#[test]
fn jobs_from_the_future_and_from_long_ago_are_archived_once_they_are_still() {
    // Before the epoch, at it, and when nobody here will see it.
    for seconds in [-500_000_000, 0, 4_000_000_000_i64] {
        let stage = Stage::new(&["backup", "move"]);
        stage.settle("1s");
        write_job(&stage.job());
        for name in ["train.out", "data", "train.done", "."] {
            let time = rustix::fs::Timespec {
                tv_sec: seconds,
                tv_nsec: 5,
            };
            let times = rustix::fs::Timestamps {
                last_access: time,
                last_modification: time,
            };
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(rustix::fs::CWD, stage.job().join(name), &times, flags).unwrap();
        }
        let job = whole(&stage.job()).unwrap();
        stage.archive();
        assert!(stage.job().is_symlink(), "{seconds}");
        for mode in stage.modes() {
            assert_tree(mode, &job, whole(&stage.archived(mode)).as_ref());
        }
        // And it is not new for ever.
        stage.archive();
        stage.verify();
        stage.assert_clean();
    }
}

#[test]
fn a_job_that_still_changes_is_not_archived() {
    let stage = Stage::new(&["backup"]);
    stage.settle("2s");
    write_job(&stage.job());
    let before = std::time::Instant::now();
    // Times that say that it was long ago do not hide that it has just been changed.
    set_time(&stage.job().join("train.out"), moment(0));
    stage.archive();
    assert!(before.elapsed().as_millis() > 1000);
    stage.verify();
    assert!(
        stage.archived("backup").join("train.done").exists(),
        "{HASH}"
    );
}

#[test]
fn a_folder_that_fails_does_not_keep_a_job_from_the_next_backup() {
    let stage = Stage::new(&["backup", "move"]);
    write_job(&stage.job());
    let job = whole(&stage.job()).unwrap();
    fs::remove_dir(stage.folder("backup")).unwrap();
    let other = stage.top().join("other");
    fs::create_dir(&other).unwrap();
    let more = format!("backup:{}", other.display());
    let archive = || {
        let output = stage.jobs(&["archive", "--all", "--folder", &more]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        said(&output)
    };
    let told = archive();
    let failed = |folder: &Path| format!("failed in backup:{}", folder.display());
    assert!(told.contains(&failed(&stage.folder("backup"))), "{told}");
    assert!(told.contains("1 copy made"), "{told}");
    assert!(told.contains(": 1 failed"), "{told}");
    let copy = other.join("jobs").join(super::stage::TASK).join(HASH);
    assert_tree("the copy", &job, whole(&copy).as_ref());
    assert!(!stage.job().is_symlink(), "moved without a backup");
    // Each folder is named that a job with too long a name cannot be copied to.
    fs::create_dir(stage.folder("backup")).unwrap();
    fs::rename(stage.job(), stage.job().with_file_name("a".repeat(255))).unwrap();
    let told = archive();
    for folder in [stage.folder("backup"), other] {
        assert!(told.contains(&failed(&folder)), "{told}");
    }
    assert!(told.contains(": 2 failed"), "{told}");
}
