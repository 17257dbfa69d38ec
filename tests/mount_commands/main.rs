//! `mount`, `umount`, `status`, `completions`, `man` and `mount.fuse.xpmfs`, as a person and mount(8) call them.
//!
//! As root everything is played twice: as root, and as an ordinary user through `fusermount3`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // what a test is for

#[path = "../common/mod.rs"]
mod common;
mod front;
mod home;
mod machine;
mod messages;
mod options;
mod sharing;
mod shells;
mod status;

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use home::{Home, LIMIT, at_everybodys_home, is_mounted, is_root, said};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::Value;
use xpmfs::daemon::mounts;
use xpmfs::sys::deadline::wait_until;

#[test]
fn in_place_and_elsewhere_at_once_the_view_is_there_when_the_command_returns() {
    at_everybodys_home(|home| {
        home.mount(&[]);
        assert!(is_mounted(&home.path("ws")));
        let mnt = home.path("mnt");
        home.mount(&[mnt.to_str().unwrap()]);
        for place in ["ws", "mnt"] {
            let listed = home
                .program(Path::new("ls"))
                .arg(home.path(place).join("jobs/t"))
                .output()
                .unwrap();
            let listed = String::from_utf8(listed.stdout).unwrap();
            assert_eq!(
                listed,
                format!("{}\n{}\n", "a".repeat(64), "b".repeat(64)),
                "{place}"
            );
        }
        home.does(&["umount", mnt.to_str().unwrap()]);
        assert!(is_mounted(&home.path("ws")) && !is_mounted(&mnt));
        home.does(&["umount", "-w", "nlp"]);
        assert!(!is_mounted(&home.path("ws")));
        assert!(home.refuses(&["umount"]).contains("is not mounted"));
    });
}

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
fn status_shows_mounts_with_their_folders_and_workspaces_that_are_not_mounted() {
    at_everybodys_home(|home| {
        fs::remove_dir_all(home.path("kept")).unwrap();
        home.mount(&["--read-only"]);
        let status = home.status(&[]);
        let ws = home.path("ws");
        let mine = |mount: &&Value| mount["mountpoint"].as_str() == ws.to_str();
        let mounts = status["mounts"].as_array().unwrap();
        let mount = mounts.iter().find(mine).expect("the mount");
        assert_eq!(mount["workspace"], "nlp");
        assert_eq!(mount["state"], "ok");
        assert_eq!(mount["read_only"], true);
        assert_eq!(mount["log"].as_str(), home.log().to_str());
        let locations = mount["locations"].as_array().unwrap();
        let states: Vec<_> = locations
            .iter()
            .map(|l| (l["mode"].as_str().unwrap(), l["state"].as_str().unwrap()))
            .collect();
        assert_eq!(states, [("primary", "ok"), ("backup", "missing")]);
        assert!(locations[0]["total"].as_u64() > Some(0));
        assert_eq!(status["workspaces"][0]["workspace"], "gone");
        assert_eq!(status["workspaces"][0]["locations"][0]["state"], "missing");
        let table = home.does(&["status"]);
        assert!(
            table.contains("(in place)") && table.contains("read-only"),
            "{table}"
        );
        assert!(table.contains("gone (not mounted)"), "{table}");
        let selected = home.status(&["-w", "gone"]);
        assert_eq!(selected["mounts"].as_array().map(Vec::len), Some(0));
    });
}

