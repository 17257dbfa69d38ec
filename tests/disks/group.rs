//! Two members of a group share a workspace, each with a mount and a umask of their own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::common::is_root;
use crate::common::{eventually, run, write_job};

/// The group of the workspace.
const LAB: u32 = 54321;

/// Two users that every Debian has, since `fusermount3` looks their names up: `daemon` and `nobody`.
const MEMBERS: [u32; 2] = [1, 65534];

const TASK: &str = "my.module.train";

struct Shared {
    top: TempDir,
}

impl Shared {
    /// A workspace whose directories have this mode and belong to the first member and the group.
    fn new(mode: u32) -> Shared {
        let shared = Shared {
            top: tempfile::Builder::new()
                .prefix("xpmfs-test-")
                .tempdir()
                .unwrap(),
        };
        set_mode(&shared.at(""), 0o755);
        let mut settings = format!(
            "workspaces:\n  - id: lab\n    path: {}\n    folders:\n",
            shared.at("primary").display()
        );
        for location in ["primary", "use", "backup", "move"] {
            fs::create_dir_all(shared.at(location).join("jobs")).unwrap();
            for dir in [shared.at(location), shared.at(location).join("jobs")] {
                chown(&dir, Some(MEMBERS[0]), Some(LAB)).unwrap();
                set_mode(&dir, mode);
            }
            if location != "primary" {
                let path = shared.at(location);
                settings += &format!("      - {{path: {}, mode: {location}}}\n", path.display());
            }
        }
        fs::write(shared.at("primary/.__experimaestro__"), "").unwrap();
        fs::write(shared.at("settings.yaml"), settings).unwrap();
        run(Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_xpmfs"))
            .arg(shared.at("xpmfs")));
        for member in MEMBERS {
            for dir in [shared.home(member), shared.mountpoint(member)] {
                fs::create_dir(&dir).unwrap();
                chown(&dir, Some(member), Some(member)).unwrap();
                set_mode(&dir, 0o700);
            }
        }
        shared
    }

    fn at(&self, path: &str) -> PathBuf {
        self.top.path().canonicalize().unwrap().join(path)
    }

    fn home(&self, member: u32) -> PathBuf {
        self.at(&format!("home-{member}"))
    }

    fn mountpoint(&self, member: u32) -> PathBuf {
        self.at(&format!("mnt-{member}"))
    }

    /// A finished job of a member in a location, for the group to read and write.
    fn finished(&self, member: u32, location: &str, hash: &str) -> PathBuf {
        let task = self.at(location).join("jobs").join(TASK);
        let job = task.join(hash);
        write_job(&job, TASK);
        run(Command::new("chmod").args(["-R", "g+rwX,o="]).arg(&task));
        run(Command::new("chown")
            .arg("-R")
            .arg(format!("{member}:{LAB}"))
            .arg(&task));
        job
    }

    /// A shell script of a member with a umask that gives the group nothing. `$1` is the mount point, `$X` the program.
    fn command(&self, member: u32, script: &str) -> Command {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={member}"))
            .arg(format!("--regid={member}"))
            .arg(format!("--groups={LAB}"))
            .args(["sh", "-c"])
            .arg(format!("set -eu; umask 077; {script}"))
            .arg("sh")
            .arg(self.mountpoint(member))
            .current_dir(self.at(""))
            .env("HOME", self.home(member))
            .env("XDG_RUNTIME_DIR", self.home(member))
            .env(
                "X",
                format!("{} --settings settings.yaml", self.at("xpmfs").display()),
            );
        command
    }

    fn sh(&self, member: u32, script: &str) -> String {
        run(&mut self.command(member, script))
    }

    fn mount(&self, member: u32, arguments: &str) {
        self.sh(member, &format!("$X mount -w lab {arguments} \"$1\""));
    }

