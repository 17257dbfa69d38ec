//! `jobs delete` and `undelete`, and the trash: a deleted job is nowhere, comes back whole, and never by itself.
//!
//! - here: where a job is deleted, and what the commands print
//! - `kept`: what keeps a job from being deleted
//! - `away`: folders that are away meanwhile
//! - `mounted`: through mounts, in place and elsewhere
//! - `emptied`: what is removed for good, and when

mod away;
mod emptied;
mod kept;
mod mounted;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::Mounted;
use crate::stage::{
    HASH, Stage, TASK, Tree, assert_tree, job_id, moment, run_again, said, set_time, whole,
    write_job,
};

/// A stage whose job is archived and in the primary, and the job.
fn archived(modes: &[&'static str]) -> (Stage, Tree) {
    let stage = Stage::new(modes);
    write_job(&stage.job());
    let job = whole(&stage.job()).unwrap();
    stage.archive();
    (stage, job)
}

/// Small archived jobs that have settled long ago; returns their hashes.
fn small_ones(stage: &Stage, count: usize) -> Vec<String> {
    let hashes = crate::others::small_jobs(stage, count);
    for hash in &hashes {
        let job = stage.primary().join("jobs").join(TASK).join(hash);
        for name in crate::tree::tree(&job).into_keys() {
            set_time(&job.join(name), moment(0));
        }
        set_time(&job, moment(0));
    }
    stage.archive();
    hashes
}

/// Mounts elsewhere, with a daemon that tends the trash all the time.
fn mount_tending(stage: &Stage) -> Mounted<'_> {
    let mountpoint = stage.top().join("mnt");
    fs::create_dir_all(&mountpoint).unwrap();
    let mut command = stage.xpmfs();
    command.env("XPMFS_TEST_TRASH_DIVISOR", "20000");
    command.args(["mount", "-w", "test", "--log"]);
    command.arg(stage.top().join("xpmfs.log")).arg(&mountpoint);
    stage.workspace().mounting(&mut command, &mountpoint)
}

/// A command with `--json`: whether it succeeded, and its entries.
fn entries(stage: &Stage, command: &[&str]) -> (bool, Vec<Value>) {
    let (words, rest) = command.split_at(2);
    let mut command = stage.xpmfs();
    command
        .args(words)
        .args(["-w", "test", "--json"])
        .args(rest);
    let output = command.output().unwrap();
    let lines = serde_json::from_slice(&output.stdout);
    let lines = lines.unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    (output.status.success(), lines)
}

fn delete(stage: &Stage) -> Value {
    let (success, mut lines) = entries(stage, &["jobs", "delete", "--yes", &job_id()]);
    assert!(success, "{lines:?}");
    lines.remove(0)
}

fn undelete(stage: &Stage) -> Value {
    let (success, mut lines) = entries(stage, &["jobs", "undelete", &job_id()]);
    assert!(success, "{lines:?}");
    lines.remove(0)
}

/// The entries of a job below the trash of a location.
pub(crate) fn trashed(root: &Path, kind: &str) -> Vec<PathBuf> {
    let dates = fs::read_dir(root.join(".xpmfs/trash"))
        .into_iter()
        .flatten();
    let task = |date: PathBuf| date.join(kind).join(TASK);
    let entries = dates.flat_map(|date| {
        fs::read_dir(task(date.unwrap().path()))
            .into_iter()
            .flatten()
    });
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// The records of deletions that are not complete.
pub(crate) fn records(stage: &Stage) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut below = vec![stage.primary().join(".xpmfs/archive/deleted")];
    while let Some(directory) = below.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => below.push(path),
                false => found.push(path),
            }
        }
    }
    found
}

