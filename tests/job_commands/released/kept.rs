//! What keeps a job in the primary: it differs from its copy, has no usable copy, is in use, pinned or not finished.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use rustix::fs::FlockOperation;
use serde_json::Value;

use super::{archived, assert_kept, assert_released, sleeping};
use crate::stage::{Stage, TASK, assert_tree, job_id, said, set_time, whole, write_job};

#[test]
fn a_job_that_differs_from_its_copy_stays() {
    let path = |stage: &Stage, name: &str| stage.job().join(name);
    type Change = fn(&Path);
    let changes: [(&str, Change); 8] = [
        ("note", |job| fs::write(job.join("note"), "").unwrap()),
        ("data/empty/note", |job| {
            fs::write(job.join("data/empty/note"), "").unwrap()
        }),
        ("train.out", |job| {
            // Of the same size and with another time.
            fs::write(job.join("train.out"), "STEP 1\nSTEP 2\n").unwrap();
        }),
        ("train.out", |job| {
            // Of another size and with the same time.
            let time = fs::metadata(job.join("train.out"))
                .unwrap()
                .modified()
                .unwrap();
            fs::write(job.join("train.out"), "step").unwrap();
            set_time(&job.join("train.out"), time);
        }),
        ("train.out", |job| {
            fs::remove_file(job.join("train.out")).unwrap()
        }),
        ("params.json", |job| {
            let mode = Permissions::from_mode(0o600);
            fs::set_permissions(job.join("params.json"), mode).unwrap();
        }),
        ("latest", |job| {
            fs::remove_file(job.join("latest")).unwrap();
            symlink("data/other", job.join("latest")).unwrap();
        }),
        ("data/empty", |job| {
            fs::remove_dir(job.join("data/empty")).unwrap()
        }),
    ];
    for (name, change) in changes {
        let (stage, _) = archived(&["backup"]);
        change(&stage.job());
        let shown = path(&stage, name);
        assert_kept(&stage, "changed", shown.to_str().unwrap());
    }
    // Locks, the state that experimaestro rewrites, and times of directories are no change.
    let (stage, _) = archived(&["backup"]);
    let job = stage.job();
    fs::write(job.join("other.lock"), "").unwrap();
    fs::write(
        job.join(".experimaestro/status.json"),
        "{\"state\": \"done\", \"a\": 1}",
    )
    .unwrap();
    let archived = whole(&stage.archived("backup")).unwrap();
    assert_released(&stage, &archived);
}

#[test]
fn a_job_without_a_usable_archived_copy_stays() {
    let (stage, _) = archived(&["backup"]);
    let manifest = stage
        .folder("backup")
        .join(format!(".xpmfs/manifests/{}.json", job_id()));
    fs::rename(&manifest, stage.top().join("manifest")).unwrap();
    assert_kept(&stage, "no_copy", "has no manifest");
    let remedy = format!("`xpmfs jobs archive {}` compares", job_id());
    assert_kept(&stage, "no_copy", &remedy);
    fs::rename(stage.top().join("manifest"), &manifest).unwrap();
    fs::remove_file(stage.archived("backup").join("train.done")).unwrap();
    assert_kept(&stage, "no_copy", "is not finished");
    fs::remove_dir_all(stage.archived("backup")).unwrap();
    assert_kept(&stage, "no_copy", "no `backup` or `move` folder has it");

    // A `use` folder belongs to another workspace, also if it has a manifest.
    let (other, _) = archived(&["backup"]);
    let stage = Stage::on_disk(&["use"]);
    fs::remove_dir_all(stage.folder("use")).unwrap();
    for (from, to) in [
        (other.folder("backup"), stage.folder("use")),
        (other.job(), stage.job()),
    ] {
        crate::stage::duplicate(&from, &to);
    }
    assert_kept(&stage, "no_copy", "no `backup` or `move` folder has it");
}

/// For a copy without a manifest or with one that cannot be read, and for a job that is in the workspace, was moved, or is only archived.
#[test]
fn the_advice_for_a_copy_without_a_manifest_writes_one() {
    for (modes, moved) in [(&["backup"][..], false), (&["move"], true)] {
        for lost in [false, true] {
            for text in [None, Some("{")] {
                let stage = Stage::on_disk(modes);
                write_job(&stage.job());
                stage.archive();
                let folder = stage.folder(modes[0]);
                let manifest = folder.join(format!(".xpmfs/manifests/{}.json", job_id()));
                match text {
                    None => fs::remove_file(&manifest).unwrap(),
                    Some(text) => fs::write(&manifest, text).unwrap(),
                }
                match (lost, moved) {
                    (true, false) => fs::remove_dir_all(stage.job()).unwrap(),
                    (true, true) => fs::remove_file(stage.job()).unwrap(),
                    (false, _) => {}
                }
                let does = |arguments: &[&str]| {
                    let output = stage.jobs(arguments);
                    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
                    String::from_utf8(output.stdout).unwrap()
                };
                if text.is_none() {
                    let said = said(&stage.jobs(&["verify", &job_id()]));
                    assert!(said.contains("-v shows how to write one"), "{said}");
                    let command = if lost || moved { "recover" } else { "archive" };
                    let advice = format!("  `xpmfs jobs {command} {}`", job_id());
                    let shown = does(&["verify", "-v", &job_id()]);
                    assert!(shown.contains(&advice), "{shown}");
                }
                if lost || moved {
                    does(&["recover", &job_id()]);
                }
                does(&["archive", &job_id()]);
                stage.verify();
            }
        }
    }
}