#[test]
fn a_dead_mount_hides_nothing_that_status_shows_of_a_workspace_without_a_mount() {
    at_everybodys_home(|home| {
        let settings = home.path("settings.yaml");
        let named = fs::read_to_string(&settings).unwrap();
        fs::write(&settings, named.replace("id: nlp", "id: killed elsewhere")).unwrap();
        let mnt = home.path("mnt");
        home.mount(&[mnt.to_str().unwrap()]);
        home.kill_daemon(&mnt);
        let status = home.status(&["-w", "killed elsewhere"]);
        assert_eq!(status["mounts"][0]["state"], "dead", "{status}");
        let shown = &status["workspaces"][0];
        assert_eq!(shown["workspace"], "killed elsewhere", "{status}");
        assert_eq!(shown["locations"][0]["state"], "ok", "{status}");
        let table = home.does(&["status", "-w", "killed elsewhere"]);
        assert!(table.contains("killed elsewhere (not mounted)"), "{table}");
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
        let clear = format!("`xpmfs umount {}`", ws.display());
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
fn what_goes_wrong_is_said_once_and_with_what_to_do() {
    at_everybodys_home(|home| {
        let mnt = home.path("mnt");
        let place = mnt.to_str().unwrap();
        let once = |arguments: &[&str], advice: &str| {
            let said = home.refuses(arguments);
            assert_eq!(said.matches(advice).count(), 1, "{arguments:?}: {said}");
            assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        };
        once(&["mount", "-w", "gone"], "create it, or correct the path");
        once(
            &["mount", home.path("kept").to_str().unwrap()],
            "is not empty",
        );
        once(&["mount", "/nowhere/at/all"], "mkdir -p");
        once(&["mount", "--log", "/proc/no/log", place], "--log");
        if home.ordinary && is_root() {
            let theirs = home.path("theirs");
            fs::create_dir(&theirs).unwrap();
            once(&["mount", theirs.to_str().unwrap()], "mount elsewhere");
        }
        home.mount(&[]);
        once(&["mount"], "already has an xpmfs mount");
        assert!(!is_mounted(&mnt));
        home.does(&["umount"]);
    });
}

#[test]
fn of_several_mounts_at_once_at_one_place_one_succeeds() {
    at_everybodys_home(|home| {
        let log = home.log();
        let arguments = ["mount", "--log", log.to_str().unwrap()];
        let mounting: Vec<_> = (0..6)
            .map(|_| {
                home.xpmfs(&arguments)
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let outputs: Vec<_> = mounting
            .into_iter()
            .map(|child| child.wait_with_output().unwrap())
            .collect();
        let done = outputs
            .iter()
            .filter(|output| output.status.success())
            .count();
        assert_eq!(
            done,
            1,
            "{:?}",
            outputs.iter().map(said).collect::<Vec<_>>()
        );
        for refused in outputs.iter().filter(|output| !output.status.success()) {
            assert!(
                said(refused).contains("already has an xpmfs mount"),
                "{}",
                said(refused)
            );
        }
        let ws = home.path("ws");
        let mounted = mounts::xpmfs().unwrap();
        assert_eq!(
            mounted
                .iter()
                .filter(|mount| mount.mountpoint == ws)
                .count(),
            1
        );
        home.does(&["umount"]);
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

#[test]
fn relative_paths_are_meant_from_where_the_command_is_run() {
    at_everybodys_home(|home| {
        let extra = home.directory("extra");
        home.log();
        let mut command = home.program(&home.binary);
        let output = command
            .current_dir(home.dir.path())
            .args(["--settings", "settings.yaml", "mount", "mnt"])
            .args(["--folder", "use:extra", "--log", "logs/mine"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert!(home.path("logs/mine").exists());
        let status = home.status(&[home.path("mnt").to_str().unwrap()]);
        let folder = &status["mounts"][0]["locations"][2];
        assert_eq!(folder["path"].as_str(), extra.to_str());
        assert_eq!(folder["state"], "no jobs");
    });
}

#[test]
fn a_daemon_keeps_nothing_open_of_who_starts_it() {
    at_everybodys_home(|home| {
        let file = home.directory("open").join("file");
        let log = home.log();
        let script = "exec 9>\"$1\"; shift; exec \"$@\"";
        let mut command = home.program(Path::new("/bin/sh"));
        command.args(["-c", script, "sh"]).arg(&file);
        command
            .arg(&home.binary)
            .arg("--settings")
            .arg(home.path("settings.yaml"));
        let output = command.arg("mount").arg("--log").arg(log).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert!(file.exists());
        let daemon = home.daemon(&home.path("ws"));
        let open = fs::read_dir(format!("/proc/{daemon}/fd")).unwrap();
        let open: Vec<_> = open
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .collect();
        assert!(!open.is_empty() && !open.contains(&file), "{open:?}");
        home.does(&["umount"]);
    });
}

/// Held up between the two calls that make a socket and listen at it, the daemon refuses who connects.
#[test]
fn who_asks_before_the_daemon_listens_does_it_no_harm() {
    // fusermount3 has its rights only if whoever traces it is root.
    if !common::is_root() {
        return;
    }
    at_everybodys_home(|home| {
        let mount = home.xpmfs(&["mount", "-f"]);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=listen"]);
        strace.args(["-e", "inject=listen:delay_enter=4000000", "--"]);
        strace.arg(mount.get_program()).args(mount.get_args());
        for (name, value) in mount.get_envs() {
            match value {
                Some(value) => strace.env(name, value),
                None => strace.env_remove(name),
            };
        }
        let mut daemon = strace.stderr(Stdio::null()).spawn().unwrap();
        let ws = home.path("ws");
        assert!(wait_until(LIMIT, || is_mounted(&ws)));
        let mut asked_too_early = false;
        let is_known = wait_until(LIMIT, || {
            let status = home.status(&[ws.to_str().unwrap()]);
            let is_known = status["mounts"][0]["pid"].is_i64();
            asked_too_early |= !is_known;
            is_known
        });
        home.does(&["umount"]);
        assert!(daemon.wait().unwrap().success());
        assert!(asked_too_early && is_known, "{asked_too_early} {is_known}");
    });
}

#[test]
fn strange_workspaces_are_mounted_in_place() {
    at_everybodys_home(|home| {
        for name in [
            &b"comma, back\\slash"[..],
            "Prüfung".as_bytes(),
            b"no \xff text",
        ] {
            let ws = home.directory(OsStr::from_bytes(name));
            let log = home.log();
            let mount = home
                .xpmfs(&["mount", "--log"])
                .arg(log)
                .arg("--workdir")
                .arg(&ws)
                .output()
                .unwrap();
            assert!(mount.status.success(), "{}", said(&mount));
            assert!(is_mounted(&ws));
            let umount = home
                .xpmfs(&["umount", "--workdir"])
                .arg(&ws)
                .output()
                .unwrap();
            assert!(umount.status.success(), "{}", said(&umount));
        }
    });
}

#[test]
fn a_mount_that_is_in_use_for_a_moment_by_nobody_who_is_seen_is_unmounted() {
    let home = Home::new(!is_root());
    home.mount(&[]);
    // What is on its way through a socket is in no process.
    let (sender, receiver) = UnixStream::pair().unwrap();
    let used = File::open(home.path("ws")).unwrap();
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
    drop(used);
    let mut umount = home.xpmfs(&["umount"]);
    let umount = umount.stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    drop((sender, receiver));
    let umount = umount.wait_with_output().unwrap();
    assert!(umount.status.success(), "{}", said(&umount));
}

#[test]
fn mount_8_can_call_the_program() {
    at_everybodys_home(|home| {
        let helper = home.path("mount.fuse.xpmfs");
        symlink(&home.binary, &helper).unwrap();
        let mnt = home.path("mnt");
        let log = home.log();
        // A backslash takes the next byte as it is, so paths are written plainly only without commas.
        let options = format!(
            "rw,noexec,nofail,settings={},log={}",
            home.path("settings.yaml").display(),
            log.display()
        );
        let output = home
            .program(&helper)
            .arg("nlp")
            .arg(&mnt)
            .args(["-n", "-o", &options, "-t", "fuse.xpmfs"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let mount = mounts::top_at(&mnt).unwrap().expect("a mount");
        assert_eq!(mount.source, "nlp");
        assert!(mount.options.contains("noexec"));
        home.does(&["umount", mnt.to_str().unwrap()]);
        let rehearsal = home
            .program(&helper)
            .args(["nlp", "/nowhere", "-f"])
            .output()
            .unwrap();
        assert!(rehearsal.status.success());
        let wrong = home.program(&helper).arg("nlp").output().unwrap();
        assert!(!wrong.status.success() && said(&wrong).contains("Usage"));
    });
}

#[test]
fn in_the_foreground_the_service_manager_is_told() {
    at_everybodys_home(|home| {
        let address = home.path("notify");
        let socket = UnixDatagram::bind(&address).unwrap();
        fs::set_permissions(&address, Permissions::from_mode(0o777)).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let heard = || {
            let mut bytes = [0; 1024];
            let length = socket.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        let mut daemon = home
            .xpmfs(&["mount", "-f"])
            .env("NOTIFY_SOCKET", &address)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        assert!(heard().contains("READY=1"));
        assert!(is_mounted(&home.path("ws")));
        let pid = rustix::process::Pid::from_raw(daemon.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(heard().contains("STOPPING=1"));
        assert_eq!(daemon.wait().unwrap().code(), Some(0));
        assert!(!is_mounted(&home.path("ws")));
    });
}

#[test]
fn completions_and_manual_pages_are_printed() {
    let home = Home::new(true);
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            home.does(&["completions", shell])
                .contains("XPMFS_COMPLETE")
        );
    }
    assert!(home.does(&["man"]).starts_with(".ie"));
    let dir = home.directory("man");
    home.does(&["man", "--dir", dir.to_str().unwrap()]);
    let page = fs::read_to_string(dir.join("xpmfs-mount.1")).unwrap();
    assert!(page.contains("allow_other") && !page.contains("in\\-background"));
    assert!(!dir.join("xpmfs-probe.1").exists());
}
