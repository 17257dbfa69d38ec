//! A job is moved only when each `backup` folder has it, where the folder's path leads at that moment.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::Workspace;
use crate::job;
use crate::stage::{assert_whole, at_once, until, verify_all, watch};

/// A workspace whose job takes some seconds to copy to the `backup` folder, and some to be moved.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup", "move"]);
    workspace.tune("{settle: 100ms, scan_interval: 200ms, bandwidth: 1M}");
    let job = workspace.primary().join(job::path(0));
    job::write_unfinished(&job, 0);
    fs::write(job.join("large"), vec![1; 3 << 20]).unwrap();
    fs::write(job.join("train.done"), "").unwrap();
    workspace
}

fn is_moved(workspace: &Workspace) -> bool {
    workspace.primary().join(job::path(0)).is_symlink()
}

/// Where the job is put together in a folder.
fn staged(folder: &Path) -> PathBuf {
    let name = format!(".tmp.{}", job::hash(0));
    folder.join(job::path(0)).with_file_name(name)
}

/// Takes the `backup` folder away, as with its disk; gives where it is then.
fn take_away(workspace: &Workspace) -> PathBuf {
    let away = workspace.top().join("away");
    fs::rename(workspace.folder("backup"), &away).unwrap();
    away
}

#[test]
fn a_job_whose_backup_folder_is_replaced_before_it_has_moved_is_copied_there_first() {
    at_once(["backup", "move"], |under_way| {
        let workspace = workspace();
        let primary = workspace.primary();
        let expected = job::tree(&primary.join(job::path(0)));
        let _watching = watch(&workspace);
        let [backup, target] = ["backup", "move"].map(|mode| workspace.folder(mode));
        let growing = staged(&workspace.folder(under_way)).join("large");
        until("it is being copied", || growing.exists());
        assert!(!is_moved(&workspace));
        take_away(&workspace);
        fs::create_dir_all(backup.join("jobs")).unwrap();
        until("it is moved", || is_moved(&workspace));
        let copy = backup.join(job::path(0));
        assert!(copy.join("train.done").exists(), "it has no backup");
        for folder in [&backup, &target] {
            assert_whole(folder, 0..1, |_| expected.clone());
        }
        verify_all(&workspace, 2);
    });
}

#[test]
fn a_job_whose_backup_folder_is_away_is_moved_when_it_is_back() {
    let workspace = workspace();
    let _watching = watch(&workspace);
    let [backup, target] = ["backup", "move"].map(|mode| workspace.folder(mode));
    let growing = staged(&target).join("large");
    until("it is being moved", || growing.exists());
    let away = take_away(&workspace);
    until("it waits", || {
        let log = fs::read_to_string(workspace.top().join("watch.log")).unwrap();
        assert!(!is_moved(&workspace), "it has no backup");
        log.contains("it is not moved before")
    });
    fs::rename(&away, &backup).unwrap();
    until("it is moved", || is_moved(&workspace));
    verify_all(&workspace, 2);
}

#[test]
fn a_job_that_a_backup_folder_is_not_to_have_is_moved_without_it() {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup", "move"]);
    let settings = fs::read_to_string(workspace.settings()).unwrap();
    let excluding = format!("mode: backup, exclude: [\"{}/*\"]", job::TASK);
    let settings = settings.replace("mode: backup", &excluding);
    fs::write(workspace.settings(), settings).unwrap();
    workspace.tune("{settle: 100ms, scan_interval: 200ms}");
    job::make(&workspace.primary(), 0);
    let _watching = watch(&workspace);
    until("it is moved", || is_moved(&workspace));
    assert!(!workspace.folder("backup").join(job::path(0)).exists());
}
