//! What is done to a job, from where on, and the system calls by which it is done.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::common::soak;
use super::deleted::{assert_deleted, records, trashed};
use super::stage::{
    HASH, Stage, TASK, Tree, assert_tree, duplicate, job_id, run_again, said, whole, write_job,
};

/// The calls that change something. `openat` does with `O_CREAT`.
const CHANGING: &str = "openat,mkdir,mkdirat,write,pwrite64,writev,pwritev,rename,renameat,renameat2,unlink,unlinkat,rmdir,symlink,\
    symlinkat,link,linkat,fsync,fdatasync,syncfs,sync_file_range,ftruncate,fallocate,chmod,fchmod,fchmodat,chown,fchown,fchownat,lchown,\
    utimensat,setxattr,lsetxattr,fsetxattr,removexattr,fremovexattr,flock,copy_file_range,sendfile,ioctl,mknodat";

/// How many of the calls are tried in the ordinary run, of each scene.
const SAMPLE: usize = 10;

/// How many are tried at the same time. Most of what a move takes is waiting.
const AT_ONCE: usize = 8;

/// What is done, and from where on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    pub(crate) what: &'static str,
    pub(crate) modes: &'static [&'static str],
    /// Archiving: the folders have the job in an older state. Recovering and deleting: the primary has a symlink to it.
    pub(crate) more: bool,
    /// Whether two names can be exchanged in one step.
    pub(crate) exchange: bool,
}

/// A scene as it is before, to be copied for each try, and what is expected of it.
pub(crate) struct Prepared {
    pub(crate) scene: Scene,
    before: Stage,
    /// The job as it is to be at the end, and as the folders had it.
    job: Tree,
    older: Option<Tree>,
}

/// A call to be killed at: its name, and the how manieth of its name it is.
pub(crate) type Point = (String, usize);

impl Prepared {
    pub(crate) fn new(scene: Scene) -> Prepared {
        let before = Stage::new(scene.modes);
        write_job(&before.job());
        let mut older = None;
        if scene.what != "archive" || scene.more {
            for mode in scene.modes {
                // As `backup`, so that the primary keeps it.
                let other = Stage::new(&["backup"]);
                duplicate(&before.primary(), &other.primary());
                other.archive();
                duplicate(&other.folder("backup"), &before.folder(mode));
            }
        }
        let mut job = whole(&before.job()).unwrap();
        if scene.what == "recover" || scene.what == "delete" && scene.more {
            fs::remove_dir_all(before.job()).unwrap();
        } else if scene.what == "undelete" {
            let output = before.jobs(&["delete", "--yes", &job_id()]);
            assert!(output.status.success(), "{}", said(&output));
        } else if scene.more {
            older = Some(job);
            run_again(&before.job());
            job = whole(&before.job()).unwrap();
        }
        Prepared {
            scene,
            before,
            job,
            older,
        }
    }

    /// The same at another place.
    fn stage(&self) -> Stage {
        let stage = Stage::new(self.scene.modes);
        duplicate(&self.before.primary(), &stage.primary());
        for mode in self.scene.modes {
            duplicate(&self.before.folder(mode), &stage.folder(mode));
        }
        if ["recover", "delete"].contains(&self.scene.what) && self.scene.more {
            symlink(stage.archived(self.scene.modes[0]), stage.job()).unwrap();
        }
        stage
    }

    fn lacking(&self) -> Vec<String> {
        match self.scene.exchange {
            true => Vec::new(),
            false => vec!["--inject=renameat2:error=EINVAL".to_owned()],
        }
    }

