//! A workspace with a `use` folder that can hang or fail, and processes that must end in time.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use xpmfs::sys::deadline::wait_until;

pub(crate) use crate::common::eventually as until;
use crate::common::hanging_fs::HangingFs;
use crate::common::{Workspace, job};

pub(crate) const TASK: &str = job::TASK;
pub(crate) const OTHER_TASK: &str = "my.module.test";

/// `xpmfs.folder_timeout`.
pub(crate) const TIMEOUT: &str = "1s";

/// Nothing may take longer than the folder's timeout, the time until that is noticed, and what 64 processes need on a busy machine.
pub(crate) const PROMPT: Duration = Duration::from_secs(12);

pub(crate) struct Stage {
    // Dropped first: the workspace's directory is removed only when nothing hangs.
    pub(crate) folder: HangingFs,
    pub(crate) workspace: Workspace,
}

/// A job, as short as it can be.
pub(crate) fn make_job(location: &Path, task: &str, hash: &str) {
    let job = location.join("jobs").join(task).join(hash);
    fs::create_dir_all(&job).unwrap();
    fs::write(job.join("model.bin"), hash).unwrap();
    let name = task.rsplit('.').next().unwrap();
    fs::write(job.join(format!("{name}.done")), "").unwrap();
}

impl Stage {
    /// The primary has the job `primary`, a `use` folder that hangs has `held`, and a `backup` folder after it has `other`, of both tasks; only
    /// the folder that hangs has `only.held/held`.
    pub(crate) fn new(ordinary: bool) -> Stage {
        let workspace = match ordinary {
            true => Workspace::of_ordinary_user(),
            false => Workspace::new(),
        };
        fs::set_permissions(workspace.top(), fs::Permissions::from_mode(0o755)).unwrap();
        let disk = workspace.top().join("disk");
        for task in [TASK, OTHER_TASK] {
            make_job(&workspace.primary(), task, "primary");
            make_job(&workspace.folder("backup"), task, "other");
            make_job(&disk, task, "held");
        }
        make_job(&disk, "only.held", "held");
        workspace.with_folders(&[]);
        workspace.give_away();
        let folder = HangingFs::mount(&disk, &workspace.top().join("hangs"));
        workspace.attach("use", &folder.at);
        workspace.attach("backup", &workspace.folder("backup"));
        workspace.tune(&format!(
            "{{folder_timeout: {TIMEOUT}, settle: 100ms, scan_interval: 200ms}}"
        ));
        Stage { folder, workspace }
    }

    /// Starts a shell script in a directory, as the user.
    pub(crate) fn start(&self, at: &Path, script: &str, argument: &str) -> Running {
        let output = tempfile::NamedTempFile::new().unwrap();
        let (file, output) = output.keep().unwrap();
        let mut command = self.workspace.command("sh");
        command
            .args(["-c", &format!("set -e; cd \"$1\"; {script}"), "sh"])
            .arg(at)
            .arg(argument)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        let what = format!("{script} ({argument})");
        let child = command.spawn().unwrap();
        Running {
            child,
            what,
            output,
        }
    }

    /// Runs a command of xpmfs, which must end in time; returns what it printed and whether it succeeded.
    pub(crate) fn xpmfs(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.workspace.top().join("printed");
        let file = File::create(&output).unwrap();
        let mut command = self.workspace.xpmfs();
        command.args(arguments).stdin(Stdio::null());
        let child = command
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn();
        Running {
            child: child.unwrap(),
            what: format!("xpmfs {}", arguments.join(" ")),
            output,
        }
        .end()
    }

    /// Whether a command of xpmfs ends in time.
    pub(crate) fn ends(&self, arguments: &[&str]) -> bool {
        let output = File::create(self.workspace.top().join("ended")).unwrap();
        let mut command = self.workspace.xpmfs();
        command.args(arguments).stdin(Stdio::null());
        let child = command.stdout(output.try_clone().unwrap()).stderr(output);
        let mut child = child.spawn().unwrap();
        let ends = wait_until(PROMPT, || child.try_wait().unwrap().is_some());
        if !ends {
            let _ = child.kill();
        }
        ends
    }

    /// The status of a mount.
    pub(crate) fn status(&self, mountpoint: &Path) -> Value {
        let (_, printed) = self.xpmfs(&["--json", "status", mountpoint.to_str().unwrap()]);
        let status: Value = serde_json::from_str(&printed).unwrap();
        status["mounts"][0].clone()
    }

    /// The state of the folder that can hang.
    pub(crate) fn state(&self, mountpoint: &Path) -> String {
        let status = self.status(mountpoint);
        status["locations"][1]["state"].as_str().unwrap().to_owned()
    }
}

/// A process that must end in time.
pub(crate) struct Running {
    child: Child,
    what: String,
    output: PathBuf,
}

impl Running {
    /// Returns whether it succeeded, and what it printed.
    pub(crate) fn end(mut self) -> (bool, String) {
        let deadline = Instant::now() + PROMPT;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                // It cannot be killed while it waits in the kernel.
                let _ = self.child.kill();
                panic!("{} does not end", self.what);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let printed = fs::read_to_string(&self.output).unwrap();
        let _ = fs::remove_file(&self.output);
        (status.success(), printed)
    }

    /// Returns what it printed; it must succeed.
    pub(crate) fn succeed(self) -> String {
        let what = self.what.clone();
        let (success, printed) = self.end();
        assert!(success, "{what}: {printed}");
        printed
    }
}