/// No location has the job, and the trash of each of these has its copy, whole, with its manifest.
#[track_caller]
pub(crate) fn assert_deleted(stage: &Stage, modes: &[&str], expected: &Tree) {
    assert!(
        fs::symlink_metadata(stage.job()).is_err(),
        "the primary has it"
    );
    for mode in modes {
        assert!(!stage.archived(mode).exists(), "{mode} has it");
        let folder = stage.folder(mode);
        let [copy] = &trashed(&folder, "jobs")[..] else {
            panic!("{mode}: {:?}", trashed(&folder, "jobs"));
        };
        assert_tree(mode, expected, whole(copy).as_ref());
        assert_eq!(trashed(&folder, "manifests").len(), 1);
        assert!(!manifest(stage, mode).exists());
    }
    assert_eq!(records(stage), [] as [PathBuf; 0]);
    stage.assert_clean();
}

fn manifest(stage: &Stage, mode: &str) -> PathBuf {
    let manifest = format!(".xpmfs/manifests/{TASK}/{HASH}.json");
    stage.folder(mode).join(manifest)
}

#[test]
fn a_deleted_job_is_nowhere_and_comes_back_whole() {
    let (stage, tree) = archived(&["backup"]);
    let (success, lines) = entries(&stage, &["jobs", "delete", &job_id()]);
    assert!(success && lines[0]["result"] == "would_delete", "{lines:?}");
    assert_tree("a dry run", &tree, whole(&stage.job()).as_ref());
    stage.verify();

    let deleted = delete(&stage);
    assert_eq!(deleted["result"], "deleted", "{deleted}");
    assert!(deleted["freed"].as_u64().unwrap() >= 40_000, "{deleted}");
    let copies = deleted["copies"].as_array().unwrap();
    let of = |copy: &Value| {
        copy["location"]
            .as_str()
            .unwrap()
            .split(':')
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        copies.iter().map(of).collect::<Vec<_>>(),
        ["primary", "backup"]
    );
    assert!(
        copies.iter().all(|copy| copy["state"] == "trash"),
        "{deleted}"
    );
    assert_deleted(&stage, &["backup"], &tree);
    assert_tree(
        "the trash",
        &tree,
        whole(&trashed(&stage.primary(), "jobs")[0]).as_ref(),
    );

    // It is not brought back by accident, and not archived again.
    let (_, lines) = entries(&stage, &["jobs", "recover", "--all"]);
    assert_eq!(lines, [] as [Value; 0]);
    stage.archive();
    stage.verify();
    assert_deleted(&stage, &["backup"], &tree);
    let (success, lines) = entries(&stage, &["trash", "list"]);
    assert!(success);
    assert_eq!(lines[0]["job"], job_id(), "{lines:?}");
    assert_eq!(lines[0]["copies"].as_array().unwrap().len(), 2, "{lines:?}");
    let days = |text: &Value| text.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let kept = days(&lines[0]["until"]).duration_since(days(&lines[0]["deleted"]));
    assert!(
        (7 * 24..=7 * 24 + 1).contains(&kept.as_hours()),
        "{lines:?}"
    );
    let output = stage.jobs(&["delete", "--yes", &job_id()]);
    assert!(
        !output.status.success() && said(&output).contains("was deleted: `xpmfs jobs undelete"),
        "{}",
        said(&output)
    );

    let undeleted = undelete(&stage);
    assert_eq!(undeleted["result"], "undeleted", "{undeleted}");
    assert_tree("the job", &tree, whole(&stage.job()).as_ref());
    assert_tree("the copy", &tree, whole(&stage.archived("backup")).as_ref());
    stage.verify();
    assert_eq!(records(&stage), [] as [PathBuf; 0]);
    let (_, lines) = entries(&stage, &["trash", "list"]);
    assert_eq!(lines, [] as [Value; 0]);
    // Nothing is left of the trash either.
    for root in [stage.primary(), stage.folder("backup")] {
        let left = fs::read_dir(root.join(".xpmfs/trash")).unwrap();
        assert_eq!(left.count(), 0);
    }
}

