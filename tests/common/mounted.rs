//! Real mounts of a workspace by the real binary, which end with the test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::commands::{run, xattr};
use super::workspace::Workspace;

/// A mount, taken away when it is dropped.
pub struct Mounted<'a> {
    workspace: &'a Workspace,
    path: PathBuf,
    watchdog: Watchdog,
}

impl Workspace {
    /// Mounts in place.
    pub fn mount_in_place(&self) -> Mounted<'_> {
        self.mount_with(&self.primary(), &[])
    }

    /// Mounts at a path.
    pub fn mount_at(&self, mountpoint: &Path) -> Mounted<'_> {
        self.mount_with(mountpoint, &[])
    }

    /// Mounts at a path, with more arguments of `mount`. Nothing is archived: jobs stay where the test puts them.
    pub fn mount_with(&self, mountpoint: &Path, arguments: &[&str]) -> Mounted<'_> {
        self.mount_archiving(mountpoint, &[&["--no-archive"], arguments].concat())
    }

    /// Mounts at a path, with more arguments of `mount`; finished jobs are archived.
    pub fn mount_archiving(&self, mountpoint: &Path, arguments: &[&str]) -> Mounted<'_> {
        self.mount_by(self.xpmfs(), mountpoint, arguments)
    }

    /// Mounts at a path with a limit of open files for the daemon. Nothing is archived. Only for root.
    pub fn mount_with_descriptors(&self, mountpoint: &Path, limit: u64) -> Mounted<'_> {
        let xpmfs = self.xpmfs();
        let mut command = self.command("prlimit");
        command.arg(format!("--nofile={limit}:{limit}"));
        command.arg(xpmfs.get_program()).args(xpmfs.get_args());
        self.mount_by(command, mountpoint, &["--no-archive"])
    }

    /// Mounts in place, with the control socket below `runtime`, where daemons of other workspaces look for it.
    pub fn mount_beside(&self, runtime: &Path) -> Mounted<'_> {
        let mut command = self.xpmfs();
        command.env("XDG_RUNTIME_DIR", runtime);
        self.mount_by(command, &self.primary(), &["--no-archive"])
    }

    /// Mounts by a command that is `xpmfs`, with its own environment or limits.
    pub fn mount_by(
        &self,
        mut command: Command,
        mountpoint: &Path,
        arguments: &[&str],
    ) -> Mounted<'_> {
        command.args(["mount", "-w", "test", "--log"]);
        command.arg(self.top().join("xpmfs.log"));
        command.args(arguments).arg(mountpoint);
        self.mounting(&mut command, mountpoint)
    }

    /// Mounts at a path by a command of the test's own.
    pub fn mounting(&self, command: &mut Command, mountpoint: &Path) -> Mounted<'_> {
        run(command);
        Mounted {
            workspace: self,
            watchdog: Watchdog::new(mountpoint),
            path: mountpoint.to_owned(),
        }
    }
}

impl Mounted<'_> {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of a job in the view.
    pub fn job(&self, task: &str, hash: &str) -> PathBuf {
        self.path.join("jobs").join(task).join(hash)
    }

    /// Where the view says that something is served from, without the folder's path.
    pub fn location(&self, path: impl AsRef<Path>) -> String {
        let location = xattr(&self.path.join(path), "user.xpmfs.location").unwrap();
        let location = String::from_utf8(location).unwrap();
        location.split(':').next().unwrap().to_owned()
    }

    /// Unmounts, and waits until that is so.
    pub fn unmount(mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let mut command = self.workspace.xpmfs();
            let output = command.arg("umount").arg(&self.path).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                break;
            }
            // A process that another test starts has what is open here for a moment, until it is another program.
            let busy = said.contains("is in use") && Instant::now() < deadline;
            assert!(busy, "{said}");
            std::thread::sleep(Duration::from_millis(50));
        }
        let path = self.path.clone();
        self.watchdog.0 = None;
        std::mem::forget(self);
        assert!(!is_mounted(&path), "{} still mounted", path.display());
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let mut command = self.workspace.xpmfs();
        let _ = command.args(["umount", "--lazy"]).arg(&self.path).output();
        if is_mounted(&self.path) {
            let _ = Command::new("umount").arg("-l").arg(&self.path).output();
        }
        if std::thread::panicking() {
            eprintln!("the log of the mount:\n{}", self.workspace.log());
        }
    }
}

/// How long a mount may live. Who waits for a mount that does not answer cannot be interrupted, so
/// it is broken off then, and the test fails of it.
fn life() -> Duration {
    match std::env::var_os("XPMFS_SOAK") {
        None => Duration::from_secs(300),
        Some(_) => Duration::from_secs(2 * 60 * 60),
    }
}

/// Breaks a mount off when it has lived too long.
struct Watchdog(Option<std::sync::mpsc::Sender<()>>);

impl Watchdog {
    fn new(mountpoint: &Path) -> Watchdog {
        let (alive, gone) = std::sync::mpsc::channel::<()>();
        let mountpoint = mountpoint.to_owned();
        std::thread::spawn(move || {
            if gone.recv_timeout(life()) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{} has lived too long", mountpoint.display());
                // -f breaks the connection off and then fails of those who use the mount.
                let _ = Command::new("umount").arg("-f").arg(&mountpoint).output();
                let _ = Command::new("umount").arg("-l").arg(&mountpoint).output();
            }
        });
        Watchdog(Some(alive))
    }
}

/// Whether something is mounted at a path, by the table of mounts: asking the path itself might wait
/// for a dead mount.
pub fn is_mounted(path: &Path) -> bool {
    xpmfs::daemon::mounts::top_at(path).unwrap().is_some()
}
