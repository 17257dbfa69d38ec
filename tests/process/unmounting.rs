//! How a mount ends: by a command, by a signal, with its daemon, or with its connection.

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use xpmfs::daemon::control::Client;
use xpmfs::sys::deadline::wait_until;

use crate::stage::{LIMIT, Stage, Who, as_everybody, is_root, sentence};

#[test]
fn a_dead_mount_is_cleared_by_the_next() {
    as_everybody(|stage| {
        let mountpoint = stage.directory("mnt");
        let mut daemon = stage.serve(&mountpoint);
        daemon.child.kill().unwrap();
        assert_eq!(daemon.ended(), None);
        assert!(daemon.mount().is_some(), "a dead mount");
        let status = stage.play("status", &mountpoint);
        assert!(
            sentence(&status).starts_with("Dead"),
            "{}",
            sentence(&status)
        );
        let mut next = stage.serve(&mountpoint);
        assert!(
            next.log().contains("cleared a dead mount"),
            "{}",
            next.log()
        );
        let alive = stage.play("status", &mountpoint);
        assert!(
            sentence(&alive).starts_with("Serving"),
            "{}",
            sentence(&alive)
        );
        // A dead mount is also taken away by unmounting.
        next.child.kill().unwrap();
        assert_eq!(next.ended(), None);
        let umount = stage.play("umount", &mountpoint);
        assert!(umount.status.success(), "{}", sentence(&umount));
        assert!(
            sentence(&umount).contains("WasDead"),
            "{}",
            sentence(&umount)
        );
        assert!(next.mount().is_none());
    });
}

#[test]
fn a_mount_in_use_stays_and_who_uses_it_is_named() {
    as_everybody(|stage| {
        let mountpoint = stage.directory("mnt");
        let mut daemon = stage.serve(&mountpoint);
        // Held by a process of the same user: `sh` opens, tells, and waits for its input to end.
        let mut holder = holder(stage, &mountpoint);
        let refused = stage.play("umount", &mountpoint);
        let said = sentence(&refused);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(
            said.contains("is in use") && said.contains("--lazy"),
            "{said}"
        );
        assert!(said.contains("(sh): open file"), "{said}");
        assert!(daemon.mount().is_some());
        // A signal detaches, and what is open is served on.
        daemon.signal(Signal::TERM);
        assert!(wait_until(LIMIT, || daemon.mount().is_none()));
        assert!(wait_until(LIMIT, || daemon.log().contains("was in use")));
        assert!(daemon.child.try_wait().unwrap().is_none());
        drop(holder.stdin.take());
        let read = holder.wait_with_output().unwrap();
        assert_eq!(read.stdout, [b"open\n", crate::one_file::CONTENT].concat());
        assert_eq!(daemon.ended(), Some(0), "{}", daemon.log());
    });
}

#[test]
fn a_second_signal_ends_at_once() {
    as_everybody(|stage| {
        let mountpoint = stage.directory("mnt");
        let mut daemon = stage.serve(&mountpoint);
        let mut holder = holder(stage, &mountpoint);
        daemon.signal(Signal::INT);
        assert!(wait_until(LIMIT, || daemon.log().contains("was in use")));
        daemon.signal(Signal::INT);
        assert_eq!(daemon.ended(), Some(130), "{}", daemon.log());
        assert!(daemon.mount().is_none());
        drop(holder.stdin.take());
        holder.wait().unwrap();
    });
}

#[test]
fn a_lazy_unmount_does_not_wait_for_open_files() {
    as_everybody(|stage| {
        let mountpoint = stage.directory("mnt");
        let mut daemon = stage.serve(&mountpoint);
        let mut holder = holder(stage, &mountpoint);
        let lazily = stage.play("umount-lazily", &mountpoint);
        assert!(
            sentence(&lazily).contains("StillServing"),
            "{}",
            sentence(&lazily)
        );
        assert!(daemon.mount().is_none());
        drop(holder.stdin.take());
        holder.wait().unwrap();
        assert_eq!(daemon.ended(), Some(0), "{}", daemon.log());
    });
}

#[test]
fn a_connection_that_is_broken_off_leaves_no_mount() {
    if !is_root() {
        eprintln!("SKIPPED: only root may break off a connection");
        return;
    }
    let stage = Stage::new(Who::Root);
    let mountpoint = stage.directory("mnt");
    let mut daemon = stage.serve(&mountpoint);
    let device = daemon.mount().unwrap().device;
    // With fusectl mounted for this command alone: not every machine has it mounted.
    let control = stage.directory("control");
    let aborted = Command::new("unshare")
        .args(["-m", "sh", "-ec"])
        .arg(r#"mount -t fusectl none "$1"; echo 1 >"$1/$2/abort""#)
        .arg("sh")
        .arg(&control)
        .arg(device.minor.to_string())
        .output()
        .unwrap();
    assert!(aborted.status.success(), "{}", sentence(&aborted));
    daemon.ended();
    assert!(daemon.mount().is_none());
}

/// It is asked for nothing any more, and takes nothing away, though its place and the number of its device are another's.
#[test]
fn a_daemon_that_takes_long_to_end_has_left_its_place_to_the_next() {
    as_everybody(|stage| {
        let mountpoint = stage.directory("mnt");
        let go = stage.path("primary").join("go");
        // The kernel gives the lowest number that is free: it may be another test's mount that gets it.
        for _ in 0..10 {
            let mut late = stage.serve_with(&mountpoint, &[("XPMFS_TEST_FAULT", "linger")]);
            let mount = late.mount().unwrap();
            late.signal(Signal::TERM);
            assert!(wait_until(LIMIT, || late.mount().is_none()));
            let answers = || {
                let client = Client::connect(mount.device, mount.owner());
                client.is_ok_and(|client| client.pid() == Some(late.child.id() as i32))
            };
            assert!(wait_until(LIMIT, || !answers()), "{:?}", stage.who);
            let mut next = stage.serve(&mountpoint);
            let has_its_number = next.mount().unwrap().device == mount.device;
            assert!(late.child.try_wait().unwrap().is_none());
            fs::write(&go, "").unwrap();
            assert_eq!(late.ended(), Some(0), "{}", late.log());
            assert!(next.mount().is_some(), "{}", late.log());
            next.signal(Signal::TERM);
            assert_eq!(next.ended(), Some(0), "{}", next.log());
            if has_its_number {
                return;
            }
            fs::remove_file(&go).unwrap();
        }
        eprintln!("the number of the device always went to another test's mount");
    });
}

/// A shell that has the mount's file open, until its standard input ends; then it copies the file out.
fn holder(stage: &Stage, mountpoint: &std::path::Path) -> std::process::Child {
    let script = "exec 3<\"$0/file\"; echo open; read wait; cat <&3";
    let mut command = match stage.who {
        Who::User if is_root() => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh"]);
            command
        }
        _ => Command::new("sh"),
    };
    let mut child = command
        .args(["-c", script])
        .arg(mountpoint)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let opened = wait_until(LIMIT, || {
        fs::read_link(format!("/proc/{pid}/fd/3")).is_ok_and(|path| path.starts_with(mountpoint))
    });
    if !opened {
        let _ = child.kill();
        panic!("the shell did not open the file");
    }
    child
}
