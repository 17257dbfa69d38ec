//! What the commands say of purged jobs, and how they recover them.

use std::fs::{self, File};
use std::path::Path;
use std::process::Output;

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::common::{Workspace, assert_unchanged, names, snapshot};
use crate::mounted::{archived, copy, hash, job};
use crate::scratch::{Random, TASK, files, purge};

fn jobs(workspace: &Workspace, arguments: &[&str]) -> Output {
    let mut command = workspace.xpmfs();
    command.arg("jobs").args(arguments).args(["-w", "test"]);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    let texts = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    texts.concat()
}

fn listed(workspace: &Workspace, arguments: &[&str]) -> Vec<Value> {
    let output = jobs(workspace, &[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)))
}

fn id(number: usize) -> String {
    format!("{TASK}/{}", hash(number))
}

#[track_caller]
fn assert_whole(workspace: &Workspace, number: usize) {
    let (job, copy) = (job(workspace, number), copy(workspace, number));
    assert_eq!(files(&job), files(&copy));
    for name in files(&copy) {
        let read = |top: &Path| fs::read(top.join(&name)).unwrap();
        // A recovery writes the workspace's path into it.
        if name != Path::new("params.json") {
            assert_eq!(read(&job), read(&copy), "{name:?}");
        }
    }
    let names = names(job.parent().unwrap());
    let left = |name: &std::ffi::OsString| name.to_string_lossy().starts_with('.');
    assert!(!names.iter().any(left), "{names:?}");
}

#[test]
fn a_purged_job_is_reported_and_recovered() {
    let workspace = archived(2, &mut Random(41));
    let copies = [0, 1].map(|number| snapshot(&copy(&workspace, number)));
    for name in ["train.done", "data/model.bin"] {
        fs::remove_file(job(&workspace, 0).join(name)).unwrap();
    }
    // This one has its marker, and bookkeeping that is newer: no conflict.
    fs::remove_file(job(&workspace, 1).join("data/model.bin")).unwrap();
    let status = job(&workspace, 1).join(".experimaestro/status.json");
    fs::write(&status, "{\"state\": \"done\", \"new\": 1}").unwrap();
    let found = listed(&workspace, &["where", &id(0)]);
    assert_eq!(found[0]["copies"][0]["state"], "purged", "{found:?}");
    assert!(found[0]["served"].as_str().unwrap().starts_with("backup:"));
    for number in [0, 1] {
        let told = said(&jobs(&workspace, &["archive", &id(number)]));
        assert!(told.contains("a purge has removed files of it"), "{told}");
        let reason = &listed(&workspace, &["archive", &id(number)])[0]["reason"];
        assert_eq!(reason, "purged");
        let output = jobs(&workspace, &["recover", &id(number)]);
        assert!(output.status.success(), "{}", said(&output));
        if number == 1 {
            assert!(fs::read_to_string(&status).unwrap().contains("new"));
            fs::copy(
                copy(&workspace, 1).join(".experimaestro/status.json"),
                &status,
            )
            .unwrap();
        }
        assert_whole(&workspace, number);
    }
    for (number, before) in copies.iter().enumerate() {
        assert_unchanged(&copy(&workspace, number), before);
    }
    let found = listed(&workspace, &["where", &id(0)]);
    assert_eq!(found[0]["copies"][0]["state"], "present", "{found:?}");
    // A recovered job is purged again.
    fs::remove_file(job(&workspace, 0).join("train.out")).unwrap();
    let found = listed(&workspace, &["where", &id(0)]);
    assert_eq!(found[0]["copies"][0]["state"], "purged", "{found:?}");
}

#[test]
fn newer_bookkeeping_is_kept_by_a_recovery() {
    let workspace = archived(1, &mut Random(43));
    let job = job(&workspace, 0);
    for name in [
        "train.done",
        "data/model.bin",
        ".experimaestro/task-outputs.jsonl",
    ] {
        fs::remove_file(job.join(name)).unwrap();
    }
    let kept = [
        (
            ".experimaestro/status.json",
            "{\"state\": \"done\", \"new\": 1}",
        ),
        (".experimaestro/events/event-0.jsonl", "new"),
        (".experimaestro/events/event-1.jsonl", "newer"),
        (".experimaestro/no-backup", ""),
        ("train.lock", ""),
        ("train.pid", "{}"),
    ];
    for (name, text) in kept {
        fs::write(job.join(name), text).unwrap();
    }
    let lock = File::open(job.join("train.lock")).unwrap();
    let output = jobs(&workspace, &["recover", &id(0)]);
    assert!(output.status.success(), "{}", said(&output));
    for (name, text) in kept {
        assert_eq!(fs::read_to_string(job.join(name)).unwrap(), text, "{name}");
    }
    assert!(job.join("data/model.bin").exists() && job.join("train.done").exists());
    // Whoever waited for the lock has the lock of the recovered job.
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    let again = File::open(job.join("train.lock")).unwrap();
    assert!(flock(&again, FlockOperation::NonBlockingLockExclusive).is_err());
}

#[test]
fn all_purged_jobs_are_recovered_together() {
    let random = &mut Random(47);
    let workspace = archived(12, random);
    for number in 0..8 {
        purge(&job(&workspace, number), random);
    }
    fs::remove_dir_all(job(&workspace, 8)).unwrap();
    fs::write(job(&workspace, 9).join("mine"), "x").unwrap();
    fs::remove_file(job(&workspace, 9).join("train.out")).unwrap();
    let changed = snapshot(&job(&workspace, 9));
    let output = jobs(&workspace, &["recover", "--all"]);
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("9 jobs recovered"), "{told}");
    for number in 0..9 {
        assert_whole(&workspace, number);
    }
    assert_unchanged(&job(&workspace, 9), &changed);
    let told = said(&jobs(&workspace, &["recover", "--all"]));
    assert!(told.contains("nothing to recover"), "{told}");
}

#[test]
fn a_running_job_is_not_recovered() {
    let workspace = archived(1, &mut Random(53));
    let job = job(&workspace, 0);
    let lock = File::create(job.join("train.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    fs::remove_file(job.join("train.done")).unwrap();
    let before = snapshot(&job);
    let output = jobs(&workspace, &["recover", &id(0)]);
    let told = said(&output);
    assert!(told.contains("already in the primary"), "{told}");
    assert_unchanged(&job, &before);
    drop(lock);
    assert!(jobs(&workspace, &["recover", &id(0)]).status.success());
    assert!(job.join("train.done").exists());
}