    /// The calls that change something, by one run to the end. All are made by one thread.
    pub(crate) fn points(&self) -> Vec<Point> {
        let stage = self.stage();
        let log = stage.top().join("log");
        let mut strace = vec![format!("--trace={CHANGING}")];
        strace.extend(["-o".to_owned(), log.to_str().unwrap().to_owned()]);
        strace.extend(self.lacking());
        let output = stage
            .by_one_thread_at_once(self.scene.what, &strace)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let log = fs::read_to_string(log).unwrap();
        let mut points = Vec::new();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let main = log.split_whitespace().next().unwrap();
        for line in log.lines() {
            let (thread, call) = line.split_once(' ').unwrap();
            let call = call.trim_start();
            let Some((name, arguments)) = call.split_once('(') else {
                continue;
            };
            // One that this strace does not know, and so cannot be told to leave out.
            if name.starts_with("syscall_") || name.starts_with("<...") {
                continue;
            }
            let reads = name == "openat" && !arguments.contains("O_CREAT")
                || name == "ioctl" && !arguments.contains("FICLONE")
                || name == "renameat2" && !self.scene.exchange
                // To those who read what it says.
                || name == "write" && (arguments.starts_with("1,") || arguments.starts_with("2,"));
            if thread != main {
                assert!(reads, "another thread changes something: {line}");
                continue;
            }
            let count = counts.entry(name.to_owned()).or_default();
            *count += 1;
            if !reads {
                points.push((name.to_owned(), *count));
            }
        }
        self.assert_done(&stage);
        points
    }

    /// Does it in a new stage with a fault (`signal=KILL`, `error=EIO`) at a call. Nothing must be lost by that.
    pub(crate) fn with_fault(&self, (call, count): &Point, fault: &str) -> (Stage, Output) {
        let stage = self.stage();
        let mut strace = self.lacking();
        strace.extend(["-o", "/dev/null"].map(str::to_owned));
        // What is not traced is not injected into either.
        strace.push(format!("--trace={call},renameat2"));
        strace.push(format!("--inject={call}:{fault}:when={count}"));
        let mut command = stage.by_one_thread_at_once(self.scene.what, &strace);
        let output = command.output().unwrap();
        self.assert_nothing_lost(&stage);
        (stage, output)
    }

    /// Does it once more, without a fault: all must be as if there had never been one.
    pub(crate) fn again(&self, stage: &Stage) {
        if self.is_deletion() {
            // If it was decided, the command finishes it before it looks for the job, which is then not there.
            let output = stage.jobs(&self.arguments());
            let done = ["no job", "no deleted job"]
                .iter()
                .any(|it| said(&output).contains(it));
            assert!(output.status.success() || done, "again: {}", said(&output));
            return self.assert_done(stage);
        }
        let mut strace = self.lacking();
        if !strace.is_empty() {
            strace.extend(["-o", "/dev/null", "--trace=renameat2"].map(str::to_owned));
        }
        let mut command = stage.by_one_thread_at_once(self.scene.what, &strace);
        let output = command.output().unwrap();
        assert!(output.status.success(), "again: {}", said(&output));
        self.assert_done(stage);
    }

    fn is_deletion(&self) -> bool {
        ["delete", "undelete"].contains(&self.scene.what)
    }

