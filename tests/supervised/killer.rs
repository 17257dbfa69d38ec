//! Replaces the process that serves a mount, while something else is done: by a kill, or by a reload.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::common::daemon::kill_worker;
use super::common::{Workspace, eventually, run};

/// The pids of the process that serves a mount, and of its supervisor.
pub(crate) fn processes(workspace: &Workspace, mountpoint: &Path) -> (i32, i32) {
    let mut found = None;
    eventually("it has a daemon", || {
        let mut command = workspace.xpmfs();
        let output = command.args(["--json", "status"]).arg(mountpoint).output();
        let status: serde_json::Value = match serde_json::from_slice(&output.unwrap().stdout) {
            Ok(status) => status,
            Err(_) => return false,
        };
        let mount = &status["mounts"][0];
        found = mount["pid"].as_i64().zip(mount["supervisor"].as_i64());
        found.is_some()
    });
    let (pid, supervisor) = found.unwrap();
    (
        i32::try_from(pid).unwrap(),
        i32::try_from(supervisor).unwrap(),
    )
}

/// The child of a supervisor, as soon as it has one that is not `but`.
pub(crate) fn child(supervisor: i32, but: i32) -> i32 {
    let mut child = None;
    eventually("another process takes over", || {
        let children = format!("/proc/{supervisor}/task/{supervisor}/children");
        let children = std::fs::read_to_string(children).unwrap();
        child = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .find(|pid| *pid != but);
        child.is_some()
    });
    child.unwrap()
}

/// How a process is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Kill,
    Reload,
}

/// Makes a mount go on with the program and the settings as they are now.
pub(crate) fn reload(workspace: &Workspace, mountpoint: &Path) {
    run(workspace.xpmfs().args(["-q", "reload"]).arg(mountpoint));
}

/// Kills the process that serves a mount every `pause`, for `time`, while `work` is done until it is told to end. Returns how
/// often it was killed.
pub(crate) fn kill_during(
    workspace: &Workspace,
    mountpoint: &Path,
    time: Duration,
    pause: Duration,
    work: impl FnOnce(&AtomicBool) + Send,
) -> usize {
    replace_during(workspace, mountpoint, By::Kill, time, pause, work)
}

/// As [`kill_during`], or reloads in place of killing.
pub(crate) fn replace_during(
    workspace: &Workspace,
    mountpoint: &Path,
    by: By,
    time: Duration,
    pause: Duration,
    work: impl FnOnce(&AtomicBool) + Send,
) -> usize {
    let over = AtomicBool::new(false);
    let (first, supervisor) = processes(workspace, mountpoint);
    let mut pid = first;
    let mut kills = 0;
    std::thread::scope(|scope| {
        let over = &over;
        let thread = scope.spawn(move || work(over));
        let end = Instant::now() + time;
        while Instant::now() < end && !thread.is_finished() {
            std::thread::sleep(pause);
            match by {
                By::Kill => kill_worker(pid),
                By::Reload => reload(workspace, mountpoint),
            }
            kills += 1;
            pid = child(supervisor, pid);
            // A process that has answered nothing counts as one that cannot serve.
            let unknown = mountpoint.join(format!("never there {kills}"));
            let answer = workspace.as_user(|| std::fs::symlink_metadata(unknown));
            assert_eq!(answer.unwrap_err().kind(), std::io::ErrorKind::NotFound);
        }
        over.store(true, Ordering::Release);
    });
    let (_, same) = processes(workspace, mountpoint);
    assert_eq!(same, supervisor);
    kills
}
