//! Makes one system call of a recovery on write fail, or kills the daemon there, and checks what is left.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::common::tracer::{Tracer, serving};
use crate::common::{self, Folders, Mounted, Workspace, eventually, names, run, snapshot};
use crate::stage::{TASK, archived, assert_clean, contents};

const HASH: &str = "a";

/// The system calls by which a recovery changes the disk.
const CHANGING: &str = "openat,mkdirat,write,pwrite64,copy_file_range,linkat,unlinkat,renameat,renameat2,symlinkat,fchmod,\
    fchmodat,fchown,fchownat,utimensat,fsync,fdatasync,syncfs,setxattr,fsetxattr,ioctl,flock,ftruncate,fallocate";

/// Calls that a full disk does not fail.
pub(crate) const NEVER_FULL: [&str; 6] = [
    "unlinkat",
    "flock",
    "fchmod",
    "fchown",
    "utimensat",
    "ioctl",
];

/// What internal files and the writer change.
const CHANGED: [&str; 3] = ["train.out", "train.lock", "status.json"];

/// What lies in the primary for an archived job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    /// The symlink to a `move` folder.
    Link,
    /// What a purge has left.
    Skeleton,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    folder: &'static str,
    left: Left,
    /// Whether the disk can exchange two names.
    exchange: bool,
}

pub(crate) const SCENES: [Scene; 6] = [
    Scene {
        folder: "backup",
        left: Left::Nothing,
        exchange: true,
    },
    Scene {
        folder: "move",
        left: Left::Link,
        exchange: true,
    },
    Scene {
        folder: "backup",
        left: Left::Skeleton,
        exchange: true,
    },
    Scene {
        folder: "use",
        left: Left::Nothing,
        exchange: false,
    },
    Scene {
        folder: "move",
        left: Left::Link,
        exchange: false,
    },
    Scene {
        folder: "backup",
        left: Left::Skeleton,
        exchange: false,
    },
];

/// A system call, and how often a thread has made it before.
pub(crate) type Point = (String, usize);

/// An archived job whose lock another process holds.
pub(crate) struct Stage {
    scene: Scene,
    pub(crate) workspace: Workspace,
    elsewhere: PathBuf,
    archive: PathBuf,
    /// A copy of what lies in the primary in place of the job.
    saved: PathBuf,
}

impl Stage {
    pub(crate) fn new(scene: Scene) -> Stage {
        let workspace = Workspace::builder().keys("{settle: 1ms}").build();
        if scene.left == Left::Skeleton {
            // With a manifest, as the command makes it.
            let job = workspace.finished("primary", TASK, HASH);
            fs::write(job.join("large.bin"), vec![b'a'; 300_000]).unwrap();
            workspace.write_settings(&["backup"], Some("{settle: 1ms}"));
            run(workspace
                .xpmfs()
                .args(["jobs", "archive", "-w", "test", "--all"]));
            for name in ["model.bin", "train.done", "large.bin"] {
                fs::remove_file(job.join(name)).unwrap();
            }
        } else {
            archived(&workspace, scene.folder, HASH);
        }
        workspace.write_settings(&common::FOLDERS, Some("{settle: 1h}"));
        let stage = Stage {
            elsewhere: workspace.mountpoint("elsewhere"),
            archive: workspace
                .folder(scene.folder)
                .join("jobs")
                .join(TASK)
                .join(HASH),
            saved: workspace.top().join("saved"),
            scene,
            workspace,
        };
        if scene.left == Left::Skeleton {
            copy(&stage.there(), &stage.saved);
        }
        stage
    }

