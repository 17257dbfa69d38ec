//! A workspace with some folders and one job with something of everything in it.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::common::{Workspace, eventually, names, run, soak};
use super::tree::{Entry, tree};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};

pub(crate) const TASK: &str = "my.module.train";
pub(crate) const HASH: &str = "8f3c2a7be0d94fb1ac4f0dd7a13c55a0c1e55d7e4b1b0e2f9f6a7d8c9b0a1f2e";

/// How long the old directory of a moved job is kept, in milliseconds, by a debug build with this variable.
const GRACE: &str = "XPMFS_TEST_GRACE_MS";
const SHORT_GRACE_MS: &str = "100";

/// A job as it is on a disk, without what experimaestro keeps for itself.
pub(crate) type Tree = BTreeMap<PathBuf, Entry>;

/// A workspace whose jobs need no time to settle, with a directory for the task [`TASK`].
pub(crate) struct Stage {
    workspace: Workspace,
    modes: Vec<&'static str>,
}

impl Stage {
    /// With folders of these modes, in memory if possible.
    pub(crate) fn new(modes: &[&'static str]) -> Stage {
        Stage::within(&memory(), modes)
    }

    /// The same, on the disk of temporary files.
    pub(crate) fn on_disk(modes: &[&'static str]) -> Stage {
        Stage::within(&std::env::temp_dir(), modes)
    }

    /// With folders of these modes, below a directory.
    pub(crate) fn within(parent: &Path, modes: &[&'static str]) -> Stage {
        let workspace = Workspace::builder()
            .below(parent)
            .prefix("xpmfs-archive-")
            .folders(modes)
            .new_folders()
            .keys("{settle: 0s}")
            .build();
        fs::create_dir(workspace.primary().join("jobs").join(TASK)).unwrap();
        Stage {
            workspace,
            modes: modes.to_vec(),
        }
    }

    /// Sets how long a job must have been left alone.
    pub(crate) fn settle(&self, settle: &str) {
        let keys = format!("{{settle: {settle}}}");
        self.workspace.write_settings(&self.modes, Some(&keys));
    }

    pub(crate) fn top(&self) -> PathBuf {
        self.workspace.top()
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.workspace.settings()
    }

    pub(crate) fn primary(&self) -> PathBuf {
        self.workspace.primary()
    }

    pub(crate) fn folder(&self, mode: &str) -> PathBuf {
        self.workspace.folder(mode)
    }

    pub(crate) fn modes(&self) -> &[&'static str] {
        &self.modes
    }

    /// The job in the primary.
    pub(crate) fn job(&self) -> PathBuf {
        job(&self.primary())
    }

    /// The job's copy in a folder.
    pub(crate) fn archived(&self, mode: &str) -> PathBuf {
        job(&self.folder(mode))
    }

    /// The command with our settings.
    pub(crate) fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    pub(crate) fn xpmfs(&self) -> Command {
        self.workspace.xpmfs()
    }

    /// The command, under `strace` with these arguments if there are any.
    pub(crate) fn traced(&self, strace: &[String]) -> Command {
        let xpmfs = self.xpmfs();
        if strace.is_empty() {
            return xpmfs;
        }
        let mut command = self.workspace.command("strace");
        command.args(["-f", "-qq"]).args(strace).arg("--");
        command.arg(xpmfs.get_program()).args(xpmfs.get_args());
        command
    }

    /// `jobs archive`, `jobs recover` or `jobs release` of the job, by one thread.
    pub(crate) fn by_one_thread(&self, what: &str, strace: &[String]) -> Command {
        let mut command = self.traced(strace);
        command.args(["jobs", what, "-w", "test", "--threads", "1"]);
        if ["release", "delete"].contains(&what) {
            command.arg("--yes");
        }
        command.arg(job_id());
        command
    }

    /// The same, without keeping the old directory of a moved job for long: for tests that use nothing of that time.
    pub(crate) fn by_one_thread_at_once(&self, what: &str, strace: &[String]) -> Command {
        let mut command = self.by_one_thread(what, strace);
        command.env(GRACE, SHORT_GRACE_MS);
        command
    }

    /// `jobs …` with these arguments; gives what it did.
    pub(crate) fn jobs(&self, arguments: &[&str]) -> Output {
        let mut command = self.xpmfs();
        let (what, rest) = arguments.split_first().unwrap();
        command.args(["jobs", what, "-w", "test"]).args(rest);
        command.output().unwrap()
    }

    /// `jobs archive --all`, which must succeed.
    pub(crate) fn archive(&self) {
        let mut command = self.xpmfs();
        command.env(GRACE, SHORT_GRACE_MS);
        command.args(["jobs", "archive", "-w", "test", "--all"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }

    /// Reads every archived copy again: all must be whole, with a manifest.
    pub(crate) fn verify(&self) {
        let output = self.jobs(&["verify", "--all", "-v"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", said(&output));
        let copies = text.lines().filter(|line| line.contains(": ok (")).count();
        let archives = self.modes.iter().filter(|mode| **mode != "use");
        let there = archives.filter(|mode| self.archived(mode).exists());
        assert_eq!(copies, there.count(), "{text}");
        assert!(!text.contains("workspace"), "{text}");
    }

    /// Reads every archived copy of every job again: all must be what their manifests say.
    pub(crate) fn verify_all(&self) {
        let output = self.jobs(&["verify", "--all"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", said(&output));
    }

    /// Asserts that nothing stands beside jobs, in the primary or a folder, and no half of a manifest anywhere.
    pub(crate) fn assert_clean(&self) {
        let roots = self.modes.iter().map(|mode| self.folder(mode));
        for root in roots.chain([self.primary()]) {
            assert_eq!(leftovers(&root), [] as [PathBuf; 0]);
        }
    }
}

/// A stage whose job was moved by somebody who was killed then, and has left what is to be kept for a while longer.
pub(crate) fn killed_after_a_move(stage: impl Fn() -> Stage) -> Stage {
    // Whoever is kept waiting for the processor for seconds comes too late, and tries again.
    for _ in 0..10 {
        let stage = stage();
        write_job(&stage.job());
        let mut archive = stage.by_one_thread("archive", &[]).spawn().unwrap();
        eventually("it has moved", || stage.job().is_symlink());
        archive.kill().unwrap();
        archive.wait().unwrap();
        let aside = stage.job().with_file_name(format!(".tmp.{HASH}"));
        if aside.join("train.done").exists() {
            return stage;
        }
    }
    panic!("what was moved is not kept");
}

/// A directory in memory, where nobody waits for a disk that others are at; or in the long run, and where memory keeps no
/// attributes, the one for temporary files.
pub(crate) fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let keeps = || {
        let file = tempfile::NamedTempFile::new_in(memory)?;
        let flags = XattrFlags::empty();
        rustix::fs::setxattr(file.path(), "user.xpmfs-test", b"x", flags)?;
        std::io::Result::Ok(())
    };
    match !soak() && keeps().is_ok() {
        true => memory.to_owned(),
        false => std::env::temp_dir(),
    }
}

/// What stands beside jobs in a location, and what was to become a manifest.
pub(crate) fn leftovers(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for below in ["jobs", ".xpmfs/manifests"] {
        let Ok(tasks) = fs::read_dir(root.join(below)) else {
            continue;
        };
        for task in tasks.map(|task| task.unwrap().path()) {
            let hidden = names(&task).into_iter();
            let hidden = hidden.filter(|name| name.as_encoded_bytes().starts_with(b"."));
            found.extend(hidden.map(|name| task.join(name)));
        }
    }
    found
}

/// The name of the job in commands.
pub(crate) fn job_id() -> String {
    format!("{TASK}/{HASH}")
}

fn job(root: &Path) -> PathBuf {
    root.join("jobs").join(TASK).join(HASH)
}

/// What a command said to whoever called it.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A job's tree, also where a symlink leads to it; `None` if there is nothing.
pub(crate) fn whole(job: &Path) -> Option<Tree> {
    let job = job.canonicalize().ok()?;
    let mut tree = tree(&job);
    for internal in ["train.lock", "train.pid"] {
        tree.remove(Path::new(internal));
    }
    Some(tree)
}

/// Says briefly in what a tree is not another one.
pub(crate) fn assert_tree(what: &str, expected: &Tree, found: Option<&Tree>) {
    let Some(found) = found else {
        panic!("{what} is not there")
    };
    if expected == found {
        return;
    }
    let paths = expected.keys().chain(found.keys());
    for path in paths {
        let (expected, found) = (expected.get(path), found.get(path));
        if expected != found {
            let brief = |entry: Option<&Entry>| {
                let text = entry.map(|entry| format!("{entry:?}"));
                text.map_or_else(String::new, |text| text.chars().take(600).collect())
            };
            panic!(
                "{what}: {} should be\n{}\nand is\n{}",
                path.display(),
                brief(expected),
                brief(found)
            );
        }
    }
}

/// A moment a while ago, with nanoseconds.
pub(crate) fn moment(number: u64) -> SystemTime {
    UNIX_EPOCH + Duration::new(1_700_000_000 + number * 1000, 123_456_789)
}

/// Sets the times of a file or directory, not of what a symlink leads to.
pub(crate) fn set_time(path: &Path, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap();
    let time = Timespec {
        tv_sec: since.as_secs().try_into().unwrap(),
        tv_nsec: since.subsec_nanos().into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Writes a small finished job with something of everything, ended a while ago.
pub(crate) fn write_job(job: &Path) {
    fs::create_dir_all(job.join(".experimaestro")).unwrap();
    fs::create_dir_all(job.join("data/empty")).unwrap();
    let file = |name: &str, content: &[u8]| fs::write(job.join(name), content).unwrap();
    file("params.json", b"{\"version\": 3, \"objects\": []}");
    file("train.out", b"step 1\nstep 2\n");
    file("uv.lock", b"version = 1\n");
    file("train.lock", b"");
    file("train.pid", b"{}");
    file(".experimaestro/status.json", b"{\"state\": \"done\"}");
    file("data/model.bin", &[7; 20_000]);
    file("train.done", b"");
    fs::hard_link(job.join("data/model.bin"), job.join("best.bin")).unwrap();
    symlink("data/model.bin", job.join("latest")).unwrap();
    symlink("/nowhere/at/all", job.join("data/dangling")).unwrap();
    let sparse = File::create(job.join("data/sparse")).unwrap();
    sparse.set_len(4 << 20).unwrap();
    sparse.write_all_at(&[1; 4096], 2 << 20).unwrap();
    let name = "user.note";
    rustix::fs::setxattr(job.join("train.out"), name, b"kept", XattrFlags::empty()).unwrap();
    fs::set_permissions(job.join("params.json"), Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(job.join("data"), Permissions::from_mode(0o2755)).unwrap();
    age(job);
}

/// Sets the times of all in a tree, each its own, those of directories last.
fn age(job: &Path) {
    let mut paths: Vec<PathBuf> = tree(job).into_keys().collect();
    paths.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for (number, path) in paths.iter().enumerate() {
        set_time(&job.join(path), moment(number as u64));
    }
}

/// Runs the job again, a while later: other results, one file more and one less.
pub(crate) fn run_again(job: &Path) {
    fs::write(job.join("train.out"), "step 1\nstep 2\nstep 3\n").unwrap();
    fs::write(job.join("data/more"), "more").unwrap();
    fs::remove_file(job.join("latest")).unwrap();
    let later = moment(1000);
    for name in ["train.out", "data/more", "train.done"] {
        let file = File::options().write(true).open(job.join(name)).unwrap();
        file.set_times(FileTimes::new().set_modified(later))
            .unwrap();
    }
}

/// Copies a tree with everything, but for the times of change.
pub(crate) fn duplicate(from: &Path, to: &Path) {
    run(Command::new("cp").args(["-a", "-T"]).arg(from).arg(to));
}
