//! A home with settings and a workspace, and the program run from it, as root or not.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use xpmfs::daemon::attach::{How, detach};
use xpmfs::daemon::mounts;
use xpmfs::sys::deadline::wait_until;

use crate::common::daemon::kill_both;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const NOBODY: u32 = 65534;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A home with settings: the workspace `nlp` in `ws` with the folder `kept`, and a second one that is missing.
pub(crate) struct Home {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) binary: PathBuf,
    pub(crate) ordinary: bool,
}

pub(crate) fn at_everybodys_home(play: impl Fn(&Home)) {
    if is_root() {
        fs::set_permissions("/dev/fuse", Permissions::from_mode(0o666)).unwrap();
        play(&Home::new(false));
    }
    play(&Home::new(true));
}

impl Home {
    pub(crate) fn new(ordinary: bool) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("xpmfs test")
            .tempdir_in("/tmp")
            .unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let home = Self {
            binary: dir.path().join("xpmfs"),
            ordinary,
            dir,
        };
        // By another process: had we it open for writing while another test forks, it could not be run.
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_xpmfs"))
            .arg(&home.binary)
            .status();
        assert!(copied.unwrap().success());
        home.directory("state");
        for directory in [
            "ws",
            "ws/jobs",
            "ws/jobs/t",
            "kept",
            "kept/jobs",
            "kept/jobs/t",
            "mnt",
        ] {
            home.directory(directory);
        }
        home.directory(format!("ws/jobs/t/{}", "a".repeat(64)));
        home.directory(format!("kept/jobs/t/{}", "b".repeat(64)));
        let (ws, kept, gone) = (home.path("ws"), home.path("kept"), home.path("gone"));
        let settings = format!(
            "workspaces:\n  - id: nlp\n    path: {}\n    folders:\n      - {{path: {}, mode: backup}}\n  - id: gone\n    path: {}\n",
            ws.display(),
            kept.display(),
            gone.display()
        );
        fs::write(home.path("settings.yaml"), settings).unwrap();
        home
    }

    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.dir.path().join(name.as_ref())
    }

    pub(crate) fn directory(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        if is_root() && self.ordinary {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        path
    }

    pub(crate) fn program(&self, program: &Path) -> Command {
        let mut command = if self.ordinary && is_root() {
            let mut command = Command::new("setpriv");
            let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
            command.args(ids).arg("--clear-groups").arg(program);
            command
        } else {
            Command::new(program)
        };
        command
            .current_dir("/")
            .env("HOME", self.dir.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("XPMFS_LOG")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn xpmfs(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(&self.binary);
        command
            .arg("--settings")
            .arg(self.path("settings.yaml"))
            .args(arguments);
        command
    }

    /// Runs it, which must succeed; what it printed.
    pub(crate) fn does(&self, arguments: &[&str]) -> String {
        let output = self.xpmfs(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs it, which must fail; what it said.
    pub(crate) fn refuses(&self, arguments: &[&str]) -> String {
        let output = self.xpmfs(arguments).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(1),
            "{arguments:?}: {}",
            said(&output)
        );
        assert_eq!(output.stdout, b"", "{arguments:?}");
        said(&output)
    }

    pub(crate) fn mount(&self, more: &[&str]) {
        let log = self.log();
        let mut arguments = vec!["mount", "--log", log.to_str().unwrap()];
        arguments.extend(more);
        self.does(&arguments);
    }

    pub(crate) fn log(&self) -> PathBuf {
        let directory = self.path("logs");
        if !directory.exists() {
            self.directory("logs");
        }
        directory.join("log")
    }

    pub(crate) fn status(&self, arguments: &[&str]) -> Value {
        let text = self.does(&[&["--json", "status"], arguments].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// The process that serves a mount.
    pub(crate) fn daemon(&self, mountpoint: &Path) -> i32 {
        let status = self.status(&[mountpoint.to_str().unwrap()]);
        status["mounts"][0]["pid"].as_i64().unwrap() as i32
    }

    pub(crate) fn kill_daemon(&self, mountpoint: &Path) {
        let pid = self.daemon(mountpoint);
        kill_both(pid);
        let place = mountpoint.to_str().unwrap();
        assert!(wait_until(LIMIT, || {
            self.status(&[place])["mounts"][0]["state"] == "dead"
        }));
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for mount in mounts::xpmfs().unwrap_or_default() {
            if mount.mountpoint.starts_with(self.dir.path()) {
                let _ = detach(&mount.mountpoint, How::Lazy);
            }
        }
    }
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn is_mounted(path: &Path) -> bool {
    mounts::top_at(path)
        .unwrap()
        .is_some_and(|mount| mount.is_xpmfs())
}