    fn arguments(&self) -> Vec<&'static str> {
        match self.scene.what {
            "delete" => vec!["delete", "--yes", TASK],
            what => vec![what, TASK],
        }
    }

    /// Each location has the job whole, at its place or in its trash, and the job is visible only where it is whole.
    fn assert_in_place_or_trash(&self, stage: &Stage) {
        let mut roots: Vec<_> = stage
            .modes()
            .iter()
            .map(|mode| stage.folder(mode))
            .collect();
        let linked = self.scene.more;
        let link = fs::symlink_metadata(stage.job()).is_ok();
        match linked {
            true => assert!(
                link != (trashed(&stage.primary(), "jobs").len() == 1),
                "the symlink"
            ),
            false => roots.push(stage.primary()),
        }
        for root in roots {
            let place = root.join("jobs").join(job_id());
            let trash = trashed(&root, "jobs");
            let copies = [&[place][..], &trash].concat();
            let there: Vec<_> = copies.iter().filter_map(|copy| whole(copy)).collect();
            let [one] = &there[..] else {
                panic!("{}: {copies:?}", root.display());
            };
            assert_tree("a copy", &self.job, Some(one));
        }
    }

    /// What was deleted is deleted everywhere, and can be brought back; what was brought back is where it was.
    fn assert_deletion_done(&self, stage: &Stage) {
        // Removes the lock file of a command that was killed.
        stage.archive();
        self.assert_in_place_or_trash(stage);
        if self.scene.what == "delete" {
            assert_deleted(stage, self.scene.modes, &self.job);
            let output = stage.jobs(&["undelete", &job_id()]);
            assert!(output.status.success(), "{}", said(&output));
        }
        assert_tree("the primary's job", &self.job, whole(&stage.job()).as_ref());
        assert_eq!(stage.job().is_symlink(), self.scene.more);
        for mode in self.scene.modes {
            assert_tree(mode, &self.job, whole(&stage.archived(mode)).as_ref());
        }
        assert_eq!(records(stage), [] as [PathBuf; 0]);
        stage.verify();
        stage.assert_clean();
    }

    /// Whatever has happened: the job can be had whole, and no folder has half of it.
    fn assert_nothing_lost(&self, stage: &Stage) {
        if self.is_deletion() {
            return self.assert_in_place_or_trash(stage);
        }
        let found = whole(&stage.job());
        let absent =
            self.scene.what == "release" || self.scene.what == "recover" && !self.scene.more;
        if self.scene.exchange && !absent || found.is_some() {
            assert_tree("the primary's job", &self.job, found.as_ref());
        }
        let mut there = found.is_some();
        for mode in stage.modes() {
            let archived = whole(&stage.archived(mode));
            there |= archived.as_ref() == Some(&self.job);
            let wanted = archived.is_none() && self.older.is_none();
            // Where names cannot be exchanged, it is missing for a moment.
            let missing = archived.is_none() && !self.scene.exchange;
            if !wanted && !missing && (archived.is_none() || archived != self.older) {
                assert_tree("a folder's copy", &self.job, archived.as_ref());
            }
        }
        assert!(there, "the job is nowhere");
    }

    /// All is as if it had never been killed.
    pub(crate) fn assert_done(&self, stage: &Stage) {
        if self.is_deletion() {
            return self.assert_deletion_done(stage);
        }
        let moves = self.scene.modes.contains(&"move");
        let released = self.scene.what == "release";
        match released && !moves {
            true => assert!(!stage.job().exists(), "it was not released"),
            false => assert_tree(
                "the primary's job at the end",
                &self.job,
                whole(&stage.job()).as_ref(),
            ),
        }
        for mode in stage.modes() {
            let archived = whole(&stage.archived(mode));
            assert_tree("a folder's copy at the end", &self.job, archived.as_ref());
        }
        stage.verify();
        stage.assert_clean();
        let aside = stage
            .primary()
            .join(".xpmfs/released")
            .join(TASK)
            .join(HASH);
        assert!(!aside.exists(), "a released job is left");
        let link = self.scene.what != "recover" && moves;
        assert_eq!(stage.job().is_symlink(), link);
        if self.scene.what == "recover" && moves {
            let kept = stage.primary().join(".xpmfs/archive/kept");
            assert!(
                kept.join(TASK).join(HASH).exists(),
                "it would be moved again"
            );
        }
    }
}

/// Those of the points that are tried in an ordinary run: some, and of the calls that begin like this, all.
pub(crate) fn sample<'a>(all: &'a [Point], always: &[&str]) -> Vec<&'a Point> {
    let step = match soak() {
        true => 1,
        false => all.len().div_ceil(SAMPLE).max(1),
    };
    let chosen = (0..).zip(all).filter(|(index, (call, _))| {
        index % step == 0 || always.iter().any(|name| call.starts_with(name))
    });
    chosen.map(|(_, point)| point).collect()
}

/// Tries points, several at the same time; gives how many of the tries gave true. Tells which have panicked.
pub(crate) fn try_each(
    scene: Scene,
    points: &[&Point],
    call: impl Fn(&Point) -> bool + Sync,
) -> usize {
    let (next, counted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failed: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let tried = std::panic::AssertUnwindSafe(|| call(point));
                    match std::panic::catch_unwind(tried) {
                        Ok(true) => drop(counted.fetch_add(1, Ordering::Relaxed)),
                        Ok(false) => {}
                        Err(_) => failed
                            .lock()
                            .unwrap()
                            .push(format!("{} {}", point.0, point.1)),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{scene:?}: at {failed:?}");
    counted.into_inner()
}
