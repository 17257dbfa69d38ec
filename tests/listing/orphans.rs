//! `orphans`, beside those of experimaestro.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{Workspace, fails, python, run};
use crate::generated::{Numbers, line, write_files, write_run};

fn command(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = workspace.xpmfs();
    command.arg("orphans").args(arguments);
    command
}

fn names(workspace: &Workspace, arguments: &[&str]) -> Value {
    let mut command = command(workspace, arguments);
    let output = command.arg("--json").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let listed: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let jobs = listed.as_array().unwrap().iter();
    jobs.map(|job| job["job"].clone()).collect()
}

/// Puts the settings where experimaestro reads them.
fn share_settings(workspace: &Workspace) {
    let directory = workspace.top().join(".config/experimaestro");
    fs::create_dir_all(&directory).unwrap();
    fs::copy(workspace.settings(), directory.join("settings.yaml")).unwrap();
}

/// The orphans of experimaestro: with and without regard to folders.
fn theirs(python: &Path, workspace: &Workspace) -> Value {
    share_settings(workspace);
    let command = python::script(python, &workspace.top(), "list_orphans.py");
    let mut report = python::report(command, &[workspace.primary()]);
    report[workspace.primary().to_str().unwrap()].take()
}

fn assert_same(python: &Path, workspace: &Workspace) -> Value {
    let theirs = theirs(python, workspace);
    let path = workspace.primary();
    let path = path.to_str().unwrap();
    assert_eq!(names(workspace, &[path]), theirs["with_folders"]);
    assert_eq!(
        names(workspace, &[path, "--no-folders"]),
        theirs["no_folders"]
    );
    theirs
}

/// A workspace with jobs that runs of both layouts refer to, or do not, in the primary and in folders.
fn generated(seed: u64) -> Workspace {
    let workspace = Workspace::new();
    let primary = workspace.primary();
    let mut numbers = Numbers::new(seed);
    let mut lines = vec![String::new(); 6];
    for number in 0..60_usize {
        let task = *numbers.one_of(&["my.train", "my.eval", "-x", "a b.é"]);
        let hash = format!("{number:02x}$(x)'");
        match numbers.below(8) {
            0 => {
                workspace.finished("move", task, &hash);
            }
            1 => {
                workspace.finished("primary", task, &hash);
                workspace.finished("backup", task, &hash);
            }
            2 => {
                workspace.finished("use", task, &hash);
                if numbers.below(2) == 0 {
                    workspace.finished("primary", task, &hash);
                }
            }
            3 => {
                // A job of a folder, linked by hand; or a job under its former identifier.
                let target = workspace.finished("use", task, &hash);
                let tasks = primary.join("jobs").join(task);
                fs::create_dir_all(&tasks).unwrap();
                let target = match numbers.below(3) {
                    0 => target,
                    1 => workspace.finished("primary", task, &format!("{hash}-former")),
                    _ => Path::new("/nowhere").to_path_buf(),
                };
                symlink(target, tasks.join(&hash)).unwrap();
            }
            _ => {
                workspace.finished("primary", task, &hash);
            }
        }
        let text = line(task, &hash, &json!({}), 1.0);
        match numbers.below(10) {
            0..=2 => {
                let run = numbers.below(lines.len());
                lines[run] += &text;
            }
            3 => {
                let directory = numbers.one_of(&["jobs", "jobs.bak"]);
                let links = primary.join("xp/old").join(directory).join(task);
                fs::create_dir_all(&links).unwrap();
                symlink(
                    primary.join("jobs").join(task).join(&hash),
                    links.join(&hash),
                )
                .unwrap();
            }
            _ => {}
        }
    }
    for (number, text) in lines.iter().enumerate() {
        let experiment = ["tune", "o'ther"][number % 2];
        write_run(
            &primary,
            experiment,
            &format!("20260118_17074{number}"),
            text,
            &json!({}),
        );
    }
    // An experiment of both layouts, a run elsewhere, files, and what an unfinished copy is staged in.
    fs::create_dir_all(primary.join("xp/tune/jobs")).unwrap();
    let elsewhere = workspace.top().join("elsewhere");
    fs::rename(primary.join("experiments/tune/20260118_170740"), &elsewhere).unwrap();
    symlink(&elsewhere, primary.join("experiments/tune/20260118_170740")).unwrap();
    fs::write(primary.join("jobs/file"), "").unwrap();
    fs::write(primary.join("jobs/my.train/file"), "").unwrap();
    write_files(
        &workspace.folder("backup").join("jobs/my.train/.tmp.x"),
        &[],
    );
    workspace
}

#[test]
fn orphans_are_those_of_experimaestro() {
    let Some(python) = python::interpreter() else {
        return;
    };
    let (mut all, mut ignoring) = (0, 0);
    for seed in 0..4 {
        let workspace = generated(seed);
        let theirs = assert_same(&python, &workspace);
        all += theirs["with_folders"].as_array().unwrap().len();
        ignoring += theirs["no_folders"].as_array().unwrap().len();
    }
    assert!(all > 40 && ignoring > all + 10, "{all} {ignoring}");
}

