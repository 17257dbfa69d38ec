//! Which process, session or cgroup holds a mount, and what ends a hold.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use xpmfs::daemon::mounts;
use xpmfs::sys::deadline::wait_until;

use super::{Lines, Script, holders, lines};
use crate::common;
use crate::common::daemon::kill_worker;
use crate::home::{Home, LIMIT, at_everybodys_home, is_mounted, said};

#[test]
fn a_holder_that_was_killed_does_not_count() {
    at_everybodys_home(|home| {
        let place = home.path("ws");
        let lines = lines(home, &place);
        let (mut first, mut second) = (Script::start(home), Script::start(home));
        first.does(&lines.mount);
        second.does(&lines.mount);
        first.kill();
        assert_eq!(holders(home, &place), [format!("pid:{}", second.pid())]);
        second.kill();
        assert_eq!(holders(home, &place), [""; 0]);
        let text = home.does(&["status", place.to_str().unwrap()]);
        assert!(text.contains("no program holds it"), "{text}");
        assert!(is_mounted(&place), "unmounted by itself");
        home.does(&["umount", place.to_str().unwrap()]);
        assert!(!is_mounted(&place));
    });
}

#[test]
fn holders_outlive_the_process_that_serves_the_mount() {
    at_everybodys_home(|home| {
        let place = home.path("ws");
        let lines = lines(home, &place);
        let mut script = Script::start(home);
        script.does(&lines.mount);
        for _ in 0..2 {
            kill_worker(home.daemon(&place));
            // Also while the next one is about to take over.
            let refused = home.refuses(&["umount", place.to_str().unwrap()]);
            assert!(refused.contains("held by"), "{refused}");
            fs::metadata(place.join("jobs")).map_or_else(drop_denied, drop);
        }
        let mut other = Script::start(home);
        other.does(&lines.mount);
        script.does(&lines.umount);
        other.does(&lines.umount);
        assert!(!is_mounted(&place));
    });
}

