//! Commands end when they have printed all, also while a folder does not answer; and end by what ends their worker.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::common::{Workspace, eventually, is_mounted};

/// No command may take longer, on a busy machine.
const LIMIT: Duration = Duration::from_secs(40);
/// The folder answers after this time, so that a test that fails ends.
const LIFE: Duration = Duration::from_secs(100);

/// A FUSE server over another one that can be stopped: it has read the request that it does not answer.
struct Silent {
    at: PathBuf,
    below: PathBuf,
    servers: [Child; 2],
    /// Ends the watch.
    _watched: Sender<()>,
}

impl Silent {
    fn new(workspace: &Workspace) -> Silent {
        let [disk, below, at] = ["disk", "below", "served"].map(|name| workspace.top().join(name));
        fs::create_dir_all(disk.join("folder/jobs")).unwrap();
        let serve = |from: &Path, to: &Path| {
            fs::create_dir(to).unwrap();
            let mut command = Command::new("bindfs");
            command.arg("-f").arg(from).arg(to).stdin(Stdio::null());
            let command = command.stdout(Stdio::null()).stderr(Stdio::null());
            let server = command.spawn().unwrap();
            eventually("it is served", || is_mounted(to));
            server
        };
        let servers = [serve(&disk, &below), serve(&below, &at)];
        let stopped = servers[0].id();
        let (watched, end) = channel::<()>();
        std::thread::spawn(move || {
            if end.recv_timeout(LIFE) == Err(RecvTimeoutError::Timeout) {
                kill("-CONT", &stopped.to_string());
            }
        });
        Silent {
            at,
            below,
            servers,
            _watched: watched,
        }
    }

    fn folder(&self) -> PathBuf {
        self.at.join("folder")
    }

