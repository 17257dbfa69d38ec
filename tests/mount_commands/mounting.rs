//! `mount` by a person, by mount(8) and by the service manager.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use xpmfs::daemon::mounts;
use xpmfs::sys::deadline::wait_until;

use crate::home::{LIMIT, at_everybodys_home, is_mounted, is_root, said};

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
    if !crate::common::is_root() {
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
