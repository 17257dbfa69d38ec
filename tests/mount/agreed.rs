//! What is agreed with the kernel when a mount is made.

use std::fs;
use std::process::Command;

use crate::common::{Workspace, is_root, run, say};

/// How many background requests the kernel is asked to send at once.
const BACKGROUND_MAX: u64 = 8192;

#[test]
fn many_background_requests_are_sent_at_once() {
    if !is_root() {
        say("SKIPPED: only root mounts fusectl");
        return;
    }
    // The administrator limits those of ordinary users; by default in proportion to the memory.
    let of_users = ["max_user_bgreq", "max_user_congthresh"].map(|name| {
        let limit = fs::read_to_string(format!("/sys/module/fuse/parameters/{name}")).unwrap();
        limit.trim().parse().unwrap()
    });
    for (workspace, limits) in [
        (Workspace::new(), [u64::MAX; 2]),
        (Workspace::of_ordinary_user(), of_users),
    ] {
        let mountpoint = workspace.mountpoint("elsewhere");
        let mounted = workspace.mount_at(&mountpoint);
        // From the second limit on, the kernel reads nothing ahead.
        let wanted = [BACKGROUND_MAX, BACKGROUND_MAX * 3 / 4];
        let expected = [wanted[0].min(limits[0]), wanted[1].min(limits[1])];
        let found = limits_of(&workspace, &mountpoint);
        drop(mounted);
        assert_eq!(found, expected);
    }
}

/// The limits of the connection that serves a mount.
fn limits_of(workspace: &Workspace, mountpoint: &std::path::Path) -> Vec<u64> {
    let mount = xpmfs::daemon::mounts::top_at(mountpoint).unwrap().unwrap();
    let control = workspace.top().join("control");
    fs::create_dir(&control).unwrap();
    // With fusectl mounted for this command alone: not every machine has it mounted.
    let script =
        r#"mount -t fusectl none "$1"; cat "$1/$2/max_background" "$1/$2/congestion_threshold""#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-ec", script, "sh"]).arg(control);
    let printed = run(command.arg(mount.device.minor.to_string()));
    printed.lines().map(|line| line.parse().unwrap()).collect()
}