#[test]
fn a_flipped_byte_is_found_and_another_copy_is_recovered() {
    let (stage, tree) = archived(&["backup", "move"]);
    let output = stage.jobs(&["recover", &job_id()]);
    assert!(output.status.success(), "{}", said(&output));
    let flip = |mode: &str| {
        let path = stage.archived(mode).join("data/model.bin");
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[8], 12_345).unwrap();
        drop(file);
        set_time(&path, time);
        // Its other name comes first.
        stage.archived(mode).join("best.bin")
    };
    // The folder whose copy would serve the job.
    let path = flip("move");
    assert_kept(
        &stage,
        "damaged",
        &format!("{} has another content", path.display()),
    );
    let output = stage.jobs(&["verify", "--all"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !output.status.success() && text.contains("data/model.bin"),
        "{text}"
    );

    fs::remove_dir_all(stage.job()).unwrap();
    let path = stage.folder("backup");
    let output = stage.jobs(&["recover", "-v", &job_id()]);
    assert!(output.status.success(), "{}", said(&output));
    assert_tree("the recovered job", &tree, whole(&stage.job()).as_ref());
    // The other order: the first copy is the damaged one, which is said.
    flip("backup");
    fs::remove_dir_all(stage.archived("move")).unwrap();
    crate::stage::duplicate(&stage.job(), &stage.archived("move"));
    fs::remove_dir_all(stage.job()).unwrap();
    let output = stage.jobs(&["recover", "-v", &job_id()]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("best.bin has another content"), "{text}");
    assert!(text.contains("trying the next copy"), "{text}");
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    assert_tree("the recovered job", &tree, whole(&stage.job()).as_ref());
}

#[test]
fn a_pinned_failed_or_unfinished_job_stays() {
    let (stage, tree) = archived(&["backup"]);
    stage.jobs(&["pin", &job_id()]);
    assert_kept(&stage, "pinned", "pinned");
    stage.jobs(&["unpin", &job_id()]);
    fs::rename(
        stage.job().join("train.done"),
        stage.job().join("train.failed"),
    )
    .unwrap();
    assert_kept(&stage, "job_failed", "failed");
    fs::rename(stage.job().join("train.failed"), stage.top().join("done")).unwrap();
    assert_kept(&stage, "unfinished", "not finished");
    fs::rename(stage.top().join("done"), stage.job().join("train.done")).unwrap();
    assert_released(&stage, &tree);
}

#[test]
fn a_job_in_use_stays() {
    let (stage, tree) = archived(&["backup"]);
    let job = stage.job();
    // Running, by its lock, in both layouts.
    for lock in ["train.lock", ".experimaestro/train.lock"] {
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .open(job.join(lock))
            .unwrap();
        rustix::fs::flock(lock.as_fd(), FlockOperation::LockExclusive).unwrap();
        assert_kept(&stage, "busy", "lock is held");
    }
    // Running, by its process.
    let process = sleeping(Path::new("/"), Stdio::null());
    let pid = format!("{{\"type\": \"local\", \"pid\": {}}}", process.0.id());
    fs::write(job.join("train.pid"), pid).unwrap();
    assert_kept(&stage, "busy", "its process");
    drop(process);
    // Open for writing, for reading, and a current directory.
    let writer = OpenOptions::new()
        .append(true)
        .open(job.join("train.out"))
        .unwrap();
    assert_kept(&stage, "busy", "train.out");
    drop(writer);
    let process = sleeping(
        Path::new("/"),
        File::open(job.join("train.out")).unwrap().into(),
    );
    assert_kept(&stage, "busy", "train.out");
    drop(process);
    let process = sleeping(&job.join("data"), Stdio::null());
    assert_kept(&stage, "busy", "data");
    drop(process);
    assert_released(&stage, &tree);
}

#[test]
fn directories_of_another_user_keep_a_job_before_its_copy_is_read() {
    if !crate::common::is_root() {
        return;
    }
    let workspace = crate::common::Workspace::of_ordinary_user();
    workspace.with_folders(&["backup"]);
    let made = workspace.finished("primary", TASK, "1");
    fs::create_dir(made.join("theirs")).unwrap();
    workspace.give_away();
    crate::common::run(
        workspace
            .xpmfs()
            .args(["jobs", "archive", "-w", "test", "--all"]),
    );
    std::os::unix::fs::chown(made.join("theirs"), Some(0), Some(0)).unwrap();
    let job = format!("{TASK}/1");
    // Also a dry run knows that the job stays.
    let mut command = workspace.xpmfs();
    command.args(["--json", "jobs", "release", "-w", "test", &job]);
    let output = command.output().unwrap();
    let lines: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(lines[0]["reason"], "unsafe", "{lines:?}");
}
