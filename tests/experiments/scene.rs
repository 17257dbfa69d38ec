//! A workspace with a run and a partial of its job, as experimaestro leaves them.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::common::{Workspace, run, write_job};

pub(crate) const TASK: &str = "my.module.train";
pub(crate) const RUN: &str = "20260101_000000";
pub(crate) const LATER: &str = "20260101_000000.2";

/// A workspace with one `backup` folder.
pub(crate) fn workspace() -> Workspace {
    let workspace = Workspace::builder()
        .folders(&["backup"])
        .keys("{settle: 100ms, scan_interval: 100ms}")
        .build();
    fs::remove_dir(workspace.folder("backup").join("jobs")).unwrap();
    workspace
}

/// A finished job that names a partial, which is made with one file.
pub(crate) fn job(workspace: &Workspace, hash: &str, partial: &str) -> PathBuf {
    let job = workspace.primary().join("jobs").join(TASK).join(hash);
    write_job(&job, TASK);
    let path = format!("partials/{TASK}/ck/{partial}/model.pt");
    let params = format!(
        r#"{{"workspace": "{}", "version": 3, "objects": [{{"fields": {{"ck": {{"type": "path", "value": "{path}", "base": "workspace"}}}}}}]}}"#,
        workspace.primary().display()
    );
    fs::write(job.join("params.json"), params).unwrap();
    write(&workspace.primary().join(&path), "weights");
    let locks = workspace
        .primary()
        .join(format!("partials/{TASK}/ck/{partial}/.experimaestro/locks"));
    write(&locks.join("ipc.lock"), "");
    write(
        &locks.join("informations.json"),
        r#"{"max_write_locks": 1}"#,
    );
    job
}

/// A run that has ended, of these jobs, which is the current one.
pub(crate) fn finished(workspace: &Workspace, run: &str, jobs: &[&str]) -> PathBuf {
    let path = workspace.primary().join("experiments/xp").join(run);
    for hash in jobs {
        let link = path.join("jobs").join(TASK).join(hash);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(workspace.primary().join("jobs").join(TASK).join(hash), link).unwrap();
    }
    let lines = jobs.iter().map(|hash| {
        format!("{{\"job_id\": \"{hash}\", \"task_id\": \"{TASK}\", \"tags\": {{\"lr\": 0.1}}, \"timestamp\": 1767225600.0}}\n")
    });
    write(&path.join("jobs.jsonl"), &lines.collect::<String>());
    write(&path.join("objects.jsonl"), "");
    write(&path.join("environment.json"), "{}");
    write(&path.join(".status.json.lock"), "");
    status(&path, "done");
    write(&workspace.primary().join("experiments/xp/lock"), "");
    let current = workspace.primary().join("experiments/xp/current");
    let _ = fs::remove_file(&current);
    symlink(run, current).unwrap();
    settle(&workspace.primary());
    path
}

/// Writes the status of a run as experimaestro does, by a rename.
pub(crate) fn status(run: &Path, status: &str) {
    write(
        &run.join("status.json.tmp"),
        &format!(r#"{{"status": "{status}"}}"#),
    );
    fs::rename(run.join("status.json.tmp"), run.join("status.json")).unwrap();
}

pub(crate) fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Waits until everything has settled: the settle time goes by the times of changes, which cannot be set.
pub(crate) fn settle(_: &Path) {
    std::thread::sleep(Duration::from_millis(150));
}

/// Archives once; returns what is printed.
pub(crate) fn archive(workspace: &Workspace) -> String {
    run(workspace.xpmfs().args(["archive", "-w", "test", "-v"]))
}

pub(crate) fn archives(workspace: &Workspace) -> Output {
    let mut command = workspace.xpmfs();
    command
        .args(["archive", "-w", "test", "-v"])
        .output()
        .unwrap()
}

pub(crate) fn archive_json(workspace: &Workspace) -> Vec<Value> {
    let printed = run(workspace.xpmfs().args(["--json", "archive", "-w", "test"]));
    serde_json::from_str(&printed).unwrap()
}

/// The entries of `xpmfs archive --json` that are of runs and partials: item and result.
pub(crate) fn items(entries: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let items = entries.iter().filter(|entry| entry["item"].is_string());
    items
        .map(|entry| (text(&entry["item"]), text(&entry["result"])))
        .collect()
}

/// The paths below a directory, with the contents of files and the targets of symlinks; without xpmfs's own.
pub(crate) fn tree(top: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left = vec![top.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let shown = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
            if shown == ".xpmfs" {
                continue;
            }
            if path.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                found.push((shown, format!("-> {}", target.display())));
            } else if path.is_dir() {
                left.push(path);
            } else {
                found.push((
                    shown,
                    String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned(),
                ));
            }
        }
    }
    found.sort();
    found
}

/// Holds a lock in a process of its own until it is dropped.
pub(crate) struct Held(std::process::Child);

pub(crate) fn hold(lock: &Path) -> Held {
    let mut command = Command::new("flock");
    command
        .arg("-x")
        .arg(lock)
        .args(["sh", "-c", "echo held; read x"]);
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "held\n");
    Held(child)
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Sets the time of the last change of a file, to the past.
pub(crate) fn age(path: &Path, seconds: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds))
        .unwrap();
}
