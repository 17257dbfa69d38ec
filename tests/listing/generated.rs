//! A workspace with jobs in each state, tags of each kind, and broken files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::{Workspace, run};

/// Numbers that look random, and are the same in each run.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Numbers {
        Numbers(seed)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        // Knuth's MMIX generator.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    pub(crate) fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// A job's line in `jobs.jsonl`.
pub(crate) fn line(task: &str, hash: &str, tags: &Value, submitted: f64) -> String {
    let line = json!({"job_id": hash, "task_id": task, "tags": tags, "timestamp": submitted});
    format!("{line}\n")
}

/// Writes a run of an experiment; `current` leads to it.
pub(crate) fn write_run(
    workspace: &Path,
    experiment: &str,
    run: &str,
    lines: &str,
    states: &Value,
) -> PathBuf {
    let directory = workspace.join("experiments").join(experiment).join(run);
    fs::create_dir_all(&directory).unwrap();
    let status = json!({
        "experiment_id": experiment, "run_id": run, "status": "done", "hostname": "node",
        "started_at": "2026-01-18T17:07:44", "ended_at": null, "job_states": states,
    });
    fs::write(directory.join("status.json"), status.to_string()).unwrap();
    fs::write(directory.join("jobs.jsonl"), lines).unwrap();
    let current = directory.with_file_name("current");
    let _ = fs::remove_file(&current);
    symlink(run, current).unwrap();
    directory
}

/// Makes a job directory with these files.
pub(crate) fn write_files(job: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(job.join(".experimaestro")).unwrap();
    for (name, content) in files {
        fs::write(job.join(name), content).unwrap();
    }
}

/// The states that a job can be in on disk.
fn write_state(job: &Path, events: &Path, number: usize) {
    let hash = job.file_name().unwrap().to_str().unwrap();
    let status = |text: &str| (".experimaestro/status.json", text.to_owned());
    let mut files: Vec<(&str, String)> = match number % 16 {
        0 | 1 => vec![
            ("train.done", String::new()),
            status(r#"{"state": "running"}"#),
        ],
        2 => vec![("train.failed", r#"{"failure_status": "timeout"}"#.into())],
        3 => vec![("train.failed", "1\n".into())],
        4 => vec![("train.failed", "0".into())],
        5 => vec![
            ("train.done", String::new()),
            ("train.failed", "1".into()),
            status("{}"),
        ],
        6 => vec![("train.pid", r#"{"type": "local", "pid": 1}"#.into())],
        7 => vec![
            ("train.pid", r#"{"type": "local", "pid": 1}"#.into()),
            status(r#"{"state": "scheduled"}"#),
        ],
        8 => vec![("train.pid", "not JSON".into())],
        9 => vec![status(r#"{"state": "done"}"#)],
        10 => vec![status(r#"{"state": "ERROR", "failure_reason": "MEMORY"}"#)],
        11 => vec![status(r#"{"state": "failed"}"#)],
        12 => vec![status("broken")],
        13 => vec![status(r#"{"state": "waiting", "events_count": 1}"#)],
        14 => vec![status(r#"{"state": "unheard-of"}"#)],
        _ => vec![],
    };
    let files: Vec<(&str, &str)> = files
        .iter_mut()
        .map(|(name, text)| (*name, &**text))
        .collect();
    write_files(job, &files);
    if number % 16 == 13 {
        fs::create_dir_all(events).unwrap();
        let event = |state: &str| {
            format!(
                "{{\"event_type\":\"JobStateChangedEvent\",\"job_id\":\"{hash}\",\"state\":\"{state}\",\"timestamp\":1.0}}\n"
            )
        };
        // That of the task `my.module.train`.
        let digits = task_digits();
        fs::write(
            events.join(format!("{digits}-{hash}-0.jsonl")),
            event("error"),
        )
        .unwrap();
        let later = event("scheduled") + &event("running");
        fs::write(events.join(format!("{digits}-{hash}-1.jsonl")), later).unwrap();
    }
}

/// The digits for the task [`TASK`] in the names of its events: the start of its SHA-256.
fn task_digits() -> String {
    let command = format!("printf %s {TASK} | sha256sum");
    let printed = run(std::process::Command::new("sh").args(["-c", &command]));
    printed.split_at(8).0.to_owned()
}

/// The task of the generated jobs.
pub(crate) const TASK: &str = "my.module.train";

/// An experiment `tune` with a hundred jobs, and an older run of it with other tags.
pub(crate) fn tune(workspace: &Workspace, kinds_of_tags: bool) {
    let primary = workspace.primary();
    let mut numbers = Numbers::new(7);
    let (mut lines, mut older) = (String::new(), String::new());
    let mut states = json!({});
    for number in 0..100_usize {
        let hash = format!("{number:04x}{:060x}", number * 7919);
        let mut tags = json!({});
        let texts = ["bm25", "splade", "BM25", "bm25 ", "", "a.b", "x\ny", "é"];
        for tag in ["model", "other", "x-y_1", "and"] {
            if numbers.below(4) > 0 {
                tags[tag] = json!(numbers.one_of(&texts));
            }
        }
        if kinds_of_tags {
            tags["lr"] = numbers
                .one_of(&[json!(0.1), json!(1e-5), json!(3), json!(0)])
                .clone();
            tags["on"] = numbers
                .one_of(&[json!(true), json!(false), Value::Null])
                .clone();
        }
        lines += &line(TASK, &hash, &tags, 1_795_313_165.0 + number as f64);
        older += &line(TASK, &hash, &json!({"model": "older"}), 1_700_000_000.0);
        if number % 3 == 0 {
            let state = numbers.one_of(&["done", "error:TIMEOUT", "waiting", "running"]);
            states[hash.as_str()] = json!(state);
        }
        if number % 20 != 19 {
            let job = primary.join("jobs").join(TASK).join(&hash);
            write_state(&job, &primary.join(".events/jobs"), number);
        }
    }
    // Lines that experimaestro skips, and a job that was submitted again with other tags.
    lines += "\nnot JSON\n{\"task_id\": \"t\"}\n";
    let again = format!("{:04x}{:060x}", 5, 5 * 7919);
    lines += &line(TASK, &again, &json!({"model": "again"}), 1_795_313_170.5);
    write_run(&primary, "tune", "20250101_000000", &older, &json!({}));
    write_run(&primary, "tune", "20260118_170744", &lines, &states);
}
