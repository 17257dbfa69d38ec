//! `jobs release`: drops the primary's copy of a job only if an archived copy was verified, and nothing uses or has changed the job.
//!
//! - `kept`: what keeps a job in the primary
//! - `renamed`: what happens after the job was renamed, and after a crash then
//! - `rule`: jobs chosen by age and space

mod kept;
mod renamed;
mod rule;

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::FlockOperation;
use serde_json::Value;

use crate::common::eventually;
use crate::stage::{Stage, Tree, assert_tree, job_id, said, whole, write_job};

/// A stage whose job is archived and in the primary, and the job.
fn archived(modes: &[&'static str]) -> (Stage, Tree) {
    let stage = Stage::on_disk(modes);
    write_job(&stage.job());
    let job = whole(&stage.job()).unwrap();
    stage.archive();
    (stage, job)
}

/// `jobs release` with these arguments, without the long grace period: the entries of `--json`.
fn release(stage: &Stage, arguments: &[&str]) -> (bool, Vec<Value>) {
    let mut command = stage.xpmfs();
    command.env("XPMFS_TEST_GRACE_MS", "50");
    command.args(["jobs", "release", "-w", "test", "--json"]);
    let output = command.args(arguments).output().unwrap();
    let lines = serde_json::from_slice(&output.stdout);
    let lines = lines.unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    (output.status.success(), lines)
}

/// The file that opts it out is in no copy, and does not keep it.
#[test]
fn an_opted_out_job_with_a_copy_is_released() {
    let (stage, tree) = archived(&["backup"]);
    let output = stage.jobs(&["opt-out", &job_id()]);
    assert!(output.status.success(), "{}", said(&output));
    let (success, lines) = release(&stage, &["--yes", &job_id()]);
    assert!(success && lines[0]["result"] == "released", "{lines:?}");
    assert!(!stage.job().exists());
    let copy = whole(&stage.archived("backup"));
    assert_tree("the copy", &tree, copy.as_ref());
}

#[test]
fn a_summary_says_why_jobs_are_kept() {
    let stage = Stage::on_disk(&["backup"]);
    let hashes = crate::others::small_jobs(&stage, 3);
    let output = stage.jobs(&["pin", &hashes[0]]);
    assert!(output.status.success(), "{}", said(&output));
    let output = stage.jobs(&["release", "*"]);
    let expected = "nothing to release: 3 kept (2 no archived copy with a manifest; 1 pinned)";
    assert!(said(&output).contains(expected), "{}", said(&output));
}

#[test]
fn a_released_job_is_up_to_date() {
    let (stage, _) = archived(&["backup"]);
    let (success, _) = release(&stage, &["--yes", &job_id()]);
    assert!(success && !stage.job().exists());
    let output = stage.jobs(&["archive", &job_id()]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("nothing to copy: 1 up to date"),
        "{}",
        said(&output)
    );
}

fn hash_of(line: &Value) -> &str {
    line["job"].as_str().unwrap().rsplit('/').next().unwrap()
}

/// Releasing the job is refused for this reason, and it stays as it is.
#[track_caller]
fn assert_kept(stage: &Stage, reason: &str, why: &str) {
    let before = whole(&stage.job());
    let (success, lines) = release(stage, &["--yes", &job_id()]);
    let [line] = lines.as_slice() else {
        panic!("{lines:?}")
    };
    assert_eq!(
        (&line["result"], &line["reason"]),
        (&"kept".into(), &reason.into()),
        "{line}"
    );
    assert!(line["why"].as_str().unwrap().contains(why), "{line}");
    assert!(!success);
    assert_eq!(whole(&stage.job()), before);
    stage.assert_clean();
    let aside = stage.primary().join(".xpmfs/released").join(job_id());
    assert!(!aside.exists());
}

#[track_caller]
fn assert_released(stage: &Stage, expected: &Tree) {
    let (success, lines) = release(stage, &["--yes", &job_id()]);
    assert_eq!(lines[0]["result"], "released", "{lines:?}");
    assert!(success);
    assert!(!stage.job().exists() || stage.job().is_symlink());
    assert_tree(
        "the copy",
        expected,
        whole(&stage.archived(stage.modes()[0])).as_ref(),
    );
    stage.assert_clean();
}

#[test]
fn a_released_job_is_in_its_folder_alone_and_comes_back() {
    let (stage, tree) = archived(&["backup"]);
    let (success, lines) = release(&stage, &[&job_id()]);
    assert!(success);
    assert_eq!(lines[0]["result"], "would_release", "{lines:?}");
    assert_tree("a dry run", &tree, whole(&stage.job()).as_ref());
    assert_released(&stage, &tree);
    stage.verify();
    // It is released already: there is nothing to do.
    let (success, lines) = release(&stage, &["--yes", &job_id()]);
    assert!(success && lines[0]["reason"] == "absent", "{lines:?}");
    let output = stage.jobs(&["recover", &job_id()]);
    assert!(output.status.success(), "{}", said(&output));
    assert_tree("the recovered job", &tree, whole(&stage.job()).as_ref());
    assert_released(&stage, &tree);
}

#[test]
fn a_released_job_of_a_move_folder_leaves_its_symlink() {
    let (stage, tree) = archived(&["move"]);
    let output = stage.jobs(&["recover", &job_id()]);
    assert!(output.status.success(), "{}", said(&output));
    assert_released(&stage, &tree);
    assert_eq!(fs::read_link(stage.job()).unwrap(), stage.archived("move"));
    assert!(
        !stage
            .primary()
            .join(".xpmfs/archive/kept")
            .join(job_id())
            .exists()
    );
}

/// A process that is ended when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sleeping(in_directory: &Path, input: Stdio) -> Process {
    let mut command = Command::new("sleep");
    command.arg("100").current_dir(in_directory).stdin(input);
    Process(command.spawn().unwrap())
}