#[test]
fn a_job_without_folders_or_that_has_not_finished_is_deleted_too() {
    let stage = Stage::new(&["use"]);
    for marker in ["train.done", "train.failed", "none"] {
        write_job(&stage.job());
        fs::rename(stage.job().join("train.done"), stage.job().join(marker)).unwrap();
        let tree = whole(&stage.job()).unwrap();
        delete(&stage);
        assert_deleted(&stage, &[], &tree);
        undelete(&stage);
        assert_tree(marker, &tree, whole(&stage.job()).as_ref());
        fs::remove_dir_all(stage.job()).unwrap();
    }
}

#[test]
fn a_moved_job_is_deleted_with_its_symlink() {
    let (stage, tree) = archived(&["backup", "move"]);
    assert!(stage.job().is_symlink());
    let deleted = delete(&stage);
    assert_eq!(
        deleted["copies"][0]["target"],
        stage.archived("move").to_str().unwrap()
    );
    assert_deleted(&stage, &["backup", "move"], &tree);
    undelete(&stage);
    assert_eq!(fs::read_link(stage.job()).unwrap(), stage.archived("move"));
    stage.verify();
}

/// In the primary, the job is what a purge has left, or has been released; internal files and records go with it.
#[test]
fn a_job_that_only_folders_have_is_deleted_with_what_is_kept_for_it() {
    for purged in [false, true] {
        let (stage, tree) = archived(&["backup"]);
        match purged {
            true => fs::remove_file(stage.job().join("data/model.bin")).unwrap(),
            false => fs::remove_dir_all(stage.job()).unwrap(),
        }
        let own = stage.primary().join(".xpmfs");
        let kept = [
            own.join("internal").join(job_id()).join("train.lock"),
            own.join("archive/kept").join(job_id()),
        ];
        for file in &kept {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        delete(&stage);
        assert_deleted(&stage, &["backup"], &tree);
        assert!(kept.iter().all(|file| !file.exists()));
        undelete(&stage);
        assert_tree("the copy", &tree, whole(&stage.archived("backup")).as_ref());
        assert!(kept.iter().all(|file| file.exists()));
        assert_eq!(stage.job().exists(), purged);
        let output = stage.jobs(&["recover", &job_id()]);
        assert!(output.status.success(), "{}", said(&output));
        assert_tree("the recovered job", &tree, whole(&stage.job()).as_ref());
    }
}

/// A symlink in the primary to a place that is no folder goes; what it leads to stays.
#[test]
fn what_a_symlink_leads_to_elsewhere_stays() {
    let stage = Stage::new(&["backup"]);
    let elsewhere = stage.top().join("elsewhere");
    write_job(&elsewhere);
    let tree = whole(&elsewhere).unwrap();
    symlink(&elsewhere, stage.job()).unwrap();
    delete(&stage);
    assert_deleted(&stage, &[], &tree);
    assert_tree("elsewhere", &tree, whole(&elsewhere).as_ref());
    undelete(&stage);
    assert_eq!(fs::read_link(stage.job()).unwrap(), elsewhere);
}

#[test]
fn a_use_folder_keeps_the_job_visible_and_that_is_reported() {
    let (stage, tree) = archived(&["backup", "use"]);
    let theirs = stage.archived("use");
    fs::create_dir_all(theirs.parent().unwrap()).unwrap();
    crate::stage::duplicate(&stage.job(), &theirs);
    let output = stage.jobs(&["delete", "--yes", &job_id()]);
    let text = said(&output);
    assert!(
        output.status.success() && text.contains("stays visible: use:"),
        "{text}"
    );
    assert_deleted(&stage, &["backup"], &tree);
    assert_tree("theirs", &tree, whole(&theirs).as_ref());
    let output = stage.jobs(&["where", &job_id()]);
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("served"),
        "{}",
        said(&output)
    );
    // Now only they have it, and nothing is deleted there.
    let (success, lines) = entries(&stage, &["jobs", "delete", "--yes", &job_id()]);
    assert!(!success && lines[0]["reason"] == "absent", "{lines:?}");
    assert_tree("theirs", &tree, whole(&theirs).as_ref());
    undelete(&stage);
    stage.verify();
}

