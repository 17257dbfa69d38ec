//! `jobs log`.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};

use crate::common::{Workspace, fails, run};
use crate::generated::write_files;

fn log(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = workspace.xpmfs();
    command.args(["jobs", "log", "-w", "test"]).args(arguments);
    command
}

#[test]
fn a_log_is_printed_wherever_the_job_is() {
    let workspace = Workspace::new();
    for (location, hash) in [
        ("primary", "a1"),
        ("backup", "b1"),
        ("move", "m1"),
        ("backup", "b2"),
    ] {
        let job = workspace.finished(location, "my.train", hash);
        fs::write(job.join("train.err"), format!("one\ntwo\n{hash}\n")).unwrap();
        fs::write(job.join("train.out"), b"out \xff").unwrap();
    }
    for hash in ["a1", "b1", "m1"] {
        assert_eq!(
            run(&mut log(&workspace, &[hash])),
            format!("one\ntwo\n{hash}\n")
        );
        assert_eq!(
            run(&mut log(&workspace, &[hash, "-n", "1"])),
            format!("{hash}\n")
        );
    }
    let output = log(&workspace, &["--std", "my.train/b1"]).output().unwrap();
    assert_eq!(output.stdout, b"out \xff");
    let output = fails(&mut log(&workspace, &["b"]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("my.train/b1") && said.contains("my.train/b2"),
        "{said}"
    );
    let output = fails(&mut log(&workspace, &["my.train"]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("names 4 jobs") && said.contains("my.train/m1"),
        "{said}"
    );
    fs::remove_file(workspace.primary().join("jobs/my.train/a1/train.err")).unwrap();
    let output = fails(&mut log(&workspace, &["a1"]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("train.err yet"), "{said}");
    // A pipe would keep it waiting.
    run(Command::new("mkfifo").arg(workspace.primary().join("jobs/my.train/a1/train.err")));
    let output = fails(&mut log(&workspace, &["a1"]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("not a regular file"), "{said}");
}

#[test]
fn a_log_is_followed_until_the_job_ends() {
    let workspace = Workspace::new();
    let job = workspace.primary().join("jobs/my.train/a1");
    write_files(&job, &[("train.lock", ""), ("train.pid", "{}")]);
    let lock = File::open(job.join("train.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let mut child = log(&workspace, &["-f", "a1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut messages = BufReader::new(child.stderr.take().unwrap());
    let mut message = String::new();
    messages.read_line(&mut message).unwrap();
    assert!(message.contains("waiting for my.train/a1"), "{message}");
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let mut next = |expected: &str| {
        line.clear();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, expected);
    };
    fs::write(job.join("train.err"), "one\n").unwrap();
    next("one\n");
    let mut err = OpenOptions::new()
        .append(true)
        .open(job.join("train.err"))
        .unwrap();
    err.write_all(b"two\n").unwrap();
    next("two\n");
    // It runs again, and writes its log anew.
    fs::rename(job.join("train.err"), job.join("former")).unwrap();
    fs::write(job.join("train.err"), "again\n").unwrap();
    next("again\n");
    // Its marker alone is not its end: it holds its lock, and may still write.
    fs::write(job.join("train.done"), "").unwrap();
    let mut err = OpenOptions::new()
        .append(true)
        .open(job.join("train.err"))
        .unwrap();
    err.write_all(b"late\n").unwrap();
    next("late\n");
    drop(lock);
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert!(child.wait().unwrap().success());
    let mut said = String::new();
    messages.read_to_string(&mut said).unwrap();
    assert!(
        said.contains("runs again") && said.contains("is done"),
        "{said}"
    );
}
