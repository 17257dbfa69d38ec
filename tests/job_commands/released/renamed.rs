//! A job is renamed before it is removed: it is put back if it is changed or used then, and after a crash if its copy is gone.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::inotify;

use super::{Process, archived};
use crate::common::{self, eventually};
use crate::stage::{Stage, assert_tree, job_id, said, whole};

/// How long [`releasing`] keeps the renamed directory.
const GRACE_MS: u64 = 4000;

/// Longer than anything else takes.
const LONG_GRACE_MS: u64 = 60_000;

/// Starts a release that keeps the renamed directory for a while; returns it and that directory.
fn releasing(stage: &Stage, grace_ms: u64) -> (Process, PathBuf) {
    let mut command = stage.xpmfs();
    command.env("XPMFS_TEST_GRACE_MS", grace_ms.to_string());
    command.args(["jobs", "release", "-w", "test", "--yes", &job_id()]);
    command.stderr(Stdio::piped());
    let process = Process(command.spawn().unwrap());
    let aside = stage.primary().join(".xpmfs/released").join(job_id());
    eventually("it is renamed", || aside.exists());
    assert!(!stage.job().exists());
    (process, aside)
}

#[test]
fn a_job_that_is_changed_or_opened_after_the_rename_is_put_back() {
    type Change = fn(&Path) -> Option<File>;
    let changes: [(&str, Change); 3] = [
        ("was changed meanwhile", |job| {
            fs::write(job.join("note"), "").unwrap();
            None
        }),
        ("was changed meanwhile", |job| {
            fs::write(job.join("train.out"), "more").unwrap();
            None
        }),
        ("uses", |job| {
            let path = job.join("train.out");
            Some(OpenOptions::new().append(true).open(path).unwrap())
        }),
    ];
    for (why, change) in changes {
        let (stage, _) = archived(&["backup"]);
        let (mut process, aside) = releasing(&stage, GRACE_MS);
        let held = change(&aside);
        let changed = whole(&aside).unwrap();
        let status = process.0.wait().unwrap();
        let mut text = String::new();
        process
            .0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert!(!status.success() && text.contains(why), "{why}: {text}");
        assert_tree(why, &changed, whole(&stage.job()).as_ref());
        assert!(!aside.exists());
        stage.assert_clean();
        drop(held);
    }
}

#[test]
fn an_interrupted_release_puts_the_job_back_at_once() {
    let (stage, tree) = archived(&["backup"]);
    let (mut process, aside) = releasing(&stage, LONG_GRACE_MS);
    let began = std::time::Instant::now();
    let pid = process.0.id().to_string();
    let signal = Command::new("kill").args(["-INT", &pid]).status();
    assert!(signal.unwrap().success());
    assert!(!process.0.wait().unwrap().success());
    assert!(began.elapsed() < Duration::from_millis(LONG_GRACE_MS));
    let mut text = String::new();
    let mut stderr = process.0.stderr.take().unwrap();
    stderr.read_to_string(&mut text).unwrap();
    assert!(text.contains("every job is whole"), "{text}");
    assert_tree("the job", &tree, whole(&stage.job()).as_ref());
    assert!(!aside.exists());
    stage.assert_clean();
}

#[test]
fn a_job_that_is_put_back_is_read_and_changed_through_a_mount() {
    let (stage, _) = archived(&["backup"]);
    let mounted = stage
        .workspace()
        .mount_at(&stage.workspace().mountpoint("elsewhere"));
    let job = mounted.path().join("jobs").join(job_id());
    let all = common::names(&job);
    // An editor watches the directory, so that the kernel keeps its node.
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, &job, inotify::WatchFlags::CREATE).unwrap();
    let (mut process, aside) = releasing(&stage, LONG_GRACE_MS);
    let pid = process.0.id().to_string();
    let signal = Command::new("kill").args(["-INT", &pid]).status();
    assert!(signal.unwrap().success());
    assert!(!process.0.wait().unwrap().success());
    assert!(!aside.exists());
    assert_eq!(common::names(&job), all);
    fs::write(job.join("new"), "").unwrap();
    assert!(stage.job().join("new").exists());
    assert_eq!(common::names(&job).len(), all.len() + 1);
}

/// Another process may run the job again at its path meanwhile: neither directory is lost.
#[test]
fn a_job_that_is_made_again_meanwhile_is_kept_beside() {
    let (stage, tree) = archived(&["backup"]);
    let (mut process, aside) = releasing(&stage, GRACE_MS);
    fs::create_dir(stage.job()).unwrap();
    fs::write(stage.job().join("train.out"), "again").unwrap();
    fs::write(aside.join("note"), "").unwrap();
    assert!(!process.0.wait().unwrap().success());
    let mut text = String::new();
    process
        .0
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(text.contains(aside.to_str().unwrap()), "{text}");
    assert!(aside.join("note").exists());
    assert_eq!(fs::read(stage.job().join("train.out")).unwrap(), b"again");
    assert_tree("the copy", &tree, whole(&stage.archived("backup")).as_ref());
}

/// A crash has left the renamed directory; then the next command decides by the archived copy.
#[test]
fn after_a_crash_the_job_is_put_back_unless_its_copy_stands() {
    let crashed = || {
        let (stage, tree) = archived(&["backup"]);
        let (process, aside) = releasing(&stage, GRACE_MS);
        drop(process);
        (stage, tree, aside)
    };
    let clear = |stage: &Stage| {
        let output = stage.jobs(&["archive", "--all"]);
        assert!(output.status.success(), "{}", said(&output));
        stage.assert_clean();
    };
    // The copy stands: the rest is removed, also of a half removed directory.
    for half in [false, true] {
        let (stage, tree, aside) = crashed();
        if half {
            fs::remove_file(aside.join("train.done")).unwrap();
            fs::remove_file(aside.join("data/model.bin")).unwrap();
        }
        clear(&stage);
        assert!(!aside.exists() && !stage.job().exists());
        assert_tree("the copy", &tree, whole(&stage.archived("backup")).as_ref());
    }
    // It was written to.
    let (stage, _, aside) = crashed();
    fs::write(aside.join("note"), "new").unwrap();
    clear(&stage);
    assert!(stage.job().join("note").exists() && !aside.exists());
    // The copy has gone, or is torn.
    for gone in [false, true] {
        let (stage, tree, aside) = crashed();
        match gone {
            true => fs::remove_dir_all(stage.archived("backup")).unwrap(),
            false => fs::remove_file(stage.archived("backup").join("train.out")).unwrap(),
        }
        stage.jobs(&["archive", "--all"]);
        assert_tree("the job", &tree, whole(&stage.job()).as_ref());
        assert!(!aside.exists());
    }
    // Its folder is missing for now: all stays, until it is back.
    let (stage, tree, aside) = crashed();
    let (folder, away) = (stage.folder("backup"), stage.top().join("away"));
    fs::rename(&folder, &away).unwrap();
    stage.jobs(&["archive", "--all"]);
    assert_tree("the directory", &tree, whole(&aside).as_ref());
    fs::rename(&away, &folder).unwrap();
    clear(&stage);
    assert!(!aside.exists() && !stage.job().exists());
}