#[test]
fn what_is_wrong_with_the_arguments_is_named() {
    let (stage, _) = archived(&["backup"]);
    for arguments in [
        &["release"][..],
        &["release", "--older-than", "soon"],
        &["release", "--keep-free", "200%"],
        &["release", "--older-than", "1d", &job_id()],
    ] {
        let output = stage.jobs(arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            said(&output)
        );
    }
    assert!(stage.job().exists());
}

#[test]
fn a_reader_through_the_mount_keeps_what_it_reads() {
    let (stage, _) = archived(&["backup"]);
    let primary = stage.primary();
    let mounted = stage.workspace().mount_archiving(&primary, &[]);
    let in_job = |name: &str| primary.join("jobs").join(job_id()).join(name);
    let model = fs::read(in_job("data/model.bin")).unwrap();
    assert_eq!(
        mounted.location(Path::new("jobs").join(job_id())),
        "primary"
    );

    // A process that has a file of it open through the mount keeps it from being released, and so does a writer.
    let process = sleeping(
        Path::new("/"),
        File::open(in_job("train.out")).unwrap().into(),
    );
    let refused = |reason: &str| {
        let (_, lines) = release(&stage, &["--yes", &job_id()]);
        assert_eq!(lines[0]["reason"], reason, "{lines:?}");
    };
    refused("busy");
    drop(process);
    let writer = OpenOptions::new()
        .append(true)
        .open(in_job("train.out"))
        .unwrap();
    refused("busy");
    drop(writer);

    // Opened after it was looked at, by a process that this one cannot see.
    let (mut releasing, _) = {
        let mut command = stage.xpmfs();
        command.env("XPMFS_TEST_GRACE_MS", "50");
        command.args(["jobs", "release", "-w", "test", "--yes", &job_id()]);
        (Process(command.spawn().unwrap()), ())
    };
    assert!(releasing.0.wait().unwrap().success());
    eventually("the folder serves it", || {
        mounted.location(Path::new("jobs").join(job_id())) == "backup"
    });
    assert_eq!(fs::read(in_job("data/model.bin")).unwrap(), model);
    assert!(in_job("train.done").exists());
    // Its lock can be taken, and nothing comes back by that.
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(in_job("train.lock"))
        .unwrap();
    rustix::fs::flock(lock.as_fd(), FlockOperation::LockExclusive).unwrap();
    assert_eq!(mounted.location(Path::new("jobs").join(job_id())), "backup");
    drop(lock);
    mounted.unmount();
    assert!(!stage.job().exists());
}