#[test]
fn nothing_that_is_needed_is_an_orphan() {
    let Some(python) = python::interpreter() else {
        return;
    };
    let workspace = Workspace::new();
    let primary = workspace.primary();
    for hash in ["listed", "unread", "second", "moved", "orphan"] {
        workspace.finished("primary", "t", hash);
    }
    workspace.finished("primary", "u", "second");
    let both = line("t", "second", &json!({}), 1.0) + &line("u", "second", &json!({}), 2.0);
    write_run(&primary, "same", "1", &both, &json!({}));
    // A status that was cut short: experimaestro ignores the run.
    let run = write_run(
        &primary,
        "cut",
        "1",
        &line("t", "listed", &json!({}), 1.0),
        &json!({}),
    );
    fs::write(run.join("status.json"), "{").unwrap();
    // The list of jobs was lost; the run has its symlinks.
    let run = write_run(&primary, "lost", "1", "", &json!({}));
    fs::remove_file(run.join("jobs.jsonl")).unwrap();
    fs::create_dir_all(run.join("jobs/t")).unwrap();
    symlink(primary.join("jobs/t/unread"), run.join("jobs/t/unread")).unwrap();
    // The workspace was at another path.
    fs::create_dir_all(primary.join("xp/old/jobs/t")).unwrap();
    symlink("/former/jobs/t/moved", primary.join("xp/old/jobs/t/moved")).unwrap();
    // What is being copied.
    write_files(&primary.join("jobs/t/.tmp.copy"), &[]);
    assert_eq!(
        names(&workspace, &[primary.to_str().unwrap()]),
        json!(["t/orphan"])
    );
    let theirs = theirs(&python, &workspace);
    let wrong = [
        "t/.tmp.copy",
        "t/listed",
        "t/moved",
        "t/orphan",
        "t/second",
        "t/unread",
    ];
    assert_eq!(theirs["with_folders"], json!(wrong));
    // It fails for a line that is no object.
    fs::write(run.join("jobs.jsonl"), "[]\n").unwrap();
    assert_eq!(
        names(&workspace, &[primary.to_str().unwrap()]),
        json!(["t/orphan"])
    );
    let theirs = self::theirs(&python, &workspace);
    assert!(theirs["with_folders"].is_string(), "{theirs}");
}

#[test]
fn folders_have_no_orphans_beneath_a_mount_either() {
    let workspace = Workspace::new();
    workspace.finished("primary", "t", "orphan");
    workspace.finished("primary", "t", "kept");
    workspace.finished("backup", "t", "kept");
    workspace.finished("use", "t", "colleague");
    workspace.finished("backup", "t", "archived");
    workspace.finished("move", "t", "moved");
    let all = json!(["t/kept", "t/moved", "t/orphan"]);
    let expected = json!(["t/orphan"]);
    {
        let _mounted = workspace.mount_in_place();
        let primary = workspace.primary();
        assert!(primary.join("jobs/t/colleague").exists());
        assert_eq!(names(&workspace, &[primary.to_str().unwrap()]), expected);
        assert_eq!(names(&workspace, &["-w", "test", "--no-folders"]), all);
    }
    let elsewhere = workspace.mountpoint("elsewhere");
    let _mounted = workspace.mount_at(&elsewhere);
    assert!(elsewhere.join("jobs/t/colleague").exists());
    assert_eq!(names(&workspace, &[elsewhere.to_str().unwrap()]), expected);
    symlink("elsewhere", workspace.top().join("link")).unwrap();
    let linked = workspace.top().join("link");
    assert_eq!(names(&workspace, &[linked.to_str().unwrap()]), expected);
}

#[test]
fn orphans_have_sizes_and_a_summary() {
    let workspace = Workspace::new();
    let job = workspace.finished("primary", "t", "a\u{1b}[2J");
    fs::write(job.join("large"), vec![1; 3 << 20]).unwrap();
    workspace.finished("move", "t", "moved");
    let printed = run(&mut command(
        &workspace,
        &["-w", "test", "--size", "--no-folders"],
    ));
    assert!(!printed.contains('\u{1b}'), "{printed:?}");
    assert!(printed.starts_with("STATE  JOB"), "{printed}");
    assert!(printed.contains("t/a\\u{1b}[2J  3.01 MiB"), "{printed}");
    let target = workspace.folder("move").join("jobs/t/moved");
    assert!(printed.contains(target.to_str().unwrap()), "{printed}");
    let output = command(&workspace, &["-w", "test", "--size", "--no-folders"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // What the symlink leads to is not freed.
    assert!(said.contains("2 orphans of 2 jobs (3.0"), "{said}");
    assert!(said.contains("has no experiments"), "{said}");
    write_run(&workspace.primary(), "e", "1", "", &json!({}));
    let output = command(&workspace, &["-w", "test"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("1 orphan of 2 jobs") && !said.contains("no experiments"),
        "{said}"
    );
    let output = fails(&mut command(&workspace, &["/nowhere"]));
    assert!(output.stdout.is_empty());
}
