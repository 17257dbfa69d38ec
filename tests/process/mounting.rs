//! How a mount begins: its options, its place, and what is refused.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use rustix::process::Signal;

use crate::stage::{Stage, Who, as_everybody, is_root, sentence};

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
