//! `xpmfs run`, as root and as an ordinary user: in a user namespace, `fusermount3` has no rights.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{self, Workspace, eventually, run};

const TASK: &str = "my.module.train";

/// A workspace with a job in its primary and one in its `backup` folder, of each kind of user.
fn workspaces(keys: &'static str) -> Vec<Workspace> {
    let ordinary = common::is_root().then(Workspace::of_ordinary_user);
    let of = |workspace: Workspace| {
        workspace.write_settings(&["backup"], Some(keys));
        fs::create_dir_all(workspace.folder("backup")).unwrap();
        workspace.finished("primary", TASK, "here");
        workspace.finished("backup", TASK, "archived");
        workspace.give_away();
        workspace
    };
    std::iter::once(Workspace::new())
        .chain(ordinary)
        .map(of)
        .collect()
}

/// `xpmfs run` with these options, of a shell script.
fn running(workspace: &Workspace, options: &[&str], script: &str) -> Command {
    let mut command = workspace.xpmfs();
    command
        .args(["run", "-w", "test", "--log"])
        .arg(workspace.top().join("run.log"))
        .args(options)
        .args(["--", "/bin/sh", "-c", script])
        .current_dir(workspace.primary())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn ran(workspace: &Workspace, options: &[&str], script: &str) -> Output {
    running(workspace, options, script).output().unwrap()
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

/// Waits until no process serves a mount of the workspace.
fn is_over(workspace: &Workspace) {
    let log = workspace.top().join("run.log");
    let log = log.as_os_str().as_encoded_bytes().to_owned();
    eventually("its processes have ended", || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|it| fs::read(it.path().join("cmdline")).ok());
        !lines.into_iter().any(|line| {
            line.split(|byte| *byte == 0)
                .any(|word| word.ends_with(&log))
        })
    });
}

#[test]
fn a_command_sees_the_workspace_and_nobody_else_does() {
    for workspace in workspaces("{recover_on: write}") {
        let script = format!(
            "cd jobs/{TASK} && echo * && echo more > archived/added && echo made > ../../made && exit 7"
        );
        let output = ran(&workspace, &[], &script);
        assert_eq!(output.status.code(), Some(7), "{}", text(&output));
        assert!(text(&output).contains("archived here"), "{}", text(&output));
        assert!(!common::is_mounted(&workspace.primary()));
        is_over(&workspace);
        let read = |path: &str| fs::read_to_string(workspace.primary().join(path)).unwrap();
        assert_eq!(read("made"), "made\n");
        // It was recovered before it was changed.
        assert_eq!(read(&format!("jobs/{TASK}/archived/added")), "more\n");
    }
}

#[test]
fn a_command_that_cannot_be_run_is_reported() {
    for workspace in workspaces("{}") {
        let mut command = workspace.xpmfs();
        command.args(["run", "-w", "test", "--", "/no/such/command"]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(127), "{}", text(&output));
        assert!(text(&output).contains("/no/such/command"));
    }
}

fn wait_for(path: &Path) {
    eventually("the command runs", || path.exists());
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn signals_are_passed_on() {
    for workspace in workspaces("{}") {
        let script = "trap 'exit 9' USR1; echo > started; while :; do /bin/sleep 0.1; done";
        for (number, code) in [(Signal::USR1, Some(9)), (Signal::TERM, None)] {
            let child = running(&workspace, &[], script).spawn().unwrap();
            let started = workspace.primary().join("started");
            wait_for(&started);
            signal(&child, number);
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), code, "{}", text(&output));
            if code.is_none() {
                assert_eq!(output.status.signal(), Some(libc::SIGTERM));
            }
            fs::remove_file(started).unwrap();
            is_over(&workspace);
        }
    }
}

