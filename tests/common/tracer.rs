//! Traces a process by `strace`, which can delay its system calls.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use xpmfs::sys::deadline::wait_until;

use super::{Workspace, eventually, run};

/// How often `strace` is started, and how long it may take each time to trace all threads.
const ATTEMPTS: usize = 12;
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// A running `strace`, until this is dropped.
pub struct Tracer {
    strace: Child,
    /// Whether it only delays calls, and may be killed: it has no log to write.
    only_delays: bool,
}

impl Tracer {
    /// Traces all threads of a process. `options`: further ones of `strace`.
    pub fn of_process(pid: i32, options: &[&str]) -> Tracer {
        let options = [&["-f"], options].concat();
        let all_traced = || of_threads(pid, "status").all(|status| is_traced(&status));
        for _ in 0..ATTEMPTS {
            let tracer = Tracer::start(pid, &options);
            if wait_until(ATTACH_TIMEOUT, all_traced) {
                return tracer;
            }
            // A thread that was started while strace attached itself may not be traced.
        }
        panic!("not all threads of process {pid} are traced");
    }

    /// Traces one thread alone.
    pub fn of_thread(tid: i32, options: &[&str]) -> Tracer {
        let tracer = Tracer::start(tid, options);
        eventually("the thread is traced", || {
            is_traced(&fs::read_to_string(format!("/proc/{tid}/status")).unwrap())
        });
        tracer
    }

    /// Delays each of these `calls` of a process by `delay`. `moment`: `delay_enter`, before the kernel makes the call, or
    /// `delay_exit`.
    pub fn delaying(pid: i32, calls: &str, moment: &str, delay: Duration) -> Tracer {
        let inject = format!("inject={calls}:{moment}={}", delay.as_micros());
        let trace = format!("trace={calls}");
        let options = ["-o", "/dev/null", "-e", &trace, "-e", &inject];
        let mut tracer = Tracer::of_process(pid, &options);
        tracer.only_delays = true;
        tracer
    }

    fn start(pid: i32, options: &[&str]) -> Tracer {
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-p", &pid.to_string()]).args(options);
        Tracer {
            strace: strace.stderr(Stdio::null()).spawn().unwrap(),
            only_delays: false,
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if !self.only_delays {
            // It writes what is left of its log. It may wait forever for a thread of a process that was killed.
            let _ = kill_process(Pid::from_child(&self.strace), Signal::INT);
            let ended = || !matches!(self.strace.try_wait(), Ok(None));
            let _ = wait_until(END_TIMEOUT, ended);
        }
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// Whether a thread of a process is in one of these system calls.
pub fn is_in(pid: i32, calls: &[i64]) -> bool {
    of_threads(pid, "syscall").any(|now| {
        let number = now.split(' ').next().and_then(|number| number.parse().ok());
        number.is_some_and(|number| calls.contains(&number))
    })
}

/// The process that serves a mount.
pub fn serving(workspace: &Workspace, mountpoint: &Path) -> i32 {
    let status = run(workspace.xpmfs().args(["--json", "status"]).arg(mountpoint));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    i32::try_from(status["mounts"][0]["pid"].as_i64().unwrap()).unwrap()
}

/// A file in `/proc` of each thread of a process; empty of a thread that has ended.
fn of_threads(pid: i32, name: &'static str) -> impl Iterator<Item = String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads
        .map(move |thread| fs::read_to_string(thread.unwrap().path().join(name)))
        .map(Result::unwrap_or_default)
}

fn is_traced(status: &str) -> bool {
    !status.contains("TracerPid:\t0\n")
}
