//! A second mount of the workspace whose daemon does not answer, as when it is stopped: what it writes is unknown.

use std::process::{Command, Output};
use std::time::Duration;

use crate::common::{Mounted, Workspace, daemon, run};
use crate::job;
use crate::stage::{Beneath, Process, has_all, status, told, until};

/// A daemon that is stopped until this is dropped.
struct Stopped(String);

impl Stopped {
    fn daemon_of(workspace: &Workspace, mount: &Mounted<'_>) -> Stopped {
        let pid = status(workspace, mount.path())["pid"].to_string();
        run(Command::new("kill").args(["-STOP", &pid]));
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-CONT", &self.0]).status();
    }
}

fn archive(workspace: &Workspace) -> Output {
    let mut command = workspace.xpmfs();
    command.args(["jobs", "archive", "-w", "test", "--all"]);
    command.output().unwrap()
}

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.with_folders(&["backup", "move"]);
    workspace.tune("{settle: 50ms, scan_interval: 100ms}");
    workspace
}

#[test]
fn a_command_moves_no_job_while_a_mount_does_not_answer_and_says_why() {
    let workspace = workspace();
    let mount = workspace.mount_with(&workspace.mountpoint("elsewhere"), &[]);
    for number in 0..20 {
        job::make(&workspace.primary(), number);
    }
    let stopped = Stopped::daemon_of(&workspace, &mount);
    let log = workspace.top().join("archive.log");
    let mut command = workspace.xpmfs();
    command
        .args(["jobs", "archive", "-w", "test", "--all"])
        .stderr(std::fs::File::create(&log).unwrap());
    let mut archiving = Process::start(&mut command);
    let expected = format!(
        "the mount at {} does not answer, so whether a process writes to the job through it is unknown",
        mount.path().display()
    );
    let errors = || std::fs::read_to_string(&log).unwrap();
    until("it is reported, or all is over", || {
        errors().contains(&expected) || archiving.0.try_wait().unwrap().is_some()
    });
    let is_moved = |number| workspace.primary().join(job::path(number)).is_symlink();
    assert!(!(0..20).any(is_moved), "{}", errors());
    assert!(errors().contains(&expected), "{}", errors());
    assert!(has_all(&workspace.folder("backup"), 0..20), "{}", errors());
    drop(stopped);
    let status = archiving.end(Duration::from_secs(60));
    assert!(status.success(), "{}", errors());
    assert!((0..20).all(is_moved));
    mount.unmount();
}

#[test]
fn a_daemon_moves_no_job_while_a_mount_does_not_answer_and_status_says_why() {
    let workspace = workspace();
    let beneath = Beneath::of(&workspace.primary());
    let is_moved = |number| beneath.path().join(job::path(number)).is_symlink();
    let mount = workspace.mount_with(&workspace.mountpoint("elsewhere"), &[]);
    let stopped = Stopped::daemon_of(&workspace, &mount);
    let in_place = workspace.mount_archiving(&workspace.primary(), &[]);
    job::make(&beneath.path(), 0);
    until("it is reported", || {
        let text = told(&workspace, in_place.path());
        text.contains("does not answer, so whether")
    });
    assert!(!is_moved(0));
    assert!(has_all(&workspace.folder("backup"), 0..1));
    drop(stopped);
    until("it is moved", || is_moved(0));
    // One that has answered, and then does not.
    let stopped = Stopped::daemon_of(&workspace, &mount);
    job::make(&beneath.path(), 1);
    until("it is reported", || {
        let text = told(&workspace, in_place.path());
        text.contains("does not answer, so whether")
    });
    assert!(!is_moved(1));
    drop(stopped);
    until("it is moved", || is_moved(1));
    in_place.unmount();
    mount.unmount();
}

#[test]
fn a_mount_that_ended_or_is_of_another_workspace_holds_up_no_job() {
    let (workspace, other) = (self::workspace(), self::workspace());
    let mount = other.mount_with(&other.mountpoint("elsewhere"), &[]);
    let stopped = Stopped::daemon_of(&other, &mount);
    let ended = workspace.mount_with(&workspace.mountpoint("elsewhere"), &[]);
    let killed = Stopped::daemon_of(&workspace, &ended);
    daemon::kill_both(killed.0.parse().unwrap());
    until("it has ended", || {
        !std::path::Path::new(&format!("/proc/{}/fd/0", killed.0)).exists()
    });
    job::make(&workspace.primary(), 0);
    let output = archive(&workspace);
    assert!(output.status.success(), "{output:?}");
    assert!(workspace.primary().join(job::path(0)).is_symlink());
    drop(stopped);
    mount.unmount();
    let mut lazy = workspace.xpmfs();
    run(lazy.args(["umount", "--lazy"]).arg(ended.path()));
}
