//! The life of a mount with a file system of one file: attaching, detaching, dying, in the foreground and in the
//! background, as root and as an ordinary user through `fusermount3`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // what a test is for

mod background;
mod one_file;
mod stage;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use stage::{LIMIT, Stage, Who, as_everybody, is_root, sentence};
use xpmfs::daemon::control::{self, Client, ClientError};
use xpmfs::daemon::health::{self, MountHealth};
use xpmfs::sys::deadline::wait_until;

/// No test: the processes on stage come in here.
#[test]
#[ignore = "played by the other tests"]
fn a_player() {
    stage::player();
}

#[test]
fn a_mount_is_of_our_type_shows_its_files_and_ends_with_its_daemon() {
    as_everybody(|stage| {
        let mountpoint = stage.directory("mnt");
        let mut daemon = stage.serve(&mountpoint);
        let mount = daemon.mount().expect("a mount");
        assert_eq!(mount.fs_type, "fuse.xpmfs");
        assert_eq!(mount.source, "test,\\ one", "{:?}", stage.who);
        assert!(mount.options.contains("nosuid") && mount.options.contains("nodev"));
        let read = stage.play("read", &mountpoint);
        assert!(read.status.success(), "{}", sentence(&read));
        let umount = stage.play("umount", &mountpoint);
        assert!(
            umount.status.success(),
            "{:?}: {}",
            stage.who,
            sentence(&umount)
        );
        assert!(sentence(&umount).contains("Ended"), "{}", sentence(&umount));
        assert_eq!(daemon.ended(), Some(0), "{}", daemon.log());
        assert!(daemon.mount().is_none());
        // And again, as nothing was left behind.
        let mut daemon = stage.serve(&mountpoint);
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.ended(), Some(0), "{}", daemon.log());
        assert!(daemon.mount().is_none());
    });
}

#[test]
fn options_reach_the_kernel() {
    as_everybody(|stage| {
        let mountpoint = stage.directory("mnt");
        let settings = [("XPMFS_TEST_READ_ONLY", "1"), ("XPMFS_TEST_NOEXEC", "1")];
        let daemon = stage.serve_with(&mountpoint, &settings);
        let mount = daemon.mount().expect("a mount");
        assert!(
            mount.is_read_only() && mount.options.contains("noexec"),
            "{mount:?}"
        );
    });
}

#[test]
fn strange_mount_points_are_mounted_on_and_found_again() {
    as_everybody(|stage| {
        for name in [
            &b"with space, comma \\ backslash\tand tab"[..],
            b"new\nline",
            b"not \xff\xfe UTF-8",
            "Prüfung #1 \\040".as_bytes(),
        ] {
            let mountpoint = stage.directory(OsStr::from_bytes(name));
            let mut daemon = stage.serve(&mountpoint);
            assert!(daemon.mount().is_some(), "{mountpoint:?}");
            let umount = stage.play("umount", &mountpoint);
            assert!(
                umount.status.success(),
                "{mountpoint:?}: {}",
                sentence(&umount)
            );
            assert_eq!(daemon.ended(), Some(0), "{mountpoint:?}");
        }
    });
}

#[test]
fn a_second_mount_at_the_same_place_is_refused_and_names_the_first() {
    as_everybody(|stage| {
        let mountpoint = stage.directory("mnt");
        let daemon = stage.serve(&mountpoint);
        let again = stage.play("serve", &mountpoint);
        assert_eq!(again.status.code(), Some(1));
        let said = sentence(&again);
        assert!(
            said.contains(&format!("process {}", daemon.child.id())),
            "{said}"
        );
        assert!(said.contains("xpmfs umount"), "{said}");
        assert!(daemon.mount().is_some());
    });
}

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
        assert_eq!(read.stdout, [b"open\n", one_file::CONTENT].concat());
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

#[test]
fn the_control_socket_tells_of_the_mount_and_hands_out_what_is_beneath() {
    as_everybody(|stage| {
        let mountpoint = stage.path("primary");
        if stage.who == Who::User && is_root() {
            std::os::unix::fs::chown(&mountpoint, Some(65534), Some(65534)).unwrap();
        }
        let mut daemon = stage.serve(&mountpoint);
        let mount = daemon.mount().unwrap();
        let mut client = Client::connect(mount.device, mount.owner()).unwrap();
        assert_eq!(client.pid(), Some(daemon.child.id() as i32));
        let status = client.request("status").unwrap();
        assert_eq!(status["workspace"], "one");
        assert_eq!(status["service"]["files"], 1);
        let unknown = client.request("dance").unwrap_err().to_string();
        assert!(
            unknown.contains("unknown request") && unknown.contains("status"),
            "{unknown}"
        );
        // In place, the path leads into the mount; the descriptor leads beneath it.
        let beneath = control::beneath(&mountpoint)
            .unwrap()
            .expect("a descriptor");
        let flags = rustix::fs::AtFlags::empty();
        rustix::fs::statat(&beneath, "beneath", flags).unwrap();
        drop(beneath);
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.ended(), Some(0), "{}", daemon.log());
        assert!(control::beneath(&mountpoint).unwrap().is_none());
        // The kernel gives the number of the device to the next mount, be it another test's.
        let successor = Client::connect(mount.device, mount.owner());
        assert!(successor.is_err() || successor.unwrap().pid() != Some(daemon.child.id() as i32));
    });
}

