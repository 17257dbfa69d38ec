//! What keeps a job from being deleted: it runs, is in use or pinned, or this user may not rename it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::FlockOperation;

use super::{archived, delete, entries};
use crate::stage::{Stage, TASK, job_id, whole};

/// Deleting the job is refused for this reason, and it stays as it is.
#[track_caller]
fn assert_kept(stage: &Stage, reason: &str, why: &str) {
    let before = whole(&stage.job());
    for arguments in [
        &["jobs", "delete", &job_id()][..],
        &["jobs", "delete", "--yes", &job_id()],
    ] {
        let (success, lines) = entries(stage, arguments);
        assert_eq!(
            (&lines[0]["result"], &lines[0]["reason"]),
            (&"kept".into(), &reason.into()),
            "{lines:?}"
        );
        assert!(lines[0]["why"].as_str().unwrap().contains(why), "{lines:?}");
        assert!(!success);
    }
    assert_eq!(whole(&stage.job()), before);
    assert_eq!(super::records(stage), [] as [std::path::PathBuf; 0]);
    stage.assert_clean();
    stage.verify();
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sleeping(directory: &Path, input: Stdio) -> Process {
    let mut command = Command::new("sleep");
    command.arg("100").current_dir(directory).stdin(input);
    Process(command.spawn().unwrap())
}

fn locked(path: &Path) -> File {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let lock = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    rustix::fs::flock(lock.as_fd(), FlockOperation::LockExclusive).unwrap();
    lock
}

#[test]
fn a_job_that_runs_or_is_in_use_or_pinned_is_kept() {
    let (stage, _) = archived(&["backup"]);
    let job = stage.job();
    for lock in [
        job.join("train.lock"),
        job.join(".experimaestro/train.lock"),
        stage
            .primary()
            .join(".xpmfs/internal")
            .join(job_id())
            .join("train.lock"),
        stage.archived("backup").join("train.lock"),
    ] {
        let held = locked(&lock);
        assert_kept(&stage, "busy", "lock is held");
        drop(held);
        fs::remove_file(lock).unwrap();
    }
    let process = sleeping(Path::new("/"), Stdio::null());
    let pid = format!("{{\"type\": \"local\", \"pid\": {}}}", process.0.id());
    fs::write(job.join("train.pid"), pid).unwrap();
    assert_kept(&stage, "busy", "its process");
    drop(process);
    let process = sleeping(
        Path::new("/"),
        File::open(job.join("train.out")).unwrap().into(),
    );
    assert_kept(&stage, "busy", "train.out");
    drop(process);
    let process = sleeping(&job.join("data"), Stdio::null());
    assert_kept(&stage, "busy", "data");
    drop(process);
    stage.jobs(&["pin", &job_id()]);
    assert_kept(&stage, "pinned", "jobs unpin");
    stage.jobs(&["unpin", &job_id()]);
    assert_eq!(delete(&stage)["result"], "deleted");
}

#[test]
fn a_copy_that_this_user_may_not_rename_keeps_the_job() {
    let workspace = crate::common::Workspace::of_ordinary_user();
    workspace.with_folders(&["backup"]);
    let made = workspace.finished("primary", TASK, "1");
    let job = format!("{TASK}/1");
    let run = |arguments: &[&str]| {
        let mut command = workspace.xpmfs();
        let output = command.args(arguments).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (success, text) = run(&["jobs", "archive", "-w", "test", "--all"]);
    assert!(success, "{text}");
    let task = workspace.folder("backup").join("jobs").join(TASK);
    fs::set_permissions(&task, Permissions::from_mode(0o555)).unwrap();
    let (success, text) = run(&["jobs", "delete", "-w", "test", "--yes", &job]);
    assert!(!success && text.contains("may not move"), "{text}");
    assert!(made.exists() && task.join("1").exists());
    fs::set_permissions(&task, Permissions::from_mode(0o755)).unwrap();
    let (success, text) = run(&["jobs", "delete", "-w", "test", "--yes", &job]);
    assert!(success, "{text}");
    assert!(!made.exists() && !task.join("1").exists());
    let (success, text) = run(&["jobs", "undelete", "-w", "test", &job]);
    assert!(
        success && made.exists() && task.join("1").exists(),
        "{text}"
    );

    // In place, through `fusermount3`.
    let mounted = workspace.mount_in_place();
    let path = mounted.job(TASK, "1");
    let there = || workspace.as_user(|| fs::symlink_metadata(&path).is_ok());
    assert!(there());
    for (command, expected) in [("delete", false), ("undelete", true)] {
        let mut arguments = vec!["jobs", command, "-w", "test", &job];
        arguments.extend((command == "delete").then_some("--yes"));
        let (success, text) = run(&arguments);
        assert!(success && there() == expected, "{command}: {text}");
    }
    mounted.unmount();
}

#[test]
fn a_summary_says_why_jobs_are_kept() {
    let stage = Stage::new(&["backup"]);
    let hashes = crate::others::small_jobs(&stage, 2);
    stage.archive();
    assert!(stage.jobs(&["pin", &hashes[0]]).status.success());
    let output = stage.jobs(&["delete", "*"]);
    let text = crate::stage::said(&output);
    assert!(
        text.contains("1 job would be deleted, 1 kept (pinned)"),
        "{text}"
    );
}