#[test]
fn what_the_command_leaves_behind_goes_on_with_the_mount() {
    for workspace in workspaces("{}") {
        let script = format!(
            "(while ! [ -e stop ]; do /bin/sleep 0.1; done; echo jobs/{TASK}/* > seen) >&- 2>&- & exit 3"
        );
        let output = ran(&workspace, &[], &script);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(text(&output).contains("still running"), "{}", text(&output));
        fs::write(workspace.primary().join("stop"), "").unwrap();
        is_over(&workspace);
        let seen = fs::read_to_string(workspace.primary().join("seen")).unwrap();
        assert!(seen.contains("archived"), "{seen}");
    }
}

#[test]
fn nothing_is_left_of_a_run_that_is_killed() {
    for workspace in workspaces("{}") {
        let script = format!(
            "echo > started; while ! [ -e stop ]; do /bin/sleep 0.1; done; echo jobs/{TASK}/* > seen"
        );
        let mut child = running(&workspace, &[], &script).spawn().unwrap();
        wait_for(&workspace.primary().join("started"));
        child.kill().unwrap();
        child.wait().unwrap();
        // Its command goes on.
        fs::write(workspace.primary().join("stop"), "").unwrap();
        is_over(&workspace);
        let seen = fs::read_to_string(workspace.primary().join("seen")).unwrap();
        assert!(seen.contains("archived"), "{seen}");
        assert!(!common::is_mounted(&workspace.primary()));
    }
}

#[test]
fn finished_jobs_are_archived_before_it_ends_if_asked_for() {
    for workspace in workspaces("{settle: 1h}") {
        let copy = workspace.folder("backup").join("jobs").join(TASK);
        // From outside the workspace: a current directory in it would keep the mount. Longer than the daemon takes to find out that no process
        // uses it.
        let mut waits = running(&workspace, &["--drain=4s"], "exit 0");
        let output = waits.current_dir(workspace.top()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        let left = "1 finished job is not archived yet";
        assert!(text(&output).contains(left), "{}", text(&output));
        // The status of the command is not hidden.
        let output = ran(&workspace, &["--drain=0s"], "exit 3");
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(!copy.join("here").exists());
        workspace.write_settings(&["backup"], Some("{settle: 0s}"));
        let output = ran(&workspace, &["--drain"], "exit 0");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(copy.join("here").exists(), "{}", text(&output));
    }
}

#[test]
fn a_workspace_that_is_mounted_is_used_as_it_is() {
    for workspace in workspaces("{}") {
        let mounted = workspace.mount_in_place();
        let mut command = running(&workspace, &[], "exit 0");
        let output = command.current_dir(workspace.top()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output).contains("leave it out"), "{}", text(&output));
        let mut command = workspace.xpmfs();
        command.args([
            "run",
            "-w",
            "test",
            "--",
            "/bin/sh",
            "-c",
            "echo primary/jobs/*/*",
        ]);
        let output = command.output().unwrap();
        assert!(text(&output).contains("archived"), "{}", text(&output));
        mounted.unmount();
    }
}

#[test]
fn where_it_is_not_permitted_the_setting_is_named() {
    if !common::is_root() {
        return;
    }
    let workspace = Workspace::of_ordinary_user();
    workspace.give_away();
    let run = running(&workspace, &[], "exit 0");
    // In a user namespace in which there may be no further one.
    let mut command = workspace.command("/usr/bin/unshare");
    command.args(["--user", "--map-root-user", "/bin/sh", "-c"]);
    command.arg("echo 0 > /proc/sys/user/max_user_namespaces && exec /usr/bin/setpriv --bounding-set=-all \"$@\"");
    // Without the change of the user, which has been made.
    let words = run.get_args().skip_while(|word| *word != "--").skip(1);
    command.arg("sh").args(words);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let sysctl = "sysctl -w user.max_user_namespaces";
    assert!(text(&output).contains(sysctl), "{}", text(&output));
}

