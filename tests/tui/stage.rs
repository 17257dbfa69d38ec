//! A workspace with one job of each kind, whose screens are the same each time.

use std::fmt::Display;
use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use regex::Regex;
use rustix::process::Pid;

use crate::common::{Terminal, Workspace};

pub(crate) const TRAIN: &str = "my.module.train";
pub(crate) const TEST: &str = "my.module.test";

/// Finished, in the primary alone.
pub(crate) const SINGLE: &str = "a1aaaaaa11111111";
/// Finished, in the primary and in the backup folder.
pub(crate) const BACKED: &str = "b2bbbbbb22222222";
/// Finished, in the backup folder alone.
pub(crate) const ARCHIVED: &str = "c3cccccc33333333";
/// Moved.
pub(crate) const MOVED: &str = "d4dddddd44444444";
/// Failed.
pub(crate) const FAILED: &str = "e5eeeeee55555555";
/// Running, as its files say.
pub(crate) const RUNNING: &str = "f6ffffff66666666";

/// Finished, in the primary and in the backup folder, and no run refers to it.
pub(crate) const RECOVERABLE: &str = "k7kkkkkk77777777";

/// The id of the workspace.
const NAME: &str = "nlp";

/// Gives the workspace of the settings another id.
fn rename(workspace: &Workspace, before: &str, after: &str) {
    let settings = fs::read_to_string(workspace.settings()).unwrap();
    let settings = settings.replacen(&format!("id: {before}\n"), &format!("id: {after}\n"), 1);
    fs::write(workspace.settings(), settings).unwrap();
}

/// Gives it the id with which tests mount.
pub(crate) fn rename_for_mount(workspace: &Workspace) {
    rename(workspace, NAME, "test");
}

/// The workspace, with no mount.
pub(crate) fn workspace() -> Workspace {
    workspace_with(&["use", "backup", "move"])
}

/// The same with these folders.
pub(crate) fn workspace_with(folders: &[&str]) -> Workspace {
    let workspace = Workspace::new();
    workspace.with_folders(folders);
    workspace.tune("{settle: 100ms, scan_interval: 200ms, folder_timeout: 1s}");
    // Of a dead mount, only the name of its workspace is known: those of other tests are not of this one.
    rename(&workspace, "test", NAME);
    workspace.finished("primary", TRAIN, SINGLE);
    workspace.finished("primary", TRAIN, BACKED);
    workspace.finished("backup", TRAIN, BACKED);
    workspace.finished("backup", TRAIN, ARCHIVED);
    workspace.finished("primary", TRAIN, RECOVERABLE);
    workspace.finished("backup", TRAIN, RECOVERABLE);
    workspace.finished("move", TRAIN, MOVED);
    let failed = workspace.finished("primary", TEST, FAILED);
    fs::remove_file(failed.join("test.done")).unwrap();
    let why = br#"{"failure_status": "TIMEOUT", "code": 1}"#;
    fs::write(failed.join("test.failed"), why).unwrap();
    let params = br#"{"version": 3, "workspace": "/w", "tags": {"lr": 0.1}, "objects": [
        {"id": 1, "module": "my.module", "type": "Model", "fields": {"layers": 2}},
        {"id": 2, "module": "my.module", "type": "Test", "fields": {
            "model": {"type": "python", "value": 1}, "rate": 0.1}}]}"#;
    fs::write(failed.join("params.json"), params).unwrap();
    let running = workspace.finished("primary", TEST, RUNNING);
    fs::remove_file(running.join("test.done")).unwrap();
    fs::remove_file(running.join(".experimaestro/status.json")).unwrap();
    fs::write(
        running.join("test.pid"),
        "{\"type\": \"local\", \"pid\": 1}",
    )
    .unwrap();
    fs::write(running.join("test.err"), "first line\nsecond line\n").unwrap();
    write_run(&workspace);
    for (place, task, hash, days) in [
        ("primary", TRAIN, SINGLE, 3),
        ("primary", TRAIN, BACKED, 4),
        ("backup", TRAIN, BACKED, 4),
        ("backup", TRAIN, ARCHIVED, 5),
        ("move", TRAIN, MOVED, 6),
        ("primary", TEST, FAILED, 7),
        ("primary", TEST, RUNNING, 8),
        ("primary", TRAIN, RECOVERABLE, 9),
        ("backup", TRAIN, RECOVERABLE, 9),
    ] {
        age(&path(&workspace, place, task, hash), days);
    }
    workspace
}

