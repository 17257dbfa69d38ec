//! What a person at a terminal sees of a command that takes a while, and what remains of one that is stopped.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::common::eventually;
use super::stage::{HASH, Stage, TASK, job_id, leftovers, said, write_job};
use rustix::process::{Pid, Signal, kill_process};

/// The size of the one large job.
const SIZE: usize = 12 << 20;

fn slow(stage: &Stage) {
    let settings = fs::read_to_string(stage.settings()).unwrap();
    let slow = settings.replace("{settle: 0s", "{bandwidth: 4MiB, settle: 0s");
    assert_ne!(settings, slow);
    fs::write(stage.settings(), slow).unwrap();
}

/// Runs a command on jobs at a terminal, of which script(1) makes one.
fn at_a_terminal(stage: &Stage, arguments: &str) -> String {
    let xpmfs = stage.xpmfs();
    let words: Vec<String> = std::iter::once(xpmfs.get_program())
        .chain(xpmfs.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let command = format!("stty cols 120; {} jobs {arguments}", words.join(" "));
    let mut script = stage.workspace().command("script");
    script.args(["-qec", &command, "/dev/null"]);
    // Without it, a terminal counts as one that cannot show progress.
    script.env("TERM", "xterm");
    let output = script.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments}: {text}");
    text
}

#[test]
fn a_single_large_job_shows_bytes_total_rate_and_time_left() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    fs::write(stage.job().join("large"), vec![3; SIZE]).unwrap();
    slow(&stage);
    let job = job_id();
    let shows = |arguments: &str, total: &str| {
        let text = at_a_terminal(&stage, arguments);
        let total = format!(" MiB of {total}");
        let complete = |line: &&str| {
            let parts = [&total, "iB/s, ", "s left, ", "0 of 1 job"];
            parts.iter().all(|part| line.contains(part))
        };
        assert!(
            text.split('\r').any(|line| complete(&line)),
            "{arguments}: {text}"
        );
    };
    shows(&format!("archive -w test {job}"), "16.");
    // The copy and the original are read.
    shows("verify -w test --all", "32.");
    fs::remove_dir_all(stage.job()).unwrap();
    shows(&format!("recover -w test {job}"), "16.");
    // Not at a terminal, there is no line.
    fs::remove_dir_all(stage.job()).unwrap();
    let output = stage.jobs(&["recover", &job]);
    assert_eq!(said(&output).lines().count(), 1, "{}", said(&output));
}

/// The `xpmfs` that a process has started. strace first starts others, to find out what the kernel can do.
fn child_of(parent: u32) -> Pid {
    let children = format!("/proc/{parent}/task/{parent}/children");
    let mut child = None;
    eventually("the command has started", || {
        let text = fs::read_to_string(&children).unwrap_or_default();
        child = text.split_whitespace().find_map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (name == "xpmfs\n").then(|| pid.parse().ok())?
        });
        child.is_some()
    });
    Pid::from_raw(child.unwrap()).unwrap()
}

#[test]
fn a_second_interrupt_names_what_remains_and_the_same_command_removes_it() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    fs::write(stage.job().join("large"), vec![3; SIZE]).unwrap();
    let fast = fs::read(stage.settings()).unwrap();
    slow(&stage);
    // Removing what was begun takes some seconds.
    let trace = stage.top().join("strace");
    let strace = [
        "-e".to_owned(),
        "inject=unlinkat:delay_enter=1500000".to_owned(),
        "-o".to_owned(),
        trace.to_str().unwrap().to_owned(),
    ];
    let mut command = stage.by_one_thread("archive", &strace);
    let mut traced = command.stderr(Stdio::piped()).spawn().unwrap();
    let pid = child_of(traced.id());
    let staging = stage
        .folder("backup")
        .join(format!("jobs/{TASK}/.tmp.{HASH}"));
    eventually("some of it is copied", || {
        fs::metadata(staging.join("large")).is_ok_and(|file| file.len() > 0)
    });
    kill_process(pid, Signal::INT).unwrap();
    let mut errors = BufReader::new(traced.stderr.take().unwrap());
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    assert!(
        line.contains("interrupted: removing unfinished copies"),
        "{line}"
    );
    // Two signals within a quarter of a second count as one.
    let first = Instant::now();
    eventually("the second counts", || {
        first.elapsed() > Duration::from_millis(400)
    });
    kill_process(pid, Signal::INT).unwrap();
    let mut rest = String::new();
    errors.read_to_string(&mut rest).unwrap();
    traced.wait().unwrap();
    assert!(rest.contains("1 unfinished copy remains"), "{rest}");
    assert!(rest.contains("the same command removes it"), "{rest}");
    assert!(rest.contains(staging.to_str().unwrap()), "{rest}");
    assert!(staging.exists(), "{rest}");
    fs::write(stage.settings(), fast).unwrap();
    let output = stage.jobs(&["archive", &job_id()]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        leftovers(&stage.folder("backup")),
        [] as [std::path::PathBuf; 0]
    );
}

#[test]
fn an_interrupted_verification_says_how_far_it_came() {
    let stage = Stage::new(&["backup"]);
    write_job(&stage.job());
    fs::write(stage.job().join("large"), vec![3; 64 << 20]).unwrap();
    stage.archive();
    slow(&stage);
    let mut command = stage.xpmfs();
    command.args(["jobs", "verify", "-w", "test", "--all"]);
    let process = command.stderr(Stdio::piped()).stdout(Stdio::piped());
    let process = process.spawn().unwrap();
    let pid = Pid::from_child(&process);
    // The worker, which reads, is its child.
    let worker = child_of(process.id());
    eventually("it handles signals and reads", || {
        let io = format!("/proc/{}/io", worker.as_raw_nonzero());
        let io = fs::read_to_string(io).unwrap_or_default();
        let read = io.lines().find_map(|line| line.strip_prefix("rchar: "));
        read.is_some_and(|read| read.parse::<u64>().unwrap() > 2 << 20)
    });
    kill_process(pid, Signal::INT).unwrap();
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let last = "interrupted: 0 of 1 jobs verified; nothing was changed";
    assert!(said(&output).contains(last), "{}", said(&output));
}
