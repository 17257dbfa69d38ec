//! The processes of a mount: how they are killed, and what they hold.

use std::fmt::Display;
use std::fs;
use std::path::PathBuf;

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

/// What a process held at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    pub descriptors: u64,
    /// Resident memory.
    pub kibibytes: u64,
    pub threads: u64,
}

impl Footprint {
    /// Reads it from `/proc`.
    pub fn of(pid: impl Display) -> Footprint {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let about = fs::read_to_string(process.join("status")).unwrap();
        let field = |name: &str| -> u64 {
            let line = about
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        Footprint {
            descriptors: fs::read_dir(process.join("fd")).unwrap().count() as u64,
            kibibytes: field("VmRSS:"),
            threads: field("Threads:"),
        }
    }

    /// The most of each.
    pub fn max(self, other: Footprint) -> Footprint {
        Footprint {
            descriptors: self.descriptors.max(other.descriptors),
            kibibytes: self.kibibytes.max(other.kibibytes),
            threads: self.threads.max(other.threads),
        }
    }
}
