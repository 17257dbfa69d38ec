//! Delays system calls of the process that serves a mount.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::{Workspace, eventually, run};

/// The process that serves a mount, some of whose calls are delayed before the kernel makes them.
pub(crate) struct Delayed {
    strace: Child,
    pid: String,
}

impl Delayed {
    pub(crate) fn of(
        workspace: &Workspace,
        mountpoint: &Path,
        calls: &str,
        delay: Duration,
    ) -> Delayed {
        let status = run(workspace.xpmfs().args(["--json", "status"]).arg(mountpoint));
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let pid = status["mounts"][0]["pid"].to_string();
        let inject = format!("inject={calls}:delay_enter={}", delay.as_micros());
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
        strace.args([&format!("trace={calls}"), "-e", &inject, "-p", &pid]);
        let strace = strace.stderr(Stdio::null()).spawn().unwrap();
        let delayed = Delayed { strace, pid };
        eventually("all threads are traced", || {
            let mut threads = delayed.threads("status");
            threads.all(|status| !status.contains("TracerPid:\t0"))
        });
        delayed
    }

    /// Whether a thread is in a system call of this number.
    pub(crate) fn is_in(&self, call: i64) -> bool {
        let call = format!("{call} ");
        self.threads("syscall").any(|now| now.starts_with(&call))
    }

    /// A file of each thread.
    fn threads(&self, name: &'static str) -> impl Iterator<Item = String> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap();
        threads.map(move |thread| {
            let path = thread.unwrap().path().join(name);
            // A thread may have ended.
            fs::read_to_string(path).unwrap_or_default()
        })
    }
}

impl Drop for Delayed {
    fn drop(&mut self) {
        let pid = i32::try_from(self.strace.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let _ = self.strace.wait();
    }
}