/// Root is kept out of the mount of an ordinary user.
fn drop_denied(error: std::io::Error) {
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn the_caller_is_the_script_also_from_subshells_and_timeout() {
    at_everybodys_home(|home| {
        let place = home.path("mnt");
        let Lines { mount, umount } = lines(home, &place);
        let forms = [
            ("{}", "the shell itself"),
            ("( {}; true )", "a subshell"),
            ("( ( {}; true ); true )", "a subshell of a subshell"),
            ("out=$({}; true)", "a command substitution"),
            ("{} | cat", "a pipeline"),
            ("timeout 60 {}", "timeout"),
            ("setsid --wait {}", "a session of its own"),
            ("f() { {}; }; f", "a function"),
            ("if {}; then true; fi", "a condition"),
        ];
        let session = |home: &Home| {
            let mut command = home.program(Path::new("setsid"));
            command.arg("bash");
            Script::run_by(command, home)
        };
        for (form, name) in forms {
            for mut script in [Script::start(home), session(home)] {
                script.does(&form.replace("{}", &mount));
                let held = holders(home, &place);
                assert_eq!(held, [format!("pid:{}", script.pid())], "{name}");
                script.does(&umount);
                assert!(!is_mounted(&place), "{name}");
            }
        }
        // One mounts in a subshell, and unmounts in a trap.
        let script = format!("leave() {{ {umount}; }}\ntrap leave EXIT\n( {mount} )\n");
        let mut command = home.program(Path::new("bash"));
        command.args(["-c", &script]).env("X", &home.binary);
        command
            .env("XPMFS_SETTINGS", home.path("settings.yaml"))
            .env_remove("SLURM_JOB_ID");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert!(!is_mounted(&place), "{}", said(&output));
    });
}

#[test]
fn a_process_or_a_session_can_be_named() {
    at_everybodys_home(|home| {
        let place = home.path("ws");
        let Lines { mount, umount } = lines(home, &place);
        let mut script = Script::start(home);
        let mut leader = home.program(Path::new("setsid"));
        let mut leader = leader.args(["sleep", "600"]).spawn().unwrap();
        let pid = leader.id();
        let stat = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        assert!(wait_until(LIMIT, || stat().contains("(sleep)")));
        for holder in [format!("pid:{pid}"), format!("session:{pid}")] {
            let (mount, umount) = (
                format!("{mount} --holder {holder}"),
                format!("{umount} --holder {holder}"),
            );
            script.does(&mount);
            assert_eq!(holders(home, &place), [holder.as_str()]);
            assert_eq!(script.tries("true").1, 0);
            // Held twice, by the same holder.
            script.does(&mount);
            script.does(&umount);
            assert!(is_mounted(&place));
            script.does(&umount);
            assert!(!is_mounted(&place));
        }
        script.does(&format!("{mount} --holder session:{pid}"));
        leader.kill().unwrap();
        leader.wait().unwrap();
        // A hold of a holder that has ended is over.
        script.does(&mount);
        let printed = script.does(&format!("{umount} --holder session:{pid}"));
        assert!(printed.contains("stays mounted"), "{printed}");
        let (printed, status) = script.tries(&format!("{mount} --holder pid:{pid}"));
        assert!(
            status == 1 && printed.contains("there is no process"),
            "{printed}"
        );
        script.does(&umount);
        assert!(!is_mounted(&place));
        for wrong in ["tty:1", "pid:x", "7"] {
            let (printed, status) = script.tries(&format!("{mount} --holder {wrong}"));
            assert!(
                status == 2 && printed.contains("names no holder"),
                "{printed}"
            );
        }
    });
}

/// A new cgroup, removed when it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Option<Cgroup> {
        let mounts = mounts::all().unwrap().into_iter();
        let mut mounts = mounts.filter(|mount| ["cgroup", "cgroup2"].contains(&&*mount.fs_type));
        let made = mounts.find_map(|mount| {
            let path = mount.mountpoint.join(name);
            // A v1 cgroup of some controllers takes no process before it is set up.
            let plain = mount.fs_type == "cgroup2" || mount.super_options.contains("freezer");
            (plain && fs::create_dir(&path).is_ok()).then_some(path)
        })?;
        Some(Cgroup(made))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        wait_until(LIMIT, || fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn under_slurm_the_holder_is_the_cgroup_of_the_job() {
    if !common::is_root() {
        return;
    }
    let home = Home::new(false);
    let place = home.path("mnt");
    let Lines { mount, umount } = lines(&home, &place);
    let id = std::process::id();
    let Some(cgroup) = Cgroup::new(&format!("job_{id}")) else {
        common::say("SKIPPED: no cgroup can be made here");
        return;
    };
    let expected = format!("cgroup:{}", cgroup.0.display());
    let mut script = Script::start(&home);
    script.does(&format!("echo $$ >'{}/cgroup.procs'", cgroup.0.display()));
    script.does(&format!("export SLURM_JOB_ID={id}"));
    // From steps and wrappers of any depth.
    script.does(&format!("timeout 60 setsid --wait nice {mount}"));
    assert_eq!(holders(&home, &place), [expected.as_str()]);
    // The daemon is in the cgroup, too: Slurm kills it with the job, so another job's daemon must not be this one.
    let (pid, other) = (home.daemon(&place), cgroup.0.parent().unwrap());
    let supervisor = common::daemon::supervisor(pid);
    for pid in [pid, supervisor] {
        fs::write(other.join("cgroup.procs"), pid.to_string()).unwrap();
    }
    let refused = home.refuses(&["umount", place.to_str().unwrap()]);
    assert!(
        refused.contains(&format!("cgroup {}", cgroup.0.display())),
        "{refused}"
    );
    script.does(&umount);
    assert!(!is_mounted(&place));
    // A job whose processes have ended.
    script.does(&mount);
    let pid = home.daemon(&place);
    for pid in [pid, common::daemon::supervisor(pid)] {
        fs::write(other.join("cgroup.procs"), pid.to_string()).unwrap();
    }
    script.kill();
    assert_eq!(holders(&home, &place), [""; 0]);
    home.does(&["umount", place.to_str().unwrap()]);
}

#[test]
fn a_stopped_daemon_is_not_unmounted_as_it_may_have_holders() {
    let home = Home::new(false);
    let place = home.path("mnt");
    let mut script = Script::start(&home);
    script.does(&lines(&home, &place).mount);
    let pid = Pid::from_raw(home.daemon(&place)).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let refused = home.refuses(&["umount", place.to_str().unwrap()]);
    kill_process(pid, Signal::CONT).unwrap();
    assert!(
        refused.contains("not known whether other programs hold"),
        "{refused}"
    );
    assert!(is_mounted(&place));
    script.does(&lines(&home, &place).umount);
    assert!(!is_mounted(&place));
}
