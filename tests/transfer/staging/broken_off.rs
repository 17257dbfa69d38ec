//! Owners that die at the worst moment, and file systems that lack a rename: by fault injection (`strace`) in a process of
//! its own.

use std::fs;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use xpmfs::transfer::staging::sweep;

use super::{Task, open};
use crate::common::{eventually, program};

/// In the environment of a process that is one of those below: what it does, and where.
const DOES: &str = "XPMFS_TEST_STAGING";
const WHERE: &str = "XPMFS_TEST_TASK";

/// What a process of its own does: this is no test of its own.
#[test]
fn child() {
    let Some(does) = std::env::var_os(DOES) else {
        return;
    };
    let top = std::path::PathBuf::from(std::env::var_os(WHERE).unwrap());
    let at = |name: &str| top.join("task").join(name);
    let task = open(&at(""));
    let mut staging = xpmfs::transfer::staging::Staging::take(task, "hash".as_ref())
        .unwrap()
        .unwrap();
    staging.make().unwrap();
    fs::write(at(".tmp.hash/which"), "new").unwrap();
    let done = match does.to_str().unwrap() {
        "hold" => {
            fs::write(top.join("ready"), "").unwrap();
            loop {
                std::thread::park();
            }
        }
        "publish" => staging.publish().map(|()| "Published".to_owned()),
        "exchange" => staging
            .exchange(open(&at("hash")))
            .map(|how| format!("{how:?}")),
        "exchange and undo" => staging
            .exchange(open(&at("hash")))
            .and_then(|_| staging.undo())
            .map(|how| format!("{how:?}")),
        does => panic!("{does}?"),
    };
    fs::write(
        top.join("done"),
        done.unwrap_or_else(|error| format!("{error:?}")),
    )
    .unwrap();
}