/// The directory of a job in a location.
pub(crate) fn path(workspace: &Workspace, place: &str, task: &str, hash: &str) -> PathBuf {
    let root = match place {
        "primary" => workspace.primary(),
        folder => workspace.folder(folder),
    };
    root.join("jobs").join(task).join(hash)
}

/// Makes everything in a job so many days old.
fn age(job: &Path, days: u64) {
    let time = SystemTime::now() - Duration::from_secs(days * 86_400 + 3600);
    let times = FileTimes::new().set_modified(time).set_accessed(time);
    let mut paths = vec![job.to_owned()];
    let mut entries = vec![job.to_owned()];
    while let Some(directory) = entries.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            paths.push(entry.path());
            if entry.file_type().unwrap().is_dir() {
                entries.push(entry.path());
            }
        }
    }
    for path in paths.iter().rev() {
        File::open(path).unwrap().set_times(times).unwrap();
    }
}

/// A run that has all jobs but the one that is in the primary alone, which is an orphan.
fn write_run(workspace: &Workspace) {
    let run = workspace.primary().join("experiments/tune/20260101_000000");
    fs::create_dir_all(&run).unwrap();
    let line = |task: &str, hash: &str, tags: &str| {
        format!("{{\"job_id\": \"{hash}\", \"task_id\": \"{task}\", \"tags\": {tags}}}\n")
    };
    let lines = [
        line(TRAIN, BACKED, "{\"lr\": 0.1, \"model\": \"bm25\"}"),
        line(TRAIN, ARCHIVED, "{\"lr\": 0.2, \"model\": \"splade\"}"),
        line(TRAIN, MOVED, "{}"),
        line(TEST, FAILED, "{\"lr\": 0.1}"),
        line(TEST, RUNNING, "{}"),
    ];
    fs::write(run.join("jobs.jsonl"), lines.concat()).unwrap();
    let status = r#"{"status": "done", "hostname": "node1", "started_at": "2026-01-01T00:00:00"}"#;
    fs::write(run.join("status.json"), status).unwrap();
    let current = workspace.primary().join("experiments/tune/current");
    std::os::unix::fs::symlink("20260101_000000", current).unwrap();
}

/// The dashboard of a workspace in a terminal, with its jobs and their sizes.
pub(crate) fn start(workspace: &Workspace, rows: u16, columns: u16) -> Terminal {
    let terminal = start_with(workspace, rows, columns, |_| {});
    // The title of the jobs, and a size in each of the rows.
    terminal.wait_for("COPIES");
    terminal.wait_until("all sizes to show", |screen| !screen.contains("  ?  "));
    terminal
}

/// The same with more options or another environment, not waiting for anything.
pub(crate) fn start_with(
    workspace: &Workspace,
    rows: u16,
    columns: u16,
    more: impl FnOnce(&mut Command),
) -> Terminal {
    let mut command = workspace.xpmfs();
    command.arg("tui");
    more(&mut command);
    Terminal::start(&command, rows, columns)
}

/// The one child of a process.
pub(crate) fn child_of(process: impl Display) -> Pid {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let child = children.unwrap().trim().parse().unwrap();
    Pid::from_raw(child).unwrap()
}

/// A screen without what differs each time: the name of the workspace's directory, free space, times of this day.
pub(crate) fn normal(screen: &str) -> String {
    let replaced = [
        (r"xpmfs-test-\w{6}", "xpmfs-test-RANDOM"),
        (r" +[\d.]+ [KMGT]iB [█░#.]{16} +\d+ %", "        FREE BAR"),
        (r"process \d+", "process PID"),
        (
            r"20(?:2[7-9]|26-1[12]|26-0[2-9])[-\d]* \d\d:\d\d",
            "TODAY           ",
        ),
    ];
    let screen = screen.to_owned();
    replaced.into_iter().fold(screen, |screen, (what, with)| {
        Regex::new(what)
            .unwrap()
            .replace_all(&screen, with)
            .into_owned()
    })
}