/// Root works in the directory beneath a user's mount with root's rights, so it must be that one.
#[test]
fn a_daemon_of_another_user_is_not_believed_what_lies_beneath() {
    as_everybody(|stage| {
        let mountpoint = stage.path("primary");
        if stage.who == Who::User && is_root() {
            std::os::unix::fs::chown(&mountpoint, Some(65534), Some(65534)).unwrap();
        }
        let other = stage.path("other");
        fs::create_dir(&other).unwrap();
        let mut honest = stage.serve(&mountpoint);
        assert!(control::beneath(&mountpoint).unwrap().is_some());
        honest.signal(Signal::TERM);
        assert_eq!(honest.ended(), Some(0), "{}", honest.log());
        let primary = ("XPMFS_TEST_PRIMARY", other.to_str().unwrap());
        let mountpoint = stage.directory("empty");
        let mut lying = stage.serve_with(&mountpoint, &[primary]);
        let foreign = lying.mount().unwrap().other_owner().is_some();
        match control::beneath(&mountpoint) {
            Err(ClientError::OtherDirectory { .. }) => assert!(foreign),
            beneath => assert!(beneath.is_ok() && !foreign, "{beneath:?}"),
        }
        lying.signal(Signal::TERM);
        assert_eq!(lying.ended(), Some(0), "{}", lying.log());
    });
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

#[test]
fn other_users_are_not_answered() {
    if !is_root() {
        eprintln!("SKIPPED: needs root, to be two users");
        return;
    }
    let stage = Stage::new(Who::Root);
    let mountpoint = stage.directory("mnt");
    let _daemon = stage.serve(&mountpoint);
    let stranger = Stage::new(Who::User);
    let status = stranger.play("status", &mountpoint);
    assert!(
        sentence(&status).starts_with("Foreign None"),
        "{}",
        sentence(&status)
    );
    let umount = stranger.play("umount", &mountpoint);
    assert!(!umount.status.success());
    assert!(
        sentence(&umount).contains("another user"),
        "{}",
        sentence(&umount)
    );
}

#[test]
fn a_client_that_says_nothing_does_not_hold_up_the_others() {
    as_everybody(|stage| {
        let mountpoint = stage.directory("mnt");
        let daemon = stage.serve(&mountpoint);
        let mount = daemon.mount().unwrap();
        let mute: Vec<_> = (0..5)
            .map(|_| Client::connect(mount.device, mount.owner()).unwrap())
            .collect();
        assert!(matches!(
            health::of(&mount),
            MountHealth::Serving { pid: Some(_) }
        ));
        drop(mute);
    });
}

#[test]
fn a_daemon_that_is_stopped_is_silent_and_holds_nobody_up() {
    as_everybody(|stage| {
        let mountpoint = stage.directory("mnt");
        let daemon = stage.serve(&mountpoint);
        daemon.signal(Signal::STOP);
        let status = stage.play("status", &mountpoint);
        assert!(
            sentence(&status).starts_with("Silent"),
            "{}",
            sentence(&status)
        );
        let again = stage.play("serve", &mountpoint);
        assert!(
            sentence(&again).contains("does not answer"),
            "{}",
            sentence(&again)
        );
        daemon.signal(Signal::CONT);
    });
}

#[test]
fn an_unprivileged_user_namespace_mounts_without_the_helper() {
    let stage = Stage::new(Who::NamespaceRoot);
    let mountpoint = stage.directory("mnt");
    let possible = Command::new("unshare").args(["-Urm", "true"]).status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no user namespaces here");
        return;
    }
    let mut daemon = stage.serve(&mountpoint);
    // Only the namespace has it; seen through the daemon's own root.
    assert!(daemon.mount().is_none());
    let inside = format!("/proc/{}/root{}", daemon.child.id(), mountpoint.display());
    let mountinfo = fs::read_to_string(format!("/proc/{}/mountinfo", daemon.child.id())).unwrap();
    assert!(mountinfo.contains("fuse.xpmfs"), "{inside}: {mountinfo}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended(), Some(0), "{}", daemon.log());
}

#[test]
fn what_cannot_be_is_refused_with_a_sentence_that_says_what_to_do() {
    let stage = Stage::new(Who::User);
    let full = stage.directory("full");
    fs::write(full.join("x"), "").unwrap();
    assert!(sentence(&stage.play("serve", &full)).contains("is not empty"));
    assert!(sentence(&stage.play("serve", &full.join("x"))).contains("not a directory"));
    assert!(sentence(&stage.play("umount", &full)).contains("no xpmfs mount on"));
    let fuse_conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if !fuse_conf
        .lines()
        .any(|line| line.trim() == "user_allow_other")
    {
        let mountpoint = stage.directory("mnt");
        let refused = stage
            .command("serve", &mountpoint)
            .env("XPMFS_TEST_ALLOW_OTHER", "1")
            .output()
            .unwrap();
        assert!(
            sentence(&refused).contains("/etc/fuse.conf"),
            "{}",
            sentence(&refused)
        );
    }
    if is_root() {
        let theirs = stage.path("theirs");
        fs::create_dir(&theirs).unwrap();
        let refused = stage.play("serve", &theirs);
        assert!(
            sentence(&refused).contains("mount elsewhere"),
            "{}",
            sentence(&refused)
        );
    }
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