/// A process of its own that does something, with faults injected by `strace`.
fn start(task: &Task, does: &str, faults: &[&str]) -> Child {
    let mut command = match faults {
        [] => Command::new(std::env::current_exe().unwrap()),
        faults => {
            let mut command = Command::new("strace");
            command
                .args(["-f", "-qq", "-o"])
                .arg(task.0.path().join("trace"));
            command.args(["-e", "trace=renameat,renameat2"]);
            for fault in faults {
                command.arg("-e").arg(format!("inject={fault}"));
            }
            command.arg(std::env::current_exe().unwrap());
            command
        }
    };
    command
        .args([
            "--exact",
            "staging::broken_off::child",
            "--test-threads",
            "1",
        ])
        .env(DOES, does)
        .env(WHERE, task.0.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a process of its own says that it has done; nothing if it died.
fn done(task: &Task, mut child: Child) -> Option<String> {
    child.wait().unwrap();
    fs::read_to_string(task.0.path().join("done")).ok()
}

fn strace() -> bool {
    program("strace").is_some()
}

const WITHOUT: &str = "renameat2:error=EINVAL";

#[test]
fn a_killed_owner_leaves_what_the_next_removes() {
    for swept in [true, false] {
        let task = Task::new();
        let mut child = start(&task, "hold", &[]);
        let ready = task.0.path().join("ready");
        eventually("it has the lock", || ready.exists());
        let taken = task.try_take("hash").unwrap().is_some();
        let removed = sweep(task.fd()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!taken && removed == 0);
        assert_eq!(task.which(".tmp.hash"), "new");
        if swept {
            assert_eq!(sweep(task.fd()).unwrap(), 1);
        } else {
            let staging = task.staged("hash", "newer");
            assert_eq!(task.which(".tmp.hash"), "newer");
            staging.finish(None).unwrap();
        }
        assert_eq!(task.names(), [""; 0]);
    }
}

#[test]
fn where_there_are_only_plain_renames_what_is_there_is_not_replaced_either() {
    if !strace() {
        return;
    }
    let task = Task::new();
    assert_eq!(
        done(&task, start(&task, "publish", &[WITHOUT])).unwrap(),
        "Published"
    );
    assert_eq!(task.names(), ["hash"]);
    assert_eq!(task.which("hash"), "new");
    for empty in [false, true] {
        fs::write(task.at("hash/which"), "old").unwrap();
        if empty {
            fs::remove_file(task.at("hash/which")).unwrap();
        }
        let error = done(&task, start(&task, "publish", &[WITHOUT])).unwrap();
        assert!(error.starts_with("Exists"), "{error}");
        assert_eq!(task.names(), ["hash"]);
        assert_eq!(task.at("hash/which").exists(), !empty);
    }
}

#[test]
fn where_there_are_only_plain_renames_an_exchange_takes_three() {
    if !strace() {
        return;
    }
    for error in ["EINVAL", "ENOSYS", "EOPNOTSUPP"] {
        let task = Task::new();
        task.dir("hash", "old");
        let without = format!("renameat2:error={error}");
        let how = done(&task, start(&task, "exchange", &[&without])).unwrap();
        assert_eq!(how, "ByRenames");
        assert_eq!(task.names(), ["hash"]);
        assert_eq!(task.which("hash"), "new");
        let how = done(&task, start(&task, "exchange and undo", &[&without])).unwrap();
        assert_eq!(how, "ByRenames");
        assert_eq!(task.names(), ["hash"]);
    }
}

/// Breaks an exchange by renames off at each of them; gives what stood there then, and checks what stands there after.
fn killed_at(when: u32, after: impl Fn(&Task)) -> Vec<String> {
    let task = Task::new();
    task.dir("hash", "old");
    let kill = format!("renameat:signal=KILL:when={when}");
    assert_eq!(
        done(&task, start(&task, "exchange", &[WITHOUT, &kill])),
        None
    );
    let names = task.names();
    after(&task);
    names
}

#[test]
fn an_exchange_by_renames_that_is_killed_leaves_the_old_state_or_the_new_one() {
    if !strace() {
        return;
    }
    let mut seen = Vec::new();
    for when in 1..=3 {
        let mut which = String::new();
        for swept in [true, false] {
            let names = killed_at(when, |task| {
                if swept {
                    sweep(task.fd()).unwrap();
                } else {
                    task.staged("hash", "newest").finish(None).unwrap();
                }
                assert_eq!(task.names(), ["hash"], "killed at {when}");
                let now = task.which("hash");
                assert!(["old", "new"].contains(&now.as_str()));
            });
            which = names.join(" ");
        }
        seen.push(which);
    }
    // Else this has not tried what it is for.
    let between = |name: &str| seen.iter().any(|names| names == name);
    assert!(
        between(".replaced.hash .tmp.hash .tmp.hash.lock"),
        "{seen:?}"
    );
    assert!(between(".replaced.hash .tmp.hash.lock hash"), "{seen:?}");
}

#[test]
fn what_somebody_made_in_the_middle_of_it_is_kept_and_so_is_what_was_there() {
    if !strace() {
        return;
    }
    for wiped in [false, true] {
        for when in 1..=3 {
            let names = killed_at(when, |task| {
                if !task.at(".replaced.hash").exists() {
                    return;
                }
                let _ = fs::rename(task.at("hash"), task.at("away"));
                task.dir("hash", "theirs");
                if wiped {
                    fs::write(task.at(".tmp.hash.lock"), "").unwrap();
                }
                assert_eq!(sweep(task.fd()).unwrap(), 0);
                assert_eq!(task.which("hash"), "theirs");
                assert_eq!(task.which(".replaced.hash"), "old");
            });
            drop(names);
        }
    }
}

/// Whether a process is stopped by a signal.
fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    stat.lines()
        .any(|line| line.starts_with("State:") && line.to_lowercase().contains("t ("))
}

/// Lets a process of its own do something, and takes its lock away just after its rename.
fn lost_after(does: &str, task: &Task) -> String {
    let child = start(task, does, &["renameat2:signal=STOP:when=1"]);
    eventually("it has renamed", || {
        fs::read_to_string(task.at("hash/which")).is_ok_and(|which| which == "new")
    });
    // It cannot look before it is told to go on.
    fs::remove_file(task.at(".tmp.hash.lock")).unwrap();
    let stopped = stopped_child(child.id());
    kill_process(Pid::from_raw(stopped.cast_signed()).unwrap(), Signal::CONT).unwrap();
    done(task, child).unwrap()
}

/// The process that `strace` runs, once it is stopped.
fn stopped_child(strace: u32) -> u32 {
    let mut found = 0;
    eventually("it is stopped", || {
        let path = format!("/proc/{strace}/task/{strace}/children");
        let children = fs::read_to_string(path).unwrap_or_default();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        found = children
            .into_iter()
            .find(|pid| is_stopped(*pid))
            .unwrap_or(0);
        found != 0
    });
    found
}

#[test]
fn a_lock_that_is_lost_in_the_middle_is_told_of() {
    if !strace() {
        return;
    }
    let task = Task::new();
    let error = lost_after("publish", &task);
    assert!(
        error.starts_with("Lost") && error.contains("placed: true"),
        "{error}"
    );
    assert_eq!(task.names(), ["hash"]);
    let task = Task::new();
    task.dir("hash", "old");
    let error = lost_after("exchange", &task);
    assert!(
        error.starts_with("Lost") && error.contains("placed: true"),
        "{error}"
    );
    // What was there before is not ours to remove any more.
    assert_eq!(task.names(), [".tmp.hash", "hash"]);
    assert_eq!(task.which(".tmp.hash"), "old");
}
