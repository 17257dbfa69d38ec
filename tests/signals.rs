//! What signals do to a daemon, and to the mounts of others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Workspace, eventually, is_mounted, run};

/// The process that serves a mount.
fn daemon(workspace: &Workspace, mountpoint: &Path) -> String {
    let status = run(workspace.xpmfs().args(["--json", "status"]).arg(mountpoint));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status["mounts"][0]["pid"].to_string()
}

fn signal(name: &str, pid: &str) {
    run(Command::new("kill").args([name, pid]));
}

fn is_running(pid: &str) -> bool {
    Path::new("/proc").join(pid).join("exe").read_link().is_ok()
}

#[test]
fn signals_that_mean_nothing_leave_the_mount_as_it_is() {
    let workspace = Workspace::new();
    let mounted = workspace.mount_in_place();
    let pid = daemon(&workspace, mounted.path());
    for name in ["-USR1", "-USR2", "-ALRM", "-HUP", "-PIPE"] {
        signal(name, &pid);
    }
    std::fs::write(mounted.path().join("file"), "contents").unwrap();
    assert!(is_running(&pid));
    assert_eq!(daemon(&workspace, mounted.path()), pid);
}

#[test]
fn signals_that_end_the_daemon_unmount() {
    for name in ["-TERM", "-INT", "-QUIT"] {
        let workspace = Workspace::new();
        let mounted = workspace.mount_in_place();
        let pid = daemon(&workspace, mounted.path());
        signal(name, &pid);
        eventually("it is unmounted", || !is_mounted(mounted.path()));
        eventually("the daemon has gone", || !is_running(&pid));
    }
}

#[test]
fn a_daemon_that_wakes_up_late_leaves_the_mount_alone_that_has_followed_its_own() {
    let workspace = Workspace::new();
    let first = workspace.mount_in_place();
    let late = daemon(&workspace, first.path());
    signal("-STOP", &late);
    // As for a stuck disk: nobody waits for the daemon.
    let lazily = Command::new("umount").arg("-l").arg(first.path()).status();
    let gone = lazily.is_ok_and(|status| status.success());
    if !gone {
        run(Command::new("fusermount3").args(["-uz"]).arg(first.path()));
    }
    let second = workspace.mount_in_place();
    let now = daemon(&workspace, second.path());
    assert_ne!(now, late);
    signal("-CONT", &late);
    eventually("the late daemon has gone", || !is_running(&late));
    assert!(is_mounted(second.path()));
    assert_eq!(daemon(&workspace, second.path()), now);
}
