//! Ends a mount that a mount namespace of its own has, when no process is left there but its daemon.
//!
//! The daemon itself keeps the namespace, so the kernel does not end it. The command that has made the namespace may be killed, or
//! leave programs behind that still run: they go on with the mount until they end.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, getpid, getppid, pidfd_open};
use signal_hook::consts::SIGTERM;

use super::signals::Stopper;
use crate::sys::namespaces::mounts_of;
use crate::sys::process_stat::ProcessStat;

/// How often the namespace must have been found without other processes. One that was just started may not be seen.
const LOOKS: u32 = 2;
/// The pause between these.
const PAUSE: Duration = Duration::from_millis(500);

/// Starts the thread that waits for the end of all other processes.
///
/// # Errors
///
/// No thread can be started.
pub fn start(stopper: Arc<Stopper>) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("private-mount".to_owned());
    let wait = move || {
        let own = getpid().as_raw_pid();
        let Some(namespace) = mounts_of(own) else {
            return tracing::error!(
                "/proc does not show this process's namespaces: the mount stays until it is unmounted"
            );
        };
        let mut empty = 0;
        while empty < LOOKS {
            match other_process(&namespace) {
                Some(pid) => {
                    empty = 0;
                    wait_for_end(pid);
                }
                None => empty += 1,
            }
            std::thread::sleep(PAUSE);
        }
        if !stopper.is_stopping() {
            tracing::info!("the last process that sees the mount has ended");
            stopper.stop(SIGTERM);
        }
    };
    thread.spawn(wait).map(drop)
}

/// A process of a mount namespace that is none of the daemon's.
fn other_process(namespace: &OsStr) -> Option<i32> {
    let daemon = [Some(getpid()), getppid()].map(|pid| pid.map_or(0, Pid::as_raw_pid));
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| {
        let is_there = mounts_of(*pid).is_some_and(|other| other == namespace);
        is_there && !daemon.contains(pid) && {
            let parent = ProcessStat::of(*pid).ok().flatten().map(|stat| stat.parent);
            // A program that is asked whether it can go on with the mount, or a worker that is ending.
            !parent.is_some_and(|parent| daemon.contains(&parent))
        }
    })
}

/// Returns when a process has ended, or after a pause if it cannot be waited for.
fn wait_for_end(pid: i32) {
    let Some(process) =
        Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
    else {
        return;
    };
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    while let Err(rustix::io::Errno::INTR) = poll(&mut ended, None) {}
}