    /// Asserts that the group may use everything below a directory.
    fn assert_shared(&self, dir: &str, mut seen: usize) {
        let mut pending = vec![self.at(dir)];
        while let Some(path) = pending.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            let (kind, wanted) = match meta.is_dir() {
                true => ("directory", 0o070),
                false => ("file", 0o060),
            };
            let what = format!("the {kind} {} is {:o}", path.display(), meta.mode());
            assert_eq!(meta.gid(), LAB, "{what} {}", meta.gid());
            assert_eq!(meta.mode() & wanted, wanted, "{what}");
            assert_eq!(meta.mode() & 0o007, 0, "{what}");
            seen = seen.saturating_sub(1);
            if meta.is_dir() {
                pending.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            }
        }
        assert_eq!(seen, 0, "less in {dir} than was expected");
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for member in MEMBERS {
            let unmount = "$X umount --lazy \"$1\"";
            let _ = self.command(member, unmount).output();
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_one_member_makes_the_other_can_use() {
    if !is_root() {
        return;
    }
    // Also where only the group of the directories themselves says whose they are.
    for mode in [0o2770, 0o770] {
        let shared = Shared::new(mode);
        let [first, second] = MEMBERS;
        shared.finished(first, "primary", "mine");
        shared.finished(second, "primary", "theirs");
        let used = shared.finished(first, "use", "used");
        fs::write(used.join("train.pid"), "1").unwrap();
        fs::write(used.join("train.lock"), "").unwrap();
        set_mode(&used.join("train.pid"), 0o600);
        chown(used.join("train.pid"), Some(first), Some(first)).unwrap();
        for member in MEMBERS {
            shared.mount(member, "");
        }
        for member in MEMBERS {
            let drained = format!("$X jobs archive -w lab {TASK}/mine {TASK}/theirs");
            shared.sh(member, &drained);
        }
        eventually("both jobs are moved", || {
            let moved = |hash: &str| shared.at("primary/jobs").join(TASK).join(hash).is_symlink();
            moved("mine") && moved("theirs")
        });
        // An internal file that the folder has, and its directory, are made by one and used by the other.
        let internal =
            format!("flock -n \"$1/jobs/{TASK}/used/train.lock\" true; cd \"$1/jobs/{TASK}/used\"");
        shared.sh(first, &format!("{internal}; : >>train.pid"));
        shared.sh(
            second,
            &format!("{internal}; echo 2 >>train.pid; : >>second.pid"),
        );
        eventually("the first sees what the second has written", || {
            let pid = format!("cat \"$1/jobs/{TASK}/used/train.pid\"");
            shared.sh(first, &pid) == "12\n"
        });
        fs::remove_file(
            shared
                .at("primary/.xpmfs/internal")
                .join(TASK)
                .join("used/second.pid"),
        )
        .unwrap();
        shared.sh(second, &format!("$X jobs recover -w lab {TASK}/mine"));
        shared.sh(
            first,
            &format!("$X jobs opt-out -w lab {TASK}/mine; $X jobs verify -w lab --all"),
        );
        shared.sh(
            second,
            &format!("$X jobs opt-in -w lab {TASK}/mine; $X jobs verify -w lab --all"),
        );
        for member in MEMBERS {
            eventually("all is archived, for either", || {
                let status = shared.sh(member, "$X status -w lab");
                status.contains("all finished jobs are archived")
            });
        }
        shared.assert_shared("primary/.xpmfs", 14);
        shared.assert_shared("backup/.xpmfs", 5);
        shared.assert_shared("move/.xpmfs", 5);
    }
}

#[test]
fn a_copy_that_a_member_died_over_does_not_keep_the_other_from_archiving() {
    if !is_root() {
        return;
    }
    let shared = Shared::new(0o2770);
    let [first, second] = MEMBERS;
    shared.finished(first, "primary", "job");
    let task = shared.at("backup/jobs").join(TASK);
    let script = format!(
        "umask 007; cd backup/jobs; mkdir {TASK}; cd {TASK}; : >.tmp.job.lock; umask 077; mkdir .tmp.job; echo half >.tmp.job/model.bin"
    );
    shared.sh(first, &script);
    shared.sh(second, &format!("$X jobs archive -w lab {TASK}/job"));
    assert_eq!(fs::read(task.join("job/model.bin")).unwrap(), [7; 10_000]);
    assert!(task.join(".tmp.job.left").is_dir());
    // The first member's next copy of the task removes what it had left.
    shared.finished(first, "primary", "other");
    shared.sh(first, &format!("$X jobs archive -w lab {TASK}/other"));
    assert!(task.join("other/train.done").exists());
    assert!(!task.join(".tmp.job.left").exists());
}

#[test]
fn a_task_that_a_folder_shows_keeps_its_mode_in_the_primary() {
    if !is_root() {
        return;
    }
    for mode in [0o2775, 0o2770, 0o775, 0o750] {
        let shared = Shared::new(0o2775);
        let [first, second] = MEMBERS;
        let job = shared.finished(first, "backup", "archived");
        set_mode(job.parent().unwrap(), mode);
        for member in MEMBERS {
            shared.mount(member, "--no-archive");
        }
        let stat = |member| shared.sh(member, &format!("stat -c '%a %g' \"$1/jobs/{TASK}\""));
        let before = stat(first);
        shared.sh(first, &format!("mkdir \"$1/jobs/{TASK}/new\""));
        let made = fs::metadata(shared.at("primary/jobs").join(TASK)).unwrap();
        assert_eq!(made.mode() & 0o7777, mode, "{:o}", made.mode());
        assert_eq!(stat(first), before);
        eventually("the other mount shows it", || stat(second) == before);
        if mode & 0o020 != 0 {
            shared.sh(second, &format!("mkdir \"$1/jobs/{TASK}/newer\""));
        }
    }
}

/// The records of damaged copies.
const DAMAGED: &str = "primary/.xpmfs/archive/damaged";

/// Verifies all copies as a member, which must fail; returns all that it printed.
fn verify_fails(shared: &Shared, member: u32) -> String {
    let output = shared
        .command(member, "$X jobs verify -w lab --all")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let printed = [output.stdout, output.stderr].concat();
    String::from_utf8(printed).unwrap()
}

#[test]
fn a_copy_that_a_member_may_not_read_is_not_recorded_as_damaged() {
    if !is_root() {
        return;
    }
    let shared = Shared::new(0o2770);
    let [first, second] = MEMBERS;
    shared.finished(first, "primary", "job");
    shared.sh(first, &format!("$X jobs archive -w lab {TASK}/job"));
    let copy = shared.at("backup/jobs").join(TASK).join("job");
    let manifest = shared
        .at("backup/.xpmfs/manifests")
        .join(TASK)
        .join("job.json");
    for (path, closed) in [
        (copy.join("model.bin"), 0o600),
        (copy.clone(), 0o740),
        (copy.clone(), 0o700),
        (manifest, 0o600),
    ] {
        let mode = fs::metadata(&path).unwrap().mode();
        set_mode(&path, closed);
        let printed = verify_fails(&shared, second);
        let what = format!("{} {closed:o}: {printed}", path.display());
        assert!(printed.contains("cannot be read by this user"), "{what}");
        let summary = "1 copy OK, 0 damaged, 1 could not be read";
        assert!(printed.contains(summary), "{what}");
        assert!(!shared.at(DAMAGED).exists(), "{what}");
        // What its owner finds stands, whoever looks after that.
        shared.sh(first, "$X jobs verify -w lab --all");
        set_mode(&path, mode);
    }
    fs::write(copy.join("model.bin"), [6; 10_000]).unwrap();
    verify_fails(&shared, first);
    let record = || {
        let folder = fs::read_dir(shared.at(DAMAGED)).unwrap().next().unwrap();
        folder.unwrap().path().join(TASK).join("job")
    };
    assert!(record().exists());
    set_mode(&copy.join("model.bin"), 0o600);
    verify_fails(&shared, second);
    assert!(record().exists(), "forgotten");
}

#[test]
fn a_record_of_a_damaged_copy_is_for_the_whole_group() {
    if !is_root() {
        return;
    }
    let shared = Shared::new(0o2770);
    let [first, second] = MEMBERS;
    shared.finished(first, "primary", "job");
    shared.sh(first, &format!("$X jobs archive -w lab {TASK}/job"));
    let copy = shared.at("backup/jobs").join(TASK).join("job");
    fs::write(copy.join("model.bin"), [6; 10_000]).unwrap();
    verify_fails(&shared, first);
    shared.assert_shared(DAMAGED, 4);
    shared.mount(second, "");
    let shown = |expected: &str| {
        let status = shared.sh(second, "$X status -w lab");
        assert!(status.contains("1 copy is damaged or missing"), "{status}");
        assert!(status.contains(expected), "{status}");
        assert!(!status.contains("Permission denied"), "{status}");
    };
    shown("the copy is damaged: model.bin");
    // As earlier versions left it.
    let folder = fs::read_dir(shared.at(DAMAGED)).unwrap().next().unwrap();
    let record = folder.unwrap().path().join(TASK).join("job");
    set_mode(&record, 0o600);
    shown("may not read the record");
    // The other member replaces it, and removes it.
    verify_fails(&shared, second);
    shown("the copy is damaged: model.bin");
    fs::write(copy.join("model.bin"), [7; 10_000]).unwrap();
    shared.sh(second, "$X jobs verify -w lab --all");
    assert!(!record.exists());
}