#[test]
fn another_workspace_that_uses_the_folder_is_named() {
    let (stage, _) = archived(&["backup"]);
    let settings = fs::read_to_string(stage.settings()).unwrap();
    let other = stage.top().join("other");
    fs::create_dir_all(other.join("jobs")).unwrap();
    let folder = stage.folder("backup");
    let settings = format!(
        "{settings}  - id: colleague\n    path: {}\n    folders:\n      - {{path: {}, mode: use}}\n",
        other.display(),
        folder.display()
    );
    fs::write(stage.settings(), settings).unwrap();
    let output = stage.jobs(&["delete", &job_id()]);
    let text = said(&output);
    assert!(
        text.contains("the workspace colleague uses backup:"),
        "{text}"
    );
    let deleted = delete(&stage);
    assert_eq!(deleted["used_by"][0]["workspace"], "colleague", "{deleted}");
    assert_eq!(deleted["used_by"][0]["mode"], "use", "{deleted}");
}

#[test]
fn a_job_that_is_made_again_is_archived_and_the_deleted_one_stays_in_the_trash() {
    let (stage, old) = archived(&["backup"]);
    delete(&stage);
    write_job(&stage.job());
    run_again(&stage.job());
    let new = whole(&stage.job()).unwrap();
    assert_ne!(old, new);
    stage.archive();
    stage.verify();
    let (success, lines) = entries(&stage, &["jobs", "undelete", &job_id()]);
    assert!(!success && lines[0]["reason"] == "exists", "{lines:?}");
    assert!(
        lines[0]["why"].as_str().unwrap().contains("made again"),
        "{lines:?}"
    );
    assert_tree("the new job", &new, whole(&stage.job()).as_ref());
    assert_tree("its copy", &new, whole(&stage.archived("backup")).as_ref());
    // Both are in the trash, and the last one comes back.
    delete(&stage);
    assert_eq!(trashed(&stage.folder("backup"), "jobs").len(), 2);
    undelete(&stage);
    assert_tree("the new job", &new, whole(&stage.job()).as_ref());
    assert_tree("its copy", &new, whole(&stage.archived("backup")).as_ref());
    assert_tree(
        "the old one",
        &old,
        whole(&trashed(&stage.folder("backup"), "jobs")[0]).as_ref(),
    );
}

#[test]
fn deleted_jobs_are_named_as_others_are() {
    let stage = Stage::new(&["backup"]);
    let hashes = small_ones(&stage, 3);
    let (success, lines) = entries(&stage, &["jobs", "delete", "--yes", TASK]);
    assert!(success && lines.len() == 3, "{lines:?}");
    let undelete = |text: &str| {
        let output = stage.jobs(&["undelete", text]);
        (output.status.success(), said(&output))
    };
    let (success, text) = undelete("none");
    assert!(!success && text.contains("no deleted job"), "{text}");
    let (success, text) = undelete("");
    assert!(!success, "{text}");
    let path = stage.primary().join("jobs").join(TASK).join(&hashes[0]);
    for name in [
        path.to_str().unwrap(),
        &hashes[1],
        &format!("my.*/{}*", &hashes[2]),
    ] {
        let (success, text) = undelete(name);
        assert!(
            success && text.contains("is back in primary, backup:"),
            "{name}: {text}"
        );
    }
    stage.verify_all();
}

#[test]
fn a_summary_says_how_many_jobs_are_back() {
    let stage = Stage::new(&["backup"]);
    crate::others::small_jobs(&stage, 3);
    stage.archive();
    let output = stage.jobs(&["delete", "*", "--yes"]);
    assert!(output.status.success(), "{}", said(&output));
    let output = stage.jobs(&["undelete", "*"]);
    assert!(
        output.status.success() && said(&output).ends_with("\nxpmfs: 3 jobs are back\n"),
        "{}",
        said(&output)
    );
}
