//! A node: a mount namespace with a host name, and a mount in it, whose processes are killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{Workspace, eventually};

pub(crate) struct Node<'a> {
    workspace: &'a Workspace,
    /// Keeps the namespaces.
    sleeper: Child,
    mountpoint: PathBuf,
    log: PathBuf,
    /// Odd while both processes are dead and no new ones are there.
    generation: AtomicU64,
    /// The process that serves the mount and its supervisor.
    processes: Mutex<(i32, i32)>,
    workers_killed: AtomicUsize,
    daemons_killed: AtomicUsize,
}

fn kill(pid: i32) {
    // It may have ended.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

impl<'a> Node<'a> {
    pub(crate) fn start(workspace: &'a Workspace, number: usize) -> Node<'a> {
        let sleeper = Command::new("unshare")
            .args(["--mount", "--uts", "--propagation", "private", "sh", "-c"])
            .arg(format!("hostname node-{number} && exec sleep 100000"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let name = format!("/proc/{}/comm", sleeper.id());
        eventually("the namespaces are there", || {
            std::fs::read_to_string(&name).is_ok_and(|name| name.trim() == "sleep")
        });
        let node = Node {
            workspace,
            sleeper,
            mountpoint: workspace.mountpoint(&format!("node-{number}")),
            log: workspace.top().join(format!("node-{number}.log")),
            generation: AtomicU64::new(0),
            processes: Mutex::new((0, 0)),
            workers_killed: AtomicUsize::new(0),
            daemons_killed: AtomicUsize::new(0),
        };
        node.mount();
        node
    }

    /// A command of xpmfs on this node.
    pub(crate) fn xpmfs(&self, arguments: &[&str]) -> Command {
        let xpmfs = self.workspace.xpmfs();
        let mut command = self.workspace.command("nsenter");
        command
            .arg(format!("--target={}", self.sleeper.id()))
            .args(["--mount", "--uts", "--", "timeout", "120"])
            .arg(xpmfs.get_program())
            .args(xpmfs.get_args())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn place(&self) -> &str {
        self.mountpoint.to_str().unwrap()
    }

    fn mount(&self) {
        let log = self.log.to_str().unwrap();
        let arguments = ["mount", "-w", "test", "--log", log, self.place()];
        let output = self.xpmfs(&arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        *self.processes.lock() = self.find_processes();
    }

    /// The state of the mount, by the daemon.
    pub(crate) fn status(&self) -> Value {
        let output = self.xpmfs(&["--json", "status", self.place()]).output();
        let status: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap_or_default();
        status["mounts"][0].clone()
    }

    /// The process that serves the mount and its supervisor.
    pub(crate) fn processes(&self) -> (i32, i32) {
        *self.processes.lock()
    }

    fn find_processes(&self) -> (i32, i32) {
        let mut found = None;
        eventually("the daemon answers", || {
            let status = self.status();
            found = status["pid"].as_i64().zip(status["supervisor"].as_i64());
            found.is_some()
        });
        let (pid, supervisor) = found.unwrap();
        (pid.try_into().unwrap(), supervisor.try_into().unwrap())
    }

    /// The top of the mount, as this process reaches it.
    pub(crate) fn top(&self) -> PathBuf {
        let root = format!("/proc/{}/root", self.sleeper.id());
        Path::new(&root).join(self.mountpoint.strip_prefix("/").unwrap())
    }

    /// A number that changes when both processes are killed; `None` until the next ones are there.
    pub(crate) fn generation(&self) -> Option<u64> {
        let generation = self.generation.load(Ordering::SeqCst);
        generation.is_multiple_of(2).then_some(generation)
    }

    /// How many workers, and how many workers with their supervisors, were killed.
    pub(crate) fn kills(&self) -> (usize, usize) {
        let count = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        (count(&self.workers_killed), count(&self.daemons_killed))
    }

    /// Kills the process that serves the mount: another one takes over.
    pub(crate) fn kill_worker(&self) {
        let (worker, _) = *self.processes.lock();
        kill(worker);
        self.workers_killed.fetch_add(1, Ordering::SeqCst);
        // A worker that was killed before may still be a child of the supervisor.
        eventually("another process takes over", || {
            *self.processes.lock() = self.find_processes();
            self.processes.lock().0 != worker
        });
        // A process that has answered nothing counts as one that cannot serve.
        let unknown = self.top().join(format!("never there {worker}"));
        let error = std::fs::symlink_metadata(unknown).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }

    /// Kills both processes, and mounts again.
    pub(crate) fn kill_both(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        let (worker, supervisor) = *self.processes.lock();
        kill(supervisor);
        kill(worker);
        self.daemons_killed.fetch_add(1, Ordering::SeqCst);
        eventually("both have ended", || {
            [worker, supervisor].iter().all(|pid| {
                let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
                exe.is_err()
            })
        });
        self.mount();
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Unmounts, which must succeed.
    pub(crate) fn unmount(&self) {
        let mut printed = String::new();
        eventually("it is unmounted", || {
            let output = self.xpmfs(&["umount", self.place()]).output().unwrap();
            printed = text(&output);
            let busy = printed.contains("is in use");
            assert!(output.status.success() || busy, "{printed}");
            output.status.success()
        });
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            eprintln!("the end of {}:\n{}", self.log.display(), last.join("\n"));
        }
        let _ = self.xpmfs(&["umount", "--lazy", self.place()]).output();
        let (worker, supervisor) = *self.processes.lock();
        for pid in [supervisor, worker] {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
            if std::thread::panicking() && name.is_ok_and(|name| name.trim() == "xpmfs") {
                kill(pid);
            }
        }
        let _ = self.sleeper.kill();
        let _ = self.sleeper.wait();
    }
}

pub(crate) fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{out}{err}")
}
