//! `orphans --clean`.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use crate::common::{Workspace, fails, run};
use crate::generated::{line, write_run};

fn clean(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = workspace.xpmfs();
    command
        .args(["orphans", "-w", "test", "--clean"])
        .args(arguments);
    command
}

/// What becomes of each orphan.
fn outcomes(workspace: &Workspace, arguments: &[&str]) -> Value {
    let output = clean(workspace, arguments).arg("--json").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let listed: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let jobs = listed.as_array().unwrap().iter();
    jobs.map(|job| json!([job["job"], job["result"]])).collect()
}

fn job(workspace: &Workspace, hash: &str) -> std::path::PathBuf {
    workspace.primary().join("jobs/t").join(hash)
}

/// A workspace with a run that needs one job, and with an orphan.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.finished("primary", "t", "needed");
    workspace.finished("primary", "t", "orphan");
    let lines = line("t", "needed", &json!({}), 1.0);
    write_run(&workspace.primary(), "e", "1", &lines, &json!({}));
    workspace
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[test]
fn orphans_go_to_the_trash_and_come_back() {
    let workspace = workspace();
    let copy = workspace.top().join("copy");
    run(Command::new("cp")
        .arg("-a")
        .args([&job(&workspace, "orphan"), &copy]));
    let output = clean(&workspace, &[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 orphan would be removed"),
        "{said}"
    );
    assert!(exists(&job(&workspace, "orphan")));

    let locked = workspace.finished("primary", "t", "running");
    fs::write(locked.join("t.lock"), "").unwrap();
    let lock = File::open(locked.join("t.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    workspace.finished("primary", "t", "pinned");
    run(workspace
        .xpmfs()
        .args(["jobs", "pin", "-w", "test", "pinned"]));
    let expected = json!([
        ["t/orphan", "removed"],
        ["t/pinned", "kept"],
        ["t/running", "kept"]
    ]);
    assert_eq!(outcomes(&workspace, &["--yes", "--force"]), expected);
    for hash in ["needed", "pinned", "running"] {
        assert!(exists(&job(&workspace, hash)), "{hash}");
    }
    assert!(!exists(&job(&workspace, "orphan")));
    run(workspace
        .xpmfs()
        .args(["jobs", "undelete", "-w", "test", "t/orphan"]));
    run(Command::new("diff")
        .arg("-r")
        .args([&job(&workspace, "orphan"), &copy]));

    // Beneath a mount, and by its path.
    drop(lock);
    let mounted = workspace.mount_in_place();
    let mut command = workspace.xpmfs();
    let primary = workspace.primary();
    command.arg("orphans").arg(&primary).args(["--clean", "-y"]);
    run(&mut command);
    assert!(!exists(&job(&workspace, "orphan")) && !exists(&job(&workspace, "running")));
    mounted.unmount();
}

#[test]
fn what_a_folder_has_stays() {
    let workspace = workspace();
    let colleague = workspace.finished("use", "t", "colleague");
    let moved = workspace.finished("move", "t", "moved");
    workspace.finished("primary", "t", "copied");
    let copied = workspace.finished("backup", "t", "copied");
    let outside = workspace.top().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&colleague, job(&workspace, "colleague")).unwrap();
    symlink(&outside, job(&workspace, "outside")).unwrap();
    let folders = ["use", "move", "backup"].map(|mode| workspace.folder(mode).join("jobs"));
    let copies = workspace.top().join("copies");
    fs::create_dir(&copies).unwrap();
    let copy = |folder: &Path| copies.join(folder.parent().unwrap().file_name().unwrap());
    for folder in &folders {
        run(Command::new("cp").arg("-a").args([folder, &copy(folder)]));
    }
    let expected = json!([
        ["t/colleague", "removed"],
        ["t/copied", "kept"],
        ["t/moved", "removed"],
        ["t/orphan", "removed"],
        ["t/outside", "removed"],
    ]);
    let would = outcomes(&workspace, &["--no-folders"]);
    assert_eq!(
        would.to_string().replace("would_remove", "removed"),
        expected.to_string()
    );
    assert_eq!(outcomes(&workspace, &["--no-folders", "--yes"]), expected);
    for folder in &folders {
        run(Command::new("diff").arg("-r").args([folder, &copy(folder)]));
    }
    assert!(outside.is_dir() && colleague.is_dir() && moved.is_dir() && copied.is_dir());
    for hash in ["colleague", "moved", "outside"] {
        assert!(!exists(&job(&workspace, hash)), "{hash}");
    }
    assert!(exists(&job(&workspace, "copied")));
    // The folder serves the job, as before.
    let mounted = workspace.mount_in_place();
    assert!(job(&workspace, "moved").join("t.done").is_file());
    mounted.unmount();
    run(workspace
        .xpmfs()
        .args(["jobs", "undelete", "-w", "test", "t/outside"]));
    assert_eq!(fs::read_link(job(&workspace, "outside")).unwrap(), outside);
}

#[test]
fn a_workspace_whose_jobs_may_be_needed_is_not_cleaned_without_force() {
    let refuses = |workspace: &Workspace, why: &str| {
        let output = fails(&mut clean(workspace, &["--yes"]));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(why) && said.contains("--force"), "{said}");
        assert!(exists(&job(workspace, "orphan")));
        let output = clean(workspace, &[]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(why), "{said}");
    };
    // A colleague's workspace attaches this one.
    let attached = workspace();
    let settings = fs::read_to_string(attached.settings()).unwrap();
    let other = attached.top().join("other");
    fs::create_dir(&other).unwrap();
    let other = format!(
        "  - id: other\n    path: {}\n    folders: [{{path: {}, mode: use}}]\n",
        other.display(),
        attached.primary().display()
    );
    fs::write(attached.settings(), settings + &other).unwrap();
    refuses(
        &attached,
        "the workspace other has this one as a `use` folder",
    );
    run(&mut clean(&attached, &["--yes", "--force"]));
    assert!(!exists(&job(&attached, "orphan")));
    // It has lost its experiments.
    let lost = workspace();
    fs::remove_dir_all(lost.primary().join("experiments")).unwrap();
    refuses(&lost, "no experiments");
    // A run cannot be read.
    let unread = workspace();
    let run = write_run(&unread.primary(), "f", "1", "", &json!({}));
    fs::remove_file(run.join("jobs.jsonl")).unwrap();
    fs::create_dir(run.join("jobs.jsonl")).unwrap();
    refuses(&unread, "cannot be read");
}
