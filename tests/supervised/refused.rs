//! A mount that cannot go on with another program, or with the settings, goes on as before.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::common::daemon::kill_worker;
use super::common::{self, Workspace, eventually, fails, is_mounted, run};
use super::killer::{child, processes, reload};
use super::{HOWS, How, mount, workspace};

/// Asks the daemon of root's mount to go on with a program.
struct Request(UnixStream);

impl Request {
    fn new(mountpoint: &Path, program: &Path) -> Request {
        let device = fs::metadata(mountpoint).unwrap().dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let path = format!("/run/xpmfs/{major}-{minor}.sock");
        let mut stream = UnixStream::connect(path).unwrap();
        let request = json!({"version": 1, "request": "reload", "program": program});
        writeln!(stream, "{request}").unwrap();
        Request(stream)
    }

    fn reply(self) -> Value {
        let mut line = String::new();
        BufReader::new(self.0).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_default()
    }

    fn error(self) -> String {
        self.reply()["error"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// A program that is a shell script.
fn script(workspace: &Workspace, name: &str, lines: &str) -> PathBuf {
    let program = workspace.top().join(name);
    let text = format!("#!/bin/sh\n{lines}\n");
    // By another process, since a file that is open for writing cannot be run.
    let mut write = Command::new("sh");
    write.args([
        "-c",
        "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"",
        "sh",
        &text,
    ]);
    run(write.arg(&program));
    program
}

/// The children of a supervisor that are not ending.
fn children(supervisor: i32) -> Vec<i32> {
    let children = format!("/proc/{supervisor}/task/{supervisor}/children");
    let children = fs::read_to_string(children).unwrap_or_default();
    let pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
    pids.collect()
}

#[test]
fn a_program_that_is_not_xpmfs_changes_nothing() {
    let workspace = workspace(HOWS[0]);
    let mounted = mount(&workspace, HOWS[0]);
    let before = processes(&workspace, mounted.path());
    let plain = workspace.top().join("plain");
    fs::write(&plain, "not a program").unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let garbage =
        "head -c 300000 /dev/urandom >&0; head -c 300000 /dev/urandom >&2; exec sleep 100";
    for (program, expected) in [
        (workspace.top().join("nothing"), "No such file or directory"),
        (plain, "Permission denied"),
        (workspace.top(), "Permission denied"),
        (
            script(&workspace, "crashes", "kill -SEGV $$"),
            "was killed by signal 11",
        ),
        (
            script(&workspace, "ends", "echo help; exit 0"),
            "ended with exit status 0",
        ),
        (
            script(
                &workspace,
                "complains",
                "echo 'error: unexpected argument' >&2; echo usage >&2; exit 2",
            ),
            "ended with exit status 2 and did not answer whether it can go on with the mount: error: unexpected argument",
        ),
        (
            script(
                &workspace,
                "answers",
                "read line; echo \"$line\" >&0; exec sleep 100",
            ),
            "another version of xpmfs?",
        ),
        (
            script(&workspace, "garbage", garbage),
            "another version of xpmfs?",
        ),
        (PathBuf::from("/bin/cat"), "did not answer"),
        (
            script(&workspace, "hangs", "exec sleep 100"),
            "has not answered within",
        ),
    ] {
        let error = Request::new(mounted.path(), &program).error();
        assert!(error.contains(expected), "{}: {error}", program.display());
        let name = program.to_str().unwrap();
        assert!(error.contains(name), "{error}");
        assert_eq!(processes(&workspace, mounted.path()), before);
    }
    eventually("only the worker is left", || {
        children(before.1) == [before.0]
    });
    assert!(workspace.log().contains("goes on as before"));
    // And a right one is accepted after that.
    reload(&workspace, mounted.path());
}

#[test]
fn wrong_settings_change_nothing() {
    let workspace = workspace(HOWS[0]);
    let mounted = mount(&workspace, HOWS[0]);
    let before = processes(&workspace, mounted.path());
    let settings = fs::read_to_string(workspace.settings()).unwrap();
    let elsewhere = workspace.top().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let (primary, moved) = (workspace.primary(), elsewhere.to_str().unwrap().to_owned());
    let inside = primary.join("inside").to_str().unwrap().to_owned();
    for (wrong, expected) in [
        (settings.replace("mode: backup", "mode: bakup"), "bakup"),
        (
            settings.replace("id: test", "id: other"),
            "unknown workspace `test`",
        ),
        (
            settings.replace(primary.to_str().unwrap(), &moved),
            "a live mount cannot change its workspace",
        ),
        (
            settings.replace(workspace.folder("use").to_str().unwrap(), &inside),
            "is inside the workspace",
        ),
        (format!("{settings}\n: ]"), "not valid YAML"),
    ] {
        fs::write(workspace.settings(), wrong).unwrap();
        // The command itself finds the mount by its path, and reads no settings.
        let output = fails(workspace.xpmfs().arg("reload").arg(mounted.path()));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(expected), "{said}");
        assert!(said.contains("goes on as before"), "{said}");
        assert_eq!(processes(&workspace, mounted.path()), before);
        let output = fails(
            workspace
                .xpmfs()
                .args(["--json", "reload"])
                .arg(mounted.path()),
        );
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(printed[0]["result"], "failed");
        assert!(printed[0]["why"].as_str().unwrap().contains(expected));
        // A worker that is killed is replaced with the settings that were right.
    }
    kill_worker(before.0);
    child(before.1, before.0);
    assert!(mounted.path().join("jobs").exists());
    assert_eq!(children(before.1).len(), 1);
}

#[test]
fn one_reload_runs_at_a_time_and_its_program_ends_with_the_supervisor() {
    let workspace = workspace(HOWS[0]);
    let mounted = mount(&workspace, HOWS[0]);
    let (pid, supervisor) = processes(&workspace, mounted.path());
    let hangs = script(&workspace, "hangs", "exec sleep 100");
    let first = Request::new(mounted.path(), &hangs);
    eventually("the program runs", || children(supervisor).len() == 2);
    let output = fails(workspace.xpmfs().arg("reload").arg(mounted.path()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("another reload of this mount is running"),
        "{said}"
    );
    let checked = children(supervisor).into_iter().find(|it| *it != pid);
    let checked = checked.unwrap();
    // A worker that dies meanwhile is replaced, and the reload goes on.
    kill_worker(pid);
    fs::symlink_metadata(mounted.path().join("no")).unwrap_err();
    assert!(children(supervisor).contains(&checked));
    kill_process(Pid::from_raw(supervisor).unwrap(), Signal::KILL).unwrap();
    let has_ended = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z"))
    };
    eventually("the program has ended", || has_ended(checked));
    assert_eq!(first.error(), "");
    // The worker serves on, and a reload says why it cannot be.
    assert!(mounted.path().join("jobs").exists());
    let output = fails(workspace.xpmfs().arg("reload").arg(mounted.path()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no supervisor"), "{said}");
}

#[test]
fn a_reload_during_an_unmount_leaves_nothing() {
    let workspace = workspace(HOWS[0]);
    let hangs = script(&workspace, "hangs", "exec sleep 100");
    let ended = |supervisor: i32| {
        eventually("the supervisor has ended", || {
            !Path::new(&format!("/proc/{supervisor}/exe")).exists()
        });
    };
    // Between the question and the answer of the program.
    let mounted = mount(&workspace, HOWS[0]);
    let (_, supervisor) = processes(&workspace, mounted.path());
    let request = Request::new(mounted.path(), &hangs);
    eventually("the program runs", || children(supervisor).len() == 2);
    mounted.unmount();
    assert_eq!(request.error(), "the mount has ended");
    ended(supervisor);
    // At any moment.
    for number in 0..12_u32 {
        let mounted = mount(&workspace, HOWS[0]);
        let (pid, supervisor) = processes(&workspace, mounted.path());
        let mut command = workspace.xpmfs();
        command.arg("reload").arg(mounted.path());
        let mut reloading = command.stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(u64::from(number) * 7));
        match number % 3 {
            0 => mounted.unmount(),
            1 => {
                kill_process(Pid::from_raw(supervisor).unwrap(), Signal::TERM).unwrap();
                eventually("it is unmounted", || !is_mounted(mounted.path()));
            }
            _ => {
                // To the process that the reload may be replacing.
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM);
                reloading.wait().unwrap();
                if is_mounted(mounted.path()) {
                    mounted.unmount();
                }
            }
        }
        reloading.wait().unwrap();
        ended(supervisor);
        assert!(!is_mounted(&workspace.primary()), "{number}");
        assert!(workspace.primary().join("jobs").exists());
    }
}

#[test]
fn users_reload_their_own_mounts_and_root_those_of_all() {
    let of_user = workspace(How::Ordinary);
    let mounted = mount(&of_user, How::Ordinary);
    reload(&of_user, mounted.path());
    // It fails if another test has a dead mount at this moment.
    let mut command = of_user.xpmfs();
    let output = command.args(["reload", "--all", "--json"]).output();
    let all: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let is_reloaded = |it: &Value| {
        it["mountpoint"].as_str() == mounted.path().to_str() && it["result"] == "reloaded"
    };
    assert!(all.as_array().unwrap().iter().any(is_reloaded), "{all}");
    let (before, supervisor) = processes(&of_user, mounted.path());
    if !common::is_root() {
        return;
    }
    // Root, with a program that the user may run.
    let mut command = Command::new(of_user.top().join("bin/xpmfs"));
    command.env("XDG_RUNTIME_DIR", of_user.top());
    run(command.arg("reload").arg(mounted.path()));
    let (pid, same) = processes(&of_user, mounted.path());
    assert_ne!(pid, before);
    assert_eq!(same, supervisor);
    assert_eq!(
        fs::metadata(format!("/proc/{pid}")).unwrap().uid(),
        common::ORDINARY
    );
    // And with one that the user may not.
    let private = of_user.top().join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    run(Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_xpmfs"))
        .arg(&private));
    let mut command = Command::new(private.join("xpmfs"));
    command.env("XDG_RUNTIME_DIR", of_user.top());
    let output = fails(command.arg("reload").arg(mounted.path()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot run"), "{said}");
    assert_eq!(processes(&of_user, mounted.path()).0, pid);
    // A user does not reload root's.
    let of_root = workspace(HOWS[0]);
    let again = mount(&of_root, HOWS[0]);
    let before = processes(&of_root, again.path());
    let output = fails(of_user.xpmfs().arg("reload").arg(again.path()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert_eq!(processes(&of_root, again.path()), before);
}
