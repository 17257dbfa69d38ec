//! `umount`, mounts that are in use, and mounts whose daemon is dead.

use std::fs::{self, File};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use xpmfs::sys::deadline::wait_until;

use crate::home::{Home, LIMIT, at_everybodys_home, is_mounted, is_root, said};

#[test]
fn the_only_mount_of_a_workspace_is_found_and_several_are_told_apart() {
    at_everybodys_home(|home| {
        let (mnt, other) = (home.path("mnt"), home.directory("other"));
        home.mount(&[mnt.to_str().unwrap()]);
        home.mount(&[other.to_str().unwrap()]);
        let refused = home.refuses(&["umount", "-w", "nlp"]);
        assert!(refused.contains("say which one"), "{refused}");
        home.does(&["umount", other.to_str().unwrap()]);
        home.does(&["umount", "-w", "nlp"]);
        assert!(!is_mounted(&mnt));
    });
}

#[test]
fn a_dead_mount_is_in_the_way_of_no_reload() {
    at_everybodys_home(|home| {
        let (mnt, other) = (home.path("mnt"), home.directory("other"));
        let settings = home.path("settings.yaml");
        let named = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, named.replace("id: nlp", "id: left")).unwrap();
        home.mount(&[mnt.to_str().unwrap()]);
        home.mount(&[other.to_str().unwrap()]);
        home.kill_daemon(&other);
        home.does(&["reload", "-w", "left"]);
        let refused = home.refuses(&["umount", "-w", "left"]);
        assert!(refused.contains("say which one"), "{refused}");
        home.does(&["umount", other.to_str().unwrap()]);
        home.kill_daemon(&mnt);
        let refused = home.refuses(&["reload", "-w", "left"]);
        let ended = format!("`xpmfs umount '{}'`", mnt.display());
        assert!(refused.contains(&ended), "{refused}");
        home.does(&["umount", "-w", "left"]);
    });
}

#[test]
fn a_dead_mount_in_place_is_shown_and_cleared_by_the_next_mount_and_by_umount() {
    at_everybodys_home(|home| {
        let ws = home.path("ws");
        // Of a dead mount the name is all there is: no other test is to find this one by it.
        let settings = home.path("settings.yaml");
        let named = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, named.replace("id: nlp", "id: killed")).unwrap();
        home.mount(&[]);
        home.kill_daemon(&ws);
        let table = home.does(&["status", ws.to_str().unwrap()]);
        assert!(
            table.contains("dead") && table.contains("xpmfs umount"),
            "{table}"
        );
        let archive = ["jobs", "archive", "--all", "-w", "killed"];
        let clear = format!("`xpmfs umount '{}'`", ws.display());
        let refused = home.refuses(&archive);
        assert!(refused.contains(&clear), "{refused}");
        let refused = home.refuses(&["umount", "--drain", "-w", "killed"]);
        let ended = format!("the daemon has ended: {clear}");
        assert!(refused.contains(&ended), "{refused}");
        if home.ordinary && is_root() {
            let mut command = Command::new(&home.binary);
            command.arg("--settings").arg(&settings).args(archive);
            let refused = said(&command.output().unwrap());
            let whose = "the mount belongs to the user `nobody`";
            for part in [whose, &clear] {
                assert!(refused.contains(part), "{part}: {refused}");
            }
        }
        let output = home
            .xpmfs(&["mount", "--log", home.log().to_str().unwrap()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(
            said(&output).matches("cleared a dead mount").count(),
            1,
            "{}",
            said(&output)
        );
        home.kill_daemon(&ws);
        home.does(&["umount", "-w", "killed"]);
        assert!(!is_mounted(&ws));
    });
}

#[test]
fn a_mount_that_is_somebodys_directory_is_busy_and_says_whose() {
    at_everybodys_home(|home| {
        home.mount(&[]);
        let ws = home.path("ws");
        let mut holder = home.program(Path::new("sh"));
        holder.args(["-c", "cd \"$0\" && exec sleep 1000"]).arg(&ws);
        let mut holder = holder.spawn().unwrap();
        let cwd = format!("/proc/{}/cwd", holder.id());
        assert!(wait_until(LIMIT, || fs::read_link(&cwd).is_ok_and(|cwd| cwd == ws)));
        let refused = home.refuses(&["umount"]);
        assert!(
            refused.contains(&format!("process {}", holder.id())),
            "{refused}"
        );
        assert!(
            refused.contains("current directory") && refused.contains("--lazy"),
            "{refused}"
        );
        home.does(&["umount", "--lazy"]);
        assert!(!is_mounted(&ws));
        holder.kill().unwrap();
        holder.wait().unwrap();
    });
}

/// Keeps a mount in use by a descriptor that is on its way through a socket, and so in no process.
fn held_by_no_process(mountpoint: &Path) -> (UnixStream, UnixStream) {
    let (sender, receiver) = UnixStream::pair().unwrap();
    let used = File::open(mountpoint).unwrap();
    let descriptors = [used.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let sent = rustix::net::sendmsg(
        &sender,
        &[IoSlice::new(b"x")],
        &mut control,
        SendFlags::empty(),
    );
    assert_eq!(sent, Ok(1));
    (sender, receiver)
}

#[test]
fn a_mount_that_is_in_use_for_a_moment_by_nobody_who_is_seen_is_unmounted() {
    let home = Home::new(!is_root());
    home.mount(&[]);
    let held = held_by_no_process(&home.path("ws"));
    let mut umount = home.xpmfs(&["umount"]);
    let umount = umount.stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    drop(held);
    let umount = umount.wait_with_output().unwrap();
    assert!(umount.status.success(), "{}", said(&umount));
}

#[test]
fn for_a_mount_that_no_process_is_seen_to_use_the_advice_is_for_the_user_who_asks() {
    let home = Home::new(!is_root());
    home.mount(&[]);
    let held = held_by_no_process(&home.path("ws"));
    let refused = home.refuses(&["umount"]);
    assert_eq!(refused.contains("losetup"), is_root(), "{refused}");
    assert_eq!(refused.contains("as root"), !is_root(), "{refused}");
    drop(held);
    home.does(&["umount"]);
}
