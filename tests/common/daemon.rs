//! The two processes of a mount.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// The supervisor of the process that serves a mount.
pub fn supervisor(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    rest.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Kills the process that serves a mount, and before it the one that would replace it: the mount is dead then.
pub fn kill_both(pid: i32) {
    for pid in [supervisor(pid), pid] {
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
}

/// Kills only the process that serves a mount: another one takes over.
pub fn kill_worker(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}
