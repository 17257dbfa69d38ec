//! What the tests ask of a workspace that is archived: of its folders, of the daemons, of what is left.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::common::{Workspace, run};
pub(crate) use crate::common::{eventually as until, within};
use crate::job;

/// Tests several cases at the same time: most of it is waiting.
pub(crate) fn at_once<T: Send, const N: usize>(cases: [T; N], test: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| test(case));
        }
    });
}

/// A directory that is held open, and its path by that, whatever is mounted on it.
pub(crate) struct Beneath(OwnedFd);

impl Beneath {
    /// To be called before anything is mounted.
    pub(crate) fn of(path: &Path) -> Beneath {
        Beneath(File::open(path).unwrap().into())
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.0.as_raw_fd()
        ))
    }
}

/// A process that is killed when the test ends.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Process {
        Process(
            command
                .spawn()
                .unwrap_or_else(|e| panic!("{command:?}: {e}")),
        )
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, signal: &str) {
        run(Command::new("kill").args([signal, &self.0.id().to_string()]));
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self, limit: Duration) -> std::process::ExitStatus {
        let mut status = None;
        within(limit, "the process ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `xpmfs archive --watch`, which has begun.
pub(crate) fn watch(workspace: &Workspace) -> Process {
    let log = File::options()
        .create(true)
        .append(true)
        .open(workspace.top().join("watch.log"))
        .unwrap();
    let mut command = workspace.xpmfs();
    command
        .args(["-v", "archive", "--watch", "-w", "test"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    Process::start(&mut command)
}

/// What `status --json` tells of a mount.
pub(crate) fn status(workspace: &Workspace, mountpoint: &Path) -> Value {
    let mut mount = Value::Null;
    // A daemon has two seconds to answer, for which a busy machine may stand still.
    until("the daemon answers", || {
        let printed = run(workspace.xpmfs().args(["--json", "status"]).arg(mountpoint));
        let mut status: Value = serde_json::from_str(&printed).unwrap();
        mount = status["mounts"][0].take();
        mount["state"] != "does not answer"
    });
    mount
}

/// The names of a process's threads.
pub(crate) fn threads(pid: i64) -> Vec<String> {
    let tasks = job::entries(Path::new(&format!("/proc/{pid}/task"))).unwrap();
    let name = |task: &OsString| {
        let path = format!("/proc/{pid}/task/{}/comm", task.to_string_lossy());
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    tasks.iter().map(name).collect()
}

/// What `status` prints of a mount.
pub(crate) fn told(workspace: &Workspace, mountpoint: &Path) -> String {
    run(workspace.xpmfs().arg("status").arg(mountpoint))
}

/// How archiving to the only folder of a kind does.
pub(crate) fn folder_status(workspace: &Workspace, mountpoint: &Path, mode: &str) -> Value {
    let status = status(workspace, mountpoint);
    let folders = status["archive"]["folders"].as_array().unwrap();
    let folder = folders.iter().find(|folder| folder["mode"] == mode);
    folder.unwrap().clone()
}

/// Whether nothing is on its way.
pub(crate) fn is_drained(workspace: &Workspace, mountpoint: &Path) -> bool {
    status(workspace, mountpoint)["archive"]["queued"] == 0
}

/// Whether a folder has these jobs.
pub(crate) fn has_all(folder: &Path, mut jobs: impl Iterator<Item = usize>) -> bool {
    jobs.all(|number| folder.join(job::path(number)).is_dir())
}

/// What is in a task's directory, at the top of a workspace or folder, that is no job: staging, locks.
pub(crate) fn staging(top: &Path) -> Vec<String> {
    let names = job::entries(&top.join("jobs").join(job::TASK)).unwrap_or_default();
    let names = names.into_iter().map(|name| name.into_string().unwrap());
    names.filter(|name| name.starts_with('.')).collect()
}

/// Asserts that a folder has exactly these jobs, each once and whole, and nothing else beside them.
pub(crate) fn assert_whole(
    folder: &Path,
    jobs: impl Iterator<Item = usize>,
    expected: impl Fn(usize) -> std::collections::BTreeMap<PathBuf, String>,
) {
    let numbers: Vec<usize> = jobs.collect();
    let names = numbers
        .iter()
        .map(|number| OsString::from(job::hash(*number)));
    let mut names: Vec<OsString> = names.collect();
    names.sort();
    let listed = job::entries(&folder.join("jobs").join(job::TASK)).unwrap();
    assert_eq!(listed, names, "in {}", folder.display());
    for number in numbers {
        let found = job::tree(&folder.join(job::path(number)));
        let expected = expected(number);
        assert_eq!(found, expected, "job {number} in {}", folder.display());
    }
}

/// The journals in the primary.
pub(crate) fn journals(primary: &Path) -> Vec<String> {
    let entries = job::entries(&primary.join(".xpmfs/archive")).unwrap_or_default();
    let names = entries.into_iter().map(|name| name.into_string().unwrap());
    names.filter(|name| name.contains(".jsonl")).collect()
}

/// Asserts that all copies are what their manifests say.
pub(crate) fn verify_all(workspace: &Workspace, copies: usize) {
    let printed = run(workspace
        .xpmfs()
        .args(["--json", "jobs", "verify", "-w", "test", "--all"]));
    let report: Value = serde_json::from_str(&printed).unwrap();
    let report = report.as_array().unwrap();
    assert_eq!(report.len(), copies);
    for copy in report {
        assert!(copy["whole"] == true && copy["manifest"] == true, "{copy}");
    }
}

/// A random number, and which it was if the test fails.
pub(crate) fn random(below: u64) -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() % below
}
