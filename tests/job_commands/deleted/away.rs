//! Folders that are away while a job is deleted: the job is hidden there, and goes to the trash when the folder is back.

use std::fs;
use std::path::{Path, PathBuf};

use super::{archived, assert_deleted, delete, entries, mount_tending, records, trashed, undelete};
use crate::common::eventually;
use crate::stage::{HASH, Stage, TASK, assert_tree, job_id, run_again, said, whole, write_job};

/// Takes a folder away; returns where it is now.
fn take_away(stage: &Stage, mode: &str) -> PathBuf {
    let away = stage.top().join("away");
    fs::rename(stage.folder(mode), &away).unwrap();
    away
}

/// Whether a folder has jobs of the task on record.
fn is_on_record(primary: &Path) -> bool {
    let known = fs::read_dir(primary.join(".xpmfs/archive/known"))
        .into_iter()
        .flatten();
    let mut records = known.map(|folder| folder.unwrap().path().join(TASK));
    records.any(|record| fs::read(record).is_ok_and(|it| it.ends_with(b"\0")))
}

fn bring_back(stage: &Stage, mode: &str) {
    fs::rename(stage.top().join("away"), stage.folder(mode)).unwrap();
}

#[test]
fn a_job_deleted_while_a_folder_is_away_does_not_reappear() {
    let (stage, tree) = archived(&["backup", "move"]);
    let away = take_away(&stage, "backup");
    let deleted = delete(&stage);
    assert!(
        deleted["away"][0]["location"]
            .as_str()
            .unwrap()
            .starts_with("backup:"),
        "{deleted}"
    );
    assert!(fs::symlink_metadata(stage.job()).is_err() && !stage.archived("move").exists());
    assert!(away.join("jobs").join(job_id()).exists());
    let (_, lines) = entries(&stage, &["trash", "list"]);
    assert!(
        lines[0]["pending"][0]
            .as_str()
            .unwrap()
            .starts_with("backup:"),
        "{lines:?}"
    );
    bring_back(&stage, "backup");
    // The next command completes it, before it looks at anything.
    let output = stage.jobs(&["recover", "--all"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_deleted(&stage, &["backup", "move"], &tree);
    undelete(&stage);
    stage.verify();
}

#[test]
fn a_job_that_was_made_again_meanwhile_is_not_taken_for_the_deleted_one() {
    let (stage, old) = archived(&["backup"]);
    take_away(&stage, "backup");
    delete(&stage);
    write_job(&stage.job());
    run_again(&stage.job());
    let new = whole(&stage.job()).unwrap();
    bring_back(&stage, "backup");
    stage.archive();
    assert_tree("the new job", &new, whole(&stage.job()).as_ref());
    assert_tree("its copy", &new, whole(&stage.archived("backup")).as_ref());
    assert_tree(
        "the old copy",
        &old,
        whole(&trashed(&stage.folder("backup"), "jobs")[0]).as_ref(),
    );
    assert_eq!(records(&stage), [] as [PathBuf; 0]);
    stage.verify();
}

/// Another program has archived the new job there before the deletion is completed.
#[test]
fn a_copy_that_is_newer_than_the_deletion_stays() {
    let (stage, _) = archived(&["backup"]);
    let away = take_away(&stage, "backup");
    delete(&stage);
    let copy = away.join("jobs").join(job_id());
    fs::write(copy.join("train.done"), "").unwrap();
    let new = whole(&copy);
    bring_back(&stage, "backup");
    let (_, lines) = entries(&stage, &["trash", "list"]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(whole(&stage.archived("backup")), new);
    assert_eq!(records(&stage), [] as [PathBuf; 0]);
}

#[test]
fn an_undeletion_before_the_folder_is_back_cancels_the_deletion_there() {
    let (stage, tree) = archived(&["backup"]);
    take_away(&stage, "backup");
    delete(&stage);
    let undeleted = undelete(&stage);
    assert!(
        undeleted["away"][0]["location"]
            .as_str()
            .unwrap()
            .starts_with("backup:"),
        "{undeleted}"
    );
    bring_back(&stage, "backup");
    stage.archive();
    assert_tree("the job", &tree, whole(&stage.job()).as_ref());
    assert_tree("the copy", &tree, whole(&stage.archived("backup")).as_ref());
    assert_eq!(trashed(&stage.folder("backup"), "jobs"), [] as [PathBuf; 0]);
    stage.verify();
}

/// Only the folder that is away has the job: the mount knows it by its record, and it can be made anew once it is deleted.
#[test]
fn a_job_that_only_a_folder_has_which_is_away_can_be_deleted_and_made_anew() {
    let (stage, tree) = archived(&["backup"]);
    fs::remove_dir_all(stage.job()).unwrap();
    let primary = stage.primary();
    let mounted = mount_tending(&stage);
    eventually("the job is on record", || is_on_record(&primary));
    let job = mounted.job(TASK, HASH);
    take_away(&stage, "backup");
    eventually("the folder is away", || {
        fs::metadata(&job).is_err_and(|error| error.raw_os_error() == Some(libc::EIO))
    });
    let deleted = delete(&stage);
    assert_eq!(deleted["result"], "deleted", "{deleted}");
    eventually("it is gone", || {
        fs::metadata(&job).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    });
    let listed = || fs::read_dir(job.parent().unwrap()).unwrap().count();
    assert_eq!(listed(), 0);
    fs::create_dir(&job).unwrap();
    fs::write(job.join("params.json"), "{}").unwrap();
    bring_back(&stage, "backup");
    eventually("the daemon completes the deletion", || {
        !stage.archived("backup").exists()
    });
    assert_tree(
        "the trash",
        &tree,
        whole(&trashed(&stage.folder("backup"), "jobs")[0]).as_ref(),
    );
    assert_eq!(fs::read_dir(&job).unwrap().count(), 1);
    assert_eq!(
        mounted.location(Path::new("jobs").join(job_id())),
        "primary"
    );
    mounted.unmount();
}

/// What `status` shows of each location's trash, by its mode.
fn shown_by_status(stage: &Stage, list: &str) -> serde_json::Value {
    let mut command = stage.xpmfs();
    let output = command.args(["status", "-w", "test", "--json"]).output();
    let json: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    // Mounts that were killed have only a name, which other workspaces have, too.
    let primary = stage.primary();
    let mut listed = json[list].as_array().unwrap().iter();
    let ours = listed.find(|it| it["primary"].as_str() == primary.to_str());
    let locations = ours.and_then(|it| it["locations"].as_array().cloned());
    let shown = locations.unwrap_or_default().into_iter();
    shown
        .map(|mut it| (it["mode"].as_str().unwrap().to_owned(), it["trash"].take()))
        .collect()
}

#[test]
fn status_shows_what_is_in_the_trash_and_what_is_still_to_be_deleted() {
    use serde_json::json;
    let (stage, _) = archived(&["backup"]);
    let none = json!({"primary": null, "backup": null});
    assert_eq!(shown_by_status(&stage, "workspaces"), none);
    take_away(&stage, "backup");
    delete(&stage);
    let waiting =
        json!({"primary": {"jobs": 1, "pending": 0}, "backup": {"jobs": 0, "pending": 1}});
    assert_eq!(shown_by_status(&stage, "workspaces"), waiting);
    let output = stage.xpmfs().args(["status", "-w", "test"]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    for line in [
        "primary: 1 deleted job in the trash, listed by `xpmfs trash list`",
        "backup: 1 job still to be deleted there, listed by",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let mounted = mount_tending(&stage);
    eventually("the mount has counted", || {
        shown_by_status(&stage, "mounts") == waiting
    });
    bring_back(&stage, "backup");
    let both = json!({"primary": {"jobs": 1, "pending": 0}, "backup": {"jobs": 1, "pending": 0}});
    eventually("the deletion is complete", || {
        shown_by_status(&stage, "mounts") == both
    });
    mounted.unmount();
    assert_eq!(shown_by_status(&stage, "workspaces"), both);
}

/// The folder is the own directory of another workspace, whose daemon moves the job to a folder of its own: the old directory is beside the
/// symlink, until it is removed or put back.
#[test]
fn a_deletion_waits_while_another_workspace_moves_the_job() {
    let (stage, tree) = archived(&["backup"]);
    take_away(&stage, "backup");
    delete(&stage);
    bring_back(&stage, "backup");
    let place = stage.archived("backup");
    let aside = place.with_file_name(format!(".tmp.{HASH}"));
    fs::rename(&place, &aside).unwrap();
    let moved = stage.top().join("moved");
    std::os::unix::fs::symlink(&moved, &place).unwrap();
    let pending = || {
        let output = stage.jobs(&["recover", "--all"]);
        let (_, lines) = entries(&stage, &["trash", "list"]);
        assert!(output.status.success(), "{lines:?}: {}", said(&output));
        lines[0]["pending"].as_array().unwrap().len()
    };
    assert_eq!(pending(), 1);
    assert_tree("the job that is being moved", &tree, whole(&aside).as_ref());
    assert!(place.is_symlink());
    // It is put back.
    fs::remove_file(&place).unwrap();
    fs::rename(&aside, &place).unwrap();
    assert_eq!(pending(), 0);
    assert_deleted(&stage, &["backup"], &tree);
}

/// A fresh directory stands in the place of the folder that has the job: the deletion waits for the old one.
#[test]
fn a_deletion_is_not_settled_by_another_directory_in_the_folders_place() {
    let (stage, tree) = archived(&["backup"]);
    let primary = stage.primary();
    let mounted = mount_tending(&stage);
    eventually("the directory is on record", || {
        let known = fs::read_dir(primary.join(".xpmfs/archive/known"));
        let mut folders = known.into_iter().flatten().flatten();
        folders.any(|folder| folder.path().join(".disk").exists())
    });
    mounted.unmount();
    take_away(&stage, "backup");
    delete(&stage);
    let pending = || {
        let (_, lines) = entries(&stage, &["trash", "list"]);
        let pending = lines.first().map(|line| line["pending"][0].to_string());
        pending.is_some_and(|it| it.contains("backup:"))
    };
    for with_jobs in [false, true] {
        let fresh = match with_jobs {
            true => stage.folder("backup").join("jobs"),
            false => stage.folder("backup"),
        };
        fs::create_dir_all(fresh).unwrap();
        assert!(pending(), "with jobs: {with_jobs}");
        let mounted = mount_tending(&stage);
        eventually("the fresh directory is on record", || {
            !is_on_record(&primary)
        });
        mounted.unmount();
        assert!(pending(), "with jobs: {with_jobs}");
        fs::remove_dir_all(stage.folder("backup")).unwrap();
    }
    bring_back(&stage, "backup");
    entries(&stage, &["trash", "list"]);
    assert_deleted(&stage, &["backup"], &tree);
    undelete(&stage);
    stage.verify();
}
