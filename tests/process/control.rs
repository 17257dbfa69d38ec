//! The socket of a daemon: what it answers, to whom, and what a silent client or daemon holds up.

use std::fs;

use rustix::process::Signal;
use xpmfs::daemon::control::{Client, ClientError};
use xpmfs::daemon::health::{self, MountHealth};
use xpmfs::daemon::uncovered;

use crate::stage::{Stage, Who, as_everybody, is_root, sentence};

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
        let beneath = uncovered::beneath(&mountpoint)
            .unwrap()
            .expect("a descriptor");
        let flags = rustix::fs::AtFlags::empty();
        rustix::fs::statat(&beneath, "beneath", flags).unwrap();
        drop(beneath);
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.ended(), Some(0), "{}", daemon.log());
        assert!(uncovered::beneath(&mountpoint).unwrap().is_none());
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
        assert!(uncovered::beneath(&mountpoint).unwrap().is_some());
        honest.signal(Signal::TERM);
        assert_eq!(honest.ended(), Some(0), "{}", honest.log());
        let primary = ("XPMFS_TEST_PRIMARY", other.to_str().unwrap());
        let mountpoint = stage.directory("empty");
        let mut lying = stage.serve_with(&mountpoint, &[primary]);
        let foreign = lying.mount().unwrap().other_owner().is_some();
        match uncovered::beneath(&mountpoint) {
            Err(ClientError::OtherDirectory { .. }) => assert!(foreign),
            beneath => assert!(beneath.is_ok() && !foreign, "{beneath:?}"),
        }
        lying.signal(Signal::TERM);
        assert_eq!(lying.ended(), Some(0), "{}", lying.log());
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
