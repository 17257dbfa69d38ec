//! A copy that was killed half way is finished by the next one, which removes what is left of it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::common::sshd::Sshd;
use crate::common::{eventually, soak};
use crate::scene::{RUN, Scene, number};
use crate::ssh::is_remote;

/// A run with many jobs.
struct Many {
    scene: Scene,
    hashes: Vec<String>,
    jobs: Vec<PathBuf>,
}

impl Many {
    fn new(count: u64) -> Many {
        let scene = Scene::new();
        let hashes: Vec<String> = (10..10 + count)
            .map(|number| format!("{number}f"))
            .collect();
        let jobs = hashes.iter().map(|hash| scene.job("from", hash)).collect();
        let names: Vec<&str> = hashes.iter().map(String::as_str).collect();
        scene.run(RUN, &names);
        Many {
            scene,
            hashes,
            jobs,
        }
    }

    /// How many jobs the destination has.
    fn there(&self) -> u64 {
        let hashes = self.hashes.iter();
        let there = hashes.filter(|hash| self.scene.job_path("to", hash).exists());
        there.count() as u64
    }

    fn staging(&self) -> PathBuf {
        self.scene.workspace("to").join(".xpm-staging")
    }

    /// Copies the others.
    fn is_finished_by_the_next(&self) {
        let (before, count) = (self.there(), self.hashes.len() as u64);
        assert!(before < count && !self.scene.run_path("to", RUN).exists());
        let copied = self.scene.copied(RUN, true);
        let counts = ["jobs_skipped", "jobs_copied"].map(|key| number(&copied, key));
        assert_eq!(counts, [before, count - before]);
        for (job, hash) in self.jobs.iter().zip(&self.hashes) {
            self.scene.assert_copied(job, hash);
        }
        self.scene.assert_clean();
    }
}

#[test]
fn a_copy_that_was_killed_is_finished_by_the_next() {
    // More than threads, so that one of them does a second rename.
    let many = Many::new(20);
    // Killed when a thread renames its second job.
    let command = many.scene.command(RUN, &["-y"]);
    let mut killed = Command::new("strace");
    killed
        .args(["-f", "-qq", "-e", "trace=renameat2"])
        .args(["-e", "inject=renameat2:signal=KILL:when=2"])
        .args(["-o", "/dev/null"])
        .arg(command.get_program())
        .args(command.get_args())
        .env("XDG_RUNTIME_DIR", many.scene.top())
        .stderr(Stdio::null());
    assert!(!killed.status().unwrap().success());
    let staging = many.staging();
    assert!(staging.exists());
    // The worker ends with its front, a moment later.
    eventually("the killed copy to end", || {
        let mut left = fs::read_dir(&staging).unwrap();
        let lock = left.next().unwrap().unwrap().path().join(".lock");
        let free = FlockOperation::NonBlockingLockShared;
        rustix::fs::flock(File::open(lock).unwrap(), free).is_ok()
    });
    many.is_finished_by_the_next();
}

/// The command is killed after the second job, and given again.
fn is_killed(end: &str) {
    let Some(sshd) = Sshd::start() else { return };
    let many = Many::new(7);
    is_remote(&many.scene, &sshd, end);
    let mut command = many.scene.command(RUN, &["-y", "-q"]);
    // With a group of its own, so that all of its processes on this side are killed, as by the end of a machine.
    let mut killed = command
        .process_group(0)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("two jobs to be copied", || many.there() >= 2);
    let group = i32::try_from(killed.id()).unwrap();
    kill_process_group(Pid::from_raw(group).unwrap(), Signal::KILL).unwrap();
    killed.wait().unwrap();
    // The socket of its connection is left; the next copy removes it.
    assert_eq!(fs::read_dir(many.scene.temporary()).unwrap().count(), 1);
    if end == "to" {
        // The script on the other side has noticed the end of its input.
        let staging = many.staging();
        eventually("the staging of the killed copy to be removed", || {
            !staging.exists()
        });
    }
    many.is_finished_by_the_next();
}

#[test]
fn a_copy_to_another_machine_that_was_killed_is_finished_by_the_next() {
    is_killed("to");
}

#[test]
fn a_copy_from_another_machine_that_was_killed_is_finished_by_the_next() {
    if soak() {
        is_killed("from");
    }
}

/// Puts programs before those of the machine: what is being placed waits until the copy was killed and what it has left is being removed, as
/// on a slow disk; removing stops half way until the place was given.
fn slow_programs(at: &Path) -> Option<Sshd> {
    let programs = at.join("programs");
    fs::create_dir(&programs).unwrap();
    let marks = at.to_str().unwrap();
    let wait = "until_there() { i=0; while [ ! -e \"$1\" ] && [ $i -lt $2 ]; do sleep 0.02; i=$((i + 1)); done; }";
    for (name, script) in [
        (
            "sync",
            format!(
                "case \"$*\" in *--help*) exec /usr/bin/sync --help;; esac\n: >{marks}/placing\n\
                 until_there {marks}/killed 1000\nuntil_there {marks}/removing 100\nexec /usr/bin/sync \"$@\""
            ),
        ),
        ("mv", format!("/usr/bin/mv \"$@\"\n: >{marks}/placed")),
        (
            "rm",
            format!(
                "for last; do :; done\nfind \"$last\" -name model.bin -delete\n: >{marks}/removing\n\
                 until_there {marks}/placed 500\nexec /usr/bin/rm \"$@\""
            ),
        ),
    ] {
        let path = programs.join(name);
        fs::write(&path, format!("#!/bin/sh\n{wait}\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    Sshd::with_programs(&programs)
}

#[test]
fn a_copy_that_is_being_removed_gets_no_place() {
    let top = tempfile::Builder::new()
        .prefix("xpmfs-test-")
        .tempdir()
        .unwrap();
    let Some(sshd) = slow_programs(top.path()) else {
        return;
    };
    let many = Many::new(1);
    is_remote(&many.scene, &sshd, "to");
    let mut command = many.scene.command(RUN, &["-y", "-q"]);
    let killed = command.process_group(0).stderr(Stdio::null());
    let mut killed = killed.spawn().unwrap();
    eventually("a job to be placed", || top.path().join("placing").exists());
    let group = i32::try_from(killed.id()).unwrap();
    kill_process_group(Pid::from_raw(group).unwrap(), Signal::KILL).unwrap();
    killed.wait().unwrap();
    fs::write(top.path().join("killed"), "").unwrap();
    let staging = many.staging();
    eventually("what the killed copy has left to be removed", || {
        !staging.exists()
    });
    if many.there() > 0 {
        many.scene.assert_copied(&many.jobs[0], &many.hashes[0]);
    }
}