/// In a user namespace, the kernel knows one user and one group; the disk decides about all others.
#[test]
fn what_other_users_and_groups_let_this_user_do_works() {
    const LAB: u32 = 7777;
    const OTHER: u32 = 7001;
    // Not `nobody`, whom all others seem to be.
    const ME: u32 = 7100;
    if !common::is_root() {
        return;
    }
    let workspace = Workspace::new();
    let primary = workspace.primary();
    workspace.finished("primary", TASK, "here");
    let top = workspace.top();
    let owned = |path: &Path, user: u32, group: u32, mode: u32| {
        std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    run(Command::new("chown")
        .arg("-R")
        .arg(format!("{ME}:{ME}"))
        .arg(&top));
    owned(&primary, OTHER, LAB, 0o2775);
    let run_in = |script: &str| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &ME.to_string()])
            .args(["--regid", &ME.to_string()])
            .args(["--groups", &LAB.to_string()])
            .arg(env!("CARGO_BIN_EXE_xpmfs"))
            .arg("--settings")
            .arg(workspace.settings())
            .args(["run", "-w", "test", "--log"])
            .arg(top.join("run.log"))
            .args(["--", "/bin/sh", "-c", script])
            .arg(&primary)
            .env("HOME", &top)
            .env("XDG_STATE_HOME", &top);
        let output = command.output().unwrap();
        is_over(&workspace);
        output
    };
    let output = run_in(
        "set -e; cd \"$0\"; mkdir made; echo text > made/new; echo more >> made/new; mv made/new .; rmdir made",
    );
    assert!(output.status.success(), "{}", text(&output));
    assert!(!text(&output).contains("warning"), "{}", text(&output));
    let new = primary.join("new");
    assert_eq!(fs::read_to_string(&new).unwrap(), "text\nmore\n");
    let meta = fs::metadata(&new).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (ME, LAB));
    // What the group may change, and what it may not.
    owned(&new, OTHER, LAB, 0o664);
    let output = run_in("echo again >> \"$0/new\"");
    assert!(output.status.success(), "{}", text(&output));
    owned(&new, OTHER, LAB, 0o644);
    owned(&primary, OTHER, LAB, 0o2755);
    for script in [
        "echo no >> \"$0/new\"",
        "chmod 666 \"$0/new\"",
        "rm -f \"$0/new\"",
        "mkdir \"$0/none\"",
    ] {
        let output = run_in(script);
        assert!(!output.status.success(), "{script}: {}", text(&output));
    }
    assert_eq!(fs::read_to_string(&new).unwrap(), "text\nmore\nagain\n");
    assert_eq!(fs::metadata(&new).unwrap().mode() & 0o7777, 0o644);
}

/// The mount ends with the command; an ordinary user could not unmount it there.
#[test]
fn unmounting_inside_is_explained() {
    for workspace in workspaces("{settle: 0s}") {
        // Where an ordinary user may execute it. By another process: had we it open for writing while another test forks, it could not be run.
        let program = workspace.top().join("program");
        run(Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_xpmfs"))
            .arg(&program));
        let umount = format!(
            "'{}' --settings '{}' umount -w test",
            program.display(),
            workspace.settings().display()
        );
        let script =
            format!("cd /; {umount} --drain; echo drained: $?; {umount}; echo unmounted: $?");
        let output = ran(&workspace, &[], &script);
        assert!(output.status.success(), "{}", text(&output));
        let said = text(&output);
        assert!(said.contains("drained: 0"), "{said}");
        match workspace.is_of_another_user() {
            true => {
                let why = "is mounted by `xpmfs run`, and is unmounted when its command ends";
                assert_eq!(said.matches(why).count(), 2, "{said}");
                assert!(said.contains("unmounted: 1"), "{said}");
                let copy = workspace.folder("backup").join("jobs").join(TASK);
                assert!(copy.join("here").exists());
            }
            // It was unmounted with --drain.
            false => assert!(!said.contains("warning"), "{said}"),
        }
        is_over(&workspace);
    }
}
