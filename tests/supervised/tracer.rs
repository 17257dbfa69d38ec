//! Delays system calls of the process that serves a mount.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::common::eventually;

/// `strace` of a process, which delays calls.
pub(crate) struct Tracer(Child);

impl Tracer {
    /// Delays each of these `calls` by `delay`. `moment`: `delay_enter`, before the kernel makes the call, or `delay_exit`.
    pub(crate) fn attach(
        strace: &Path,
        pid: i32,
        calls: &str,
        moment: &str,
        delay: Duration,
    ) -> Tracer {
        let child = Command::new(strace)
            .args(["-f", "-qq", "-e", &format!("trace={calls}")])
            .arg("-e")
            .arg(format!("inject={calls}:{moment}={}", delay.as_micros()))
            .args(["-p", &pid.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let tracer = Tracer(child);
        eventually("all threads are traced", || {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            threads.into_iter().all(|thread| {
                let status = fs::read_to_string(thread.unwrap().path().join("status"));
                !status.unwrap_or_default().contains("TracerPid:\t0\n")
            })
        });
        tracer
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a thread of a process is in one of these system calls.
pub(crate) fn is_in(pid: i32, calls: &[i64]) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.into_iter().any(|thread| {
        let call = fs::read_to_string(thread.unwrap().path().join("syscall"));
        let call = call.unwrap_or_default();
        calls
            .iter()
            .any(|number| call.starts_with(&format!("{number} ")))
    })
}