    fn stop(&self) {
        kill("-STOP", &self.servers[0].id().to_string());
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        kill("-CONT", &self.servers[0].id().to_string());
        for (server, at) in self.servers.iter_mut().zip([&self.below, &self.at]).rev() {
            let _ = Command::new("fusermount3").arg("-uz").arg(at).output();
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn kill(signal: &str, process: &str) {
    let mut command = Command::new("kill");
    let _ = command.args([signal, "--", process]).output();
}

/// Waits for a command's end.
fn end(child: &mut Child, what: &str) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(begun.elapsed() < LIMIT, "{what} has not ended");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The child of a process.
fn worker(front: u32) -> String {
    let mut found = String::new();
    eventually("there is a worker", || {
        let children = format!("/proc/{front}/task/{front}/children");
        found = fs::read_to_string(children).unwrap().trim().to_owned();
        !found.is_empty()
    });
    found
}

/// `xpmfs status --watch`, which has printed something, in a process group of its own.
fn watching(workspace: &Workspace) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = workspace.xpmfs();
    command.args(["status", "--watch", "-w", "test"]);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.process_group(0).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    (child, output)
}

#[test]
fn commands_end_while_a_folder_does_not_answer() {
    let workspace = Workspace::new();
    let silent = Silent::new(&workspace);
    workspace.with_folders(&[]);
    workspace.attach("use", &silent.folder());
    workspace.attach("backup", &workspace.folder("backup"));
    workspace.finished("primary", "my.task", "aaaa");
    silent.stop();
    for arguments in [
        &["status", "-w", "test"][..],
        &["--json", "status", "-w", "test"],
        &["settings", "check"],
        &["workspaces", "list"],
        &["jobs", "archive", "-w", "test", "--all"],
        &["jobs", "verify", "-w", "test", "--all"],
    ] {
        let begun = Instant::now();
        // Returns when both pipes have been closed, too.
        let output = workspace.xpmfs().args(arguments).output().unwrap();
        assert!(begun.elapsed() < LIMIT, "{arguments:?}: {output:?}");
        assert!(output.status.code().is_some(), "{arguments:?}: {output:?}");
        assert!(
            !output.stdout.is_empty() || !output.stderr.is_empty(),
            "{arguments:?}"
        );
    }
    // A descriptor that the shell has left open is closed, too.
    let begun = Instant::now();
    let mut shell = workspace.command("sh");
    shell.args(["-c", "{ \"$0\" \"$@\" 3>&1 >/dev/null 2>&1; } | cat"]);
    let xpmfs = workspace.xpmfs();
    shell.arg(xpmfs.get_program()).args(xpmfs.get_args());
    shell.args(["status", "-w", "test"]).output().unwrap();
    assert!(begun.elapsed() < LIMIT);
    // A signal ends it, and closes its output.
    let (mut child, mut output) = watching(&workspace);
    kill("-INT", &child.id().to_string());
    assert_eq!(end(&mut child, "status --watch").signal(), Some(2));
    let begun = Instant::now();
    output.read_to_end(&mut Vec::new()).unwrap();
    assert!(begun.elapsed() < LIMIT);
}

#[test]
fn an_exit_status_is_passed_on() {
    let workspace = Workspace::new();
    let status = |arguments: &[&str]| {
        let output = workspace.xpmfs().args(arguments).output().unwrap();
        output.status.code()
    };
    assert_eq!(status(&["status"]), Some(0));
    assert_eq!(status(&["status", "-w", "unknown"]), Some(1));
    assert_eq!(status(&["mount", "-o", "unknown"]), Some(2));
    let (mut child, output) = watching(&workspace);
    drop(output);
    assert_eq!(end(&mut child, "status without a reader").code(), Some(1));
}

#[test]
fn a_signal_ends_front_and_worker() {
    let workspace = Workspace::new();
    for (name, number) in [
        ("-INT", 2),
        ("-TERM", 15),
        ("-HUP", 1),
        ("-QUIT", 3),
        ("-KILL", 9),
    ] {
        for to_group in [false, true] {
            let (mut child, _output) = watching(&workspace);
            let worker = worker(child.id());
            let group = if to_group { "-" } else { "" };
            kill(name, &format!("{group}{}", child.id()));
            assert_eq!(end(&mut child, name).signal(), Some(number), "{name}");
            let process = Path::new("/proc").join(worker).join("exe");
            eventually("the worker has ended", || process.read_link().is_err());
        }
    }
    // One that ends the worker is the front's end, too.
    let (mut child, _output) = watching(&workspace);
    kill("-ABRT", &worker(child.id()));
    assert_eq!(end(&mut child, "status").signal(), Some(6));
}

#[test]
fn a_terminal_interrupts_and_stops_front_and_worker() {
    let workspace = Workspace::new();
    let xpmfs = workspace.xpmfs();
    let words = xpmfs.get_args().map(|word| word.to_str().unwrap());
    let words: Vec<&str> = [xpmfs.get_program().to_str().unwrap()]
        .into_iter()
        .chain(words)
        .collect();
    let ended = workspace.top().join("ended");
    let inner = format!(
        "set -m; {} status --watch -w test; echo first $? > {at}; fg; echo then $? >> {at}",
        words.join(" "),
        at = ended.display(),
    );
    let mut script = workspace.command("script");
    script.args(["-qec", &format!("bash -c '{inner}'"), "/dev/null"]);
    let script = script.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    let mut screen = BufReader::new(child.stdout.take().unwrap());
    screen.read_line(&mut String::new()).unwrap();
    std::thread::spawn(move || screen.read_to_end(&mut Vec::new()));
    let read = || fs::read_to_string(&ended).unwrap_or_default();
    // Ctrl-Z, and after `fg` Ctrl-C.
    keys.write_all(b"\x1a").unwrap();
    eventually("it is stopped", || read().contains("first 148"));
    eventually("it is interrupted", || {
        let _ = keys.write_all(b"\x03");
        std::thread::sleep(Duration::from_millis(50));
        read().contains("then 130") || child.try_wait().unwrap().is_some()
    });
    let _ = end(&mut child, "the terminal");
}

/// The front looks whether its worker has been killed by reading `/proc`. Here the worker ends, with success, while it is about to look.
#[test]
fn a_worker_that_ends_while_the_front_looks_at_it_was_not_killed() {
    if !crate::common::is_root() {
        return;
    }
    let workspace = Workspace::new();
    let silent = Silent::new(&workspace);
    workspace.with_folders(&[]);
    workspace.attach("use", &silent.folder());
    silent.stop();
    let mut command = workspace.xpmfs();
    command.args(["status", "-w", "test"]);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let front = child.id();
    let worker = worker(front);
    kill("-STOP", &worker);
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o", "/dev/null", "-e", "trace=openat"]);
    strace.args(["-e", "inject=openat:delay_enter=3000000"]);
    strace.args(["-p", &front.to_string()]);
    let mut strace = strace.spawn().unwrap();
    // For longer than a system call that is only passed through.
    let mut since = None;
    eventually("the front is held before it opens a file", || {
        if state(&front.to_string()) != Some('t') {
            since = None;
        }
        since.get_or_insert_with(Instant::now).elapsed() > Duration::from_millis(200)
    });
    kill("-CONT", &silent.servers[0].id().to_string());
    kill("-CONT", &worker);
    eventually("the worker has ended", || {
        matches!(state(&worker), Some('Z') | None)
    });
    let status = end(&mut child, "status");
    let _ = strace.wait();
    assert_eq!(status.code(), Some(0), "{status:?}");
}

/// The state of a process, as `ps` prints it.
fn state(process: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
