//! When another process takes over, and when not.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::common::daemon::{kill_both, kill_worker};
use super::common::{self, eventually, is_mounted, run};
use super::killer::{child, kill_during, processes};
use super::{HOWS, mount, workspace};

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn is_running(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok()
}

#[test]
fn a_mount_whose_processes_all_die_at_once_is_unmounted() {
    let workspace = workspace(HOWS[0]);
    let mounted = mount(&workspace, HOWS[0]);
    let (mut pid, supervisor) = processes(&workspace, mounted.path());
    for _ in 0..2 {
        kill_worker(pid);
        pid = child(supervisor, pid);
    }
    kill_worker(pid);
    eventually("it is unmounted", || !is_mounted(mounted.path()));
    eventually("the supervisor has ended", || !is_running(supervisor));
    assert!(
        workspace
            .log()
            .contains("have died before they answered a request")
    );
    assert!(
        mounted.path().join("jobs").exists(),
        "the primary shows again"
    );
}

#[test]
fn without_its_supervisor_a_mount_is_served_on() {
    let workspace = workspace(HOWS[0]);
    let mounted = mount(&workspace, HOWS[0]);
    let (pid, supervisor) = processes(&workspace, mounted.path());
    signal(supervisor, Signal::KILL);
    eventually("the supervisor has ended", || !is_running(supervisor));
    let path = mounted.path().join("file");
    fs::write(&path, "written").unwrap();
    let lock = fs::File::open(&path).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    drop(lock);
    fs::remove_file(&path).unwrap();
    run(workspace.xpmfs().arg("umount").arg(mounted.path()));
    eventually("the daemon has ended", || !is_running(pid));
}

#[test]
fn both_processes_killed_leave_a_dead_mount_that_the_next_one_clears() {
    let workspace = workspace(HOWS[0]);
    let mounted = mount(&workspace, HOWS[0]);
    let (pid, _) = processes(&workspace, mounted.path());
    kill_both(pid);
    eventually("the mount is dead", || {
        fs::metadata(mounted.path()).is_err_and(|e| e.raw_os_error() == Some(libc::ENOTCONN))
    });
    let again = mount(&workspace, HOWS[0]);
    assert!(again.path().join("jobs").exists());
}

#[test]
fn signals_to_either_process_end_the_mount_and_both() {
    for to_supervisor in [false, true] {
        for number in [Signal::TERM, Signal::INT] {
            let workspace = workspace(HOWS[0]);
            let mounted = mount(&workspace, HOWS[0]);
            let (first, supervisor) = processes(&workspace, mounted.path());
            kill_worker(first);
            fs::metadata(mounted.path().join("jobs")).unwrap();
            let (pid, _) = processes(&workspace, mounted.path());
            signal(if to_supervisor { supervisor } else { pid }, number);
            eventually("it is unmounted", || !is_mounted(mounted.path()));
            eventually("both have ended", || {
                !is_running(pid) && !is_running(supervisor)
            });
        }
    }
}

#[test]
fn a_signal_to_both_at_once_does_not_cut_off_open_files() {
    let workspace = workspace(HOWS[0]);
    let mounted = mount(&workspace, HOWS[0]);
    let (pid, supervisor) = processes(&workspace, mounted.path());
    let path = mounted.path().join("file");
    let mut file = fs::File::create(path).unwrap();
    signal(supervisor, Signal::TERM);
    signal(pid, Signal::TERM);
    eventually("it is detached", || !is_mounted(mounted.path()));
    std::io::Write::write_all(&mut file, b"written").unwrap();
    file.sync_all().unwrap();
    drop(file);
    eventually("both have ended", || {
        !is_running(pid) && !is_running(supervisor)
    });
}

/// The number of descriptors and threads of a process.
fn footprint(pid: i32) -> [usize; 2] {
    ["fd", "task"].map(|name| fs::read_dir(format!("/proc/{pid}/{name}")).unwrap().count())
}

#[test]
fn nothing_is_left_of_processes_that_were_killed() {
    let workspace = workspace(HOWS[0]);
    let mounted = mount(&workspace, HOWS[0]);
    let path = mounted.path().to_owned();
    let once = || {
        kill_during(
            &workspace,
            &path,
            Duration::from_secs(1),
            Duration::from_millis(30),
            |over| {
                while !over.load(std::sync::atomic::Ordering::Acquire) {
                    let made = path.join("file");
                    let held = fs::File::create(&made).unwrap();
                    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
                    fs::remove_file(&made).unwrap();
                    run(Command::new("find").arg(path.join("jobs")));
                }
            },
        )
    };
    once();
    // The next process begins with what is open.
    let (_, supervisor) = processes(&workspace, &path);
    let before = footprint(supervisor);
    let kills = once();
    eventually("the supervisor has closed what it kept", || {
        footprint(supervisor)[0] <= before[0] && footprint(supervisor)[1] == 1
    });
    let status = run(workspace.xpmfs().args(["--json", "status"]).arg(&path));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(status["mounts"][0]["pid"].is_i64());
    common::say(&format!("killed {kills} times"));
}

#[test]
fn a_supervisor_without_descriptors_warns_once_and_serves_on() {
    if !common::is_root() {
        return common::skip("only root may limit another process");
    }
    let workspace = workspace(HOWS[0]);
    let mounted = mount(&workspace, HOWS[0]);
    let (pid, supervisor) = processes(&workspace, mounted.path());
    let used = fs::read_dir(format!("/proc/{supervisor}/fd"))
        .unwrap()
        .count();
    let limit = |limit: String| {
        let mut command = Command::new("prlimit");
        run(command.args([
            "--pid",
            &supervisor.to_string(),
            &format!("--nofile={limit}:"),
        ]));
    };
    limit(used.to_string());
    let removed: Vec<fs::File> = (0..20)
        .map(|number| {
            let path = mounted.path().join(format!("file-{number}"));
            let file = fs::File::create_new(&path).unwrap();
            rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
            fs::remove_file(&path).unwrap();
            file
        })
        .collect();
    eventually("it is reported", || {
        workspace.log().contains("too many descriptors are open")
    });
    // A worker that dies is replaced all the same, and one that is asked for is refused.
    let error = common::fails(workspace.xpmfs().arg("reload").arg(mounted.path()));
    let error = String::from_utf8_lossy(&error.stderr).into_owned();
    assert!(
        error.contains("goes on as before: the supervisor of the mount has too many"),
        "{error}"
    );
    kill_worker(pid);
    assert!(mounted.path().join("jobs").exists());
    let again = child(supervisor, pid);
    assert_eq!(processes(&workspace, mounted.path()), (again, supervisor));
    fs::write(mounted.path().join("file"), "written").unwrap();
    let reports = workspace
        .log()
        .matches("if the process that serves the mount is killed now")
        .count();
    assert_eq!(reports, 1, "{}", workspace.log());
    // With descriptors again, it keeps what is open.
    limit("1024".to_owned());
    drop(removed);
    let held = fs::File::create(mounted.path().join("held")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    kill_worker(again);
    child(supervisor, again);
    let other = fs::File::open(mounted.path().join("held")).unwrap();
    rustix::fs::flock(&other, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap_err();
}