    /// Mounts with archiving: its start removes what a crash has left.
    fn mount(&self) -> Mounted<'_> {
        self.workspace.mount_archiving(&self.elsewhere, &[])
    }

    fn there(&self) -> PathBuf {
        self.workspace.primary().join("jobs").join(TASK).join(HASH)
    }

    fn internal_lock(&self) -> PathBuf {
        let internal = self.workspace.primary().join(".xpmfs/internal");
        internal.join(TASK).join(HASH).join("train.lock")
    }

    /// Removes the recovered job, and puts back what was there before.
    fn reset(&self) {
        let there = self.there();
        match there.symlink_metadata() {
            Ok(stat) if stat.is_dir() => fs::remove_dir_all(&there).unwrap(),
            Ok(_) => fs::remove_file(&there).unwrap(),
            Err(_) => {}
        }
        fs::create_dir_all(there.parent().unwrap()).unwrap();
        match self.scene.left {
            Left::Nothing => {}
            Left::Link => symlink(&self.archive, &there).unwrap(),
            Left::Skeleton => copy(&self.saved, &there),
        }
    }

    /// Lets `strace` follow the daemon of a mount, with these arguments.
    fn trace(&self, pid: i32, arguments: &[&str]) -> Tracer {
        let (log, calls) = (self.log(), format!("trace={CHANGING}"));
        let mut options = vec!["-o", log.to_str().unwrap(), "-e", &calls];
        if !self.scene.exchange {
            options.extend(["-e", "inject=renameat2:error=EINVAL"]);
        }
        options.extend(arguments);
        Tracer::of_process(pid, &options)
    }

    fn log(&self) -> PathBuf {
        self.workspace.top().join("trace")
    }

    /// The calls of the thread that recovers the job and change something, by one run without a fault.
    pub(crate) fn points(&self) -> Vec<Point> {
        self.reset();
        let mounted = self.mount();
        let (job, _lock) = self.look_at(&mounted);
        let traced = self.trace(self.pid(), &[]);
        assert!(append(&job, "more"));
        drop(traced);
        drop(mounted);
        assert!(self.there().join("train.done").exists());
        let log = fs::read_to_string(self.log()).unwrap();
        let calls = log.lines().filter_map(|line| {
            let (thread, call) = line.split_once(' ')?;
            let (name, arguments) = call.trim_start().split_once('(')?;
            Some((thread, name, arguments))
        });
        let calls: Vec<_> = calls.collect();
        let staging = format!("\".tmp.{HASH}\"");
        let (thread, ..) = calls
            .iter()
            .find(|(_, name, arguments)| *name == "mkdirat" && arguments.contains(&staging))
            .expect("the job was not staged");
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut points = Vec::new();
        for (_, name, arguments) in calls.iter().filter(|(other, ..)| other == thread) {
            let count = counts.entry(name).or_default();
            *count += 1;
            let changes = match *name {
                "openat" => arguments.contains("O_CREAT"),
                "ioctl" => arguments.contains("FICLONE"),
                "renameat2" => self.scene.exchange || !arguments.contains("EINVAL"),
                name => !name.starts_with("<...") && !name.starts_with("syscall_"),
            };
            if changes {
                points.push(((*name).to_owned(), *count));
            }
        }
        points
    }

    fn pid(&self) -> i32 {
        serving(&self.workspace, &self.elsewhere)
    }

    /// Has the kernel know the whole job, and returns its path and its lock, held beneath the mount.
    fn look_at(&self, mounted: &Mounted<'_>) -> (PathBuf, File) {
        let job = mounted.job(TASK, HASH);
        contents(&job, &[]);
        fs::write(job.join("train.lock"), "").unwrap();
        fs::write(job.join(".experimaestro/status.json"), "{\"again\": 1}").unwrap();
        let lock = File::open(self.internal_lock()).unwrap();
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        (job, lock)
    }

    /// Asserts that the lock file of a job is the one that is held.
    fn assert_held(&self, path: &Path, lock: &File) {
        let again = File::open(path).unwrap();
        let taken = rustix::fs::flock(&again, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(taken, Err(Errno::WOULDBLOCK), "{}", path.display());
        assert!(lock.metadata().unwrap().nlink() > 0, "the lock has no name");
    }

    /// Asserts that beneath the mount, the job is what it was before, or recovered; returns which.
    fn assert_whole_or_untouched(&self, lock: &File, written: bool) -> bool {
        let there = self.there();
        let is_recovered = match there.symlink_metadata() {
            Ok(stat) if stat.is_dir() && self.scene.left == Left::Skeleton => {
                there.join("train.done").exists()
            }
            Ok(stat) => stat.is_dir(),
            // Where names cannot be exchanged, the job's is missing for a moment.
            Err(_) => false,
        };
        assert!(is_recovered || !written, "a write was lost");
        if is_recovered {
            let but = &CHANGED[..];
            assert_eq!(contents(&there, but), contents(&self.archive, but));
            let text = fs::read_to_string(there.join("train.out")).unwrap();
            let lines = if written { "more\n" } else { "" };
            assert!(
                [lines, "more\n"].contains(&text.strip_prefix("step 1\nstep 2\n").unwrap()),
                "{text}"
            );
            self.assert_held(&there.join("train.lock"), lock);
        } else if there.symlink_metadata().is_ok_and(|stat| stat.is_dir()) {
            assert_eq!(contents(&there, &[]), contents(&self.saved, &[]));
        }
        is_recovered
    }

    /// Asserts that a mount shows the whole job, and recovers it for the next change, or goes on with it.
    fn assert_goes_on(&self, mounted: &Mounted<'_>, lock: &File) {
        let (job, there) = (mounted.job(TASK, HASH), self.there());
        let but = &CHANGED[..];
        assert_eq!(contents(&job, but), contents(&self.archive, but));
        self.assert_held(&job.join("train.lock"), lock);
        assert!(append(&job, "again"), "{}", self.workspace.log());
        assert_eq!(mounted.location(&job), "primary");
        let text = fs::read_to_string(there.join("train.out")).unwrap();
        let text = text.strip_prefix("step 1\nstep 2\n").unwrap();
        assert!(["again\n", "more\nagain\n"].contains(&text), "{text}");
        assert_eq!(contents(&there, but), contents(&self.archive, but));
        let status = fs::read_to_string(there.join(".experimaestro/status.json")).unwrap();
        assert_eq!(status, "{\"again\": 1}");
        for path in [&there, &job] {
            self.assert_held(&path.join("train.lock"), lock);
        }
    }

    fn is_clean(&self) -> bool {
        names(&self.workspace.primary().join("jobs").join(TASK)) == [HASH]
    }

    fn assert_clean(&self) {
        let primary = self.workspace.primary();
        assert_clean(&primary);
        assert!(self.is_clean());
    }

    /// Kills the daemon at a call; whether it was killed.
    pub(crate) fn kill_at(&self, (call, count): &Point, folders: &Folders<'_>) -> bool {
        self.reset();
        let mounted = self.mount();
        let (job, lock) = self.look_at(&mounted);
        let pid = self.pid();
        let traced = self.trace(pid, &["-e", &kill(call, *count, self.scene)]);
        let written = append(&job, "more");
        drop(traced);
        let killed = !Path::new(&format!("/proc/{pid}")).exists()
            || fs::read_to_string(self.log()).is_ok_and(|log| log.contains("killed by SIGKILL"));
        drop(mounted);
        eventually("the daemon has ended", || {
            !Path::new(&format!("/proc/{pid}")).exists()
        });
        folders.assert_unchanged();
        self.assert_whole_or_untouched(&lock, written);
        let mounted = self.mount();
        self.assert_goes_on(&mounted, &lock);
        eventually("what the crash has left is removed", || self.is_clean());
        mounted.unmount();
        self.assert_clean();
        folders.assert_unchanged();
        killed
    }

    /// Makes a call of the recovery fail as on a full disk, or one with a quota; whether the writer received the error.
    pub(crate) fn fail_at(&self, (call, count): &Point, folders: &Folders<'_>) -> bool {
        self.reset();
        let mounted = self.mount();
        let (job, lock) = self.look_at(&mounted);
        let errors = [
            ("ENOSPC", libc::ENOSPC),
            ("EDQUOT", libc::EDQUOT),
            ("EACCES", libc::EACCES),
        ];
        let (error, number) = errors[count % errors.len()];
        let inject = format!("inject={call}:error={error}:when={count}");
        let traced = self.trace(self.pid(), &["-e", &inject]);
        let before = snapshot(&self.workspace.primary().join("jobs"));
        let written = match File::options().append(true).open(job.join("train.out")) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(number), "{error}");
                false
            }
        };
        drop(traced);
        folders.assert_unchanged();
        let recovered = self.assert_whole_or_untouched(&lock, false);
        if !recovered {
            assert!(!written);
            let is_job = |line: &&String| line.contains(HASH) || line.contains(".tmp");
            let of = |lines: &[String]| -> Vec<String> {
                lines.iter().filter(is_job).cloned().collect()
            };
            let after = snapshot(&self.workspace.primary().join("jobs"));
            assert_eq!(of(&after).len(), of(&before).len(), "a trace is left");
        }
        self.assert_goes_on(&mounted, &lock);
        mounted.unmount();
        // Old names of internal files may be left: they have no effect while the primary has the job.
        let _ = fs::remove_dir_all(self.internal_lock().parent().unwrap());
        self.assert_clean();
        folders.assert_unchanged();
        !written
    }
}

/// The argument of `strace` by which a daemon is killed at a call.
fn kill(call: &str, count: usize, scene: Scene) -> String {
    let error = match call == "renameat2" && !scene.exchange {
        true => ":error=EINVAL",
        false => "",
    };
    format!("inject={call}{error}:signal=KILL:when={count}")
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// Appends a line to the output of a job, by another process; whether that succeeded.
fn append(job: &Path, line: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", "echo \"$2\" >>\"$1\"/train.out", "sh"]);
    command.arg(job).arg(line).stderr(Stdio::null());
    command.status().unwrap().success()
}
