//! Whoever archives or recovers is killed at each system call that changes something, in turn.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::fixture::eventually;
use super::installed::{program, say, soak};
use super::stage::{
    HASH, Stage, TASK, Tree, assert_tree, duplicate, run_again, said, whole, write_job,
};

/// The calls that change something. `openat` does with `O_CREAT`.
const CHANGING: &str = "openat,mkdir,mkdirat,write,pwrite64,writev,pwritev,rename,renameat,renameat2,unlink,unlinkat,rmdir,symlink,\
    symlinkat,link,linkat,fsync,fdatasync,syncfs,sync_file_range,ftruncate,fallocate,chmod,fchmod,fchmodat,chown,fchown,fchownat,lchown,\
    utimensat,setxattr,lsetxattr,fsetxattr,removexattr,fremovexattr,flock,copy_file_range,sendfile,ioctl,mknodat";

/// How many of the calls are tried in the ordinary run, of each scene.
const SAMPLE: usize = 24;

/// How many are tried at the same time. Most of what a move takes is waiting.
const AT_ONCE: usize = 8;

/// What is done, and from where on.
#[derive(Debug, Clone, Copy)]
struct Scene {
    what: &'static str,
    modes: &'static [&'static str],
    /// Archiving: the folders have the job in an older state. Recovering: the primary has a symlink to it.
    more: bool,
    /// Whether two names can be exchanged in one step.
    exchange: bool,
}

/// A scene as it is before, to be copied for each try, and what is expected of it.
struct Prepared {
    scene: Scene,
    before: Stage,
    /// The job as it is to be at the end, and as the folders had it.
    job: Tree,
    older: Option<Tree>,
}

/// A call to be killed at: its name, and the how manieth of its name it is.
type Point = (String, usize);

fn place() -> std::path::PathBuf {
    let memory = Path::new("/dev/shm");
    // In memory nobody waits for a disk. For the long run, there is time for a real one.
    match memory.is_dir() && !soak() {
        true => memory.to_owned(),
        false => std::env::temp_dir(),
    }
}

impl Prepared {
    fn new(scene: Scene) -> Prepared {
        let before = Stage::within(&place(), scene.modes);
        write_job(&before.job());
        let mut older = None;
        if scene.what == "recover" || scene.more {
            for mode in scene.modes {
                // As `backup`, so that the primary keeps it.
                let other = Stage::within(&place(), &["backup"]);
                duplicate(&before.primary(), &other.primary());
                other.archive();
                duplicate(&other.folder("backup"), &before.folder(mode));
            }
        }
        let mut job = whole(&before.job()).unwrap();
        if scene.what == "recover" {
            fs::remove_dir_all(before.job()).unwrap();
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
        let stage = Stage::within(&place(), self.scene.modes);
        duplicate(&self.before.primary(), &stage.primary());
        for mode in self.scene.modes {
            duplicate(&self.before.folder(mode), &stage.folder(mode));
        }
        if self.scene.what == "recover" && self.scene.more {
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
    fn points(&self) -> Vec<Point> {
        let stage = self.stage();
        let log = stage.top().join("log");
        let mut strace = vec![format!("--trace={CHANGING}")];
        strace.extend(["-o".to_owned(), log.to_str().unwrap().to_owned()]);
        strace.extend(self.lacking());
        let output = stage
            .by_one_thread(self.scene.what, &strace)
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

    /// Kills it at a call, looks at what is there, starts it again, and looks again. Whether it was there to be killed.
    fn try_point(&self, (call, count): &Point) -> bool {
        let stage = self.stage();
        let mut strace = self.lacking();
        strace.extend(["-o", "/dev/null"].map(str::to_owned));
        let kill = format!("--inject={call}:signal=KILL:when={count}");
        // What is not traced is not injected into either.
        strace.push(format!("--trace={call},renameat2"));
        let mut killing = strace.clone();
        killing.push(kill);
        let output = stage
            .by_one_thread(self.scene.what, &killing)
            .output()
            .unwrap();
        let killed = output.status.signal() == Some(9);
        assert!(killed || output.status.success(), "{}", said(&output));
        self.assert_nothing_lost(&stage);
        let again = match self.scene.exchange {
            true => Vec::new(),
            false => strace,
        };
        let output = stage
            .by_one_thread(self.scene.what, &again)
            .output()
            .unwrap();
        assert!(output.status.success(), "again: {}", said(&output));
        self.assert_done(&stage);
        killed
    }

    /// Whatever has happened: the job can be had whole, and no folder has half of it.
    fn assert_nothing_lost(&self, stage: &Stage) {
        let found = whole(&stage.job());
        let absent = self.scene.what == "recover" && !self.scene.more;
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
    fn assert_done(&self, stage: &Stage) {
        assert_tree(
            "the primary's job at the end",
            &self.job,
            whole(&stage.job()).as_ref(),
        );
        for mode in stage.modes() {
            let archived = whole(&stage.archived(mode));
            assert_tree("a folder's copy at the end", &self.job, archived.as_ref());
        }
        stage.verify();
        stage.assert_clean();
        let moves = self.scene.modes.contains(&"move");
        let link = self.scene.what == "archive" && moves;
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

/// Kills at the calls of a scene.
fn kill_at_each(scene: Scene) {
    if program("strace").is_none() {
        return;
    }
    let prepared = Prepared::new(scene);
    let all = prepared.points();
    let step = match soak() {
        true => 1,
        false => all.len().div_ceil(SAMPLE).max(1),
    };
    // What puts things in their places is tried always.
    let always = ["rename", "symlink", "unlink", "fsync", "syncfs", "flock"];
    let points: Vec<&Point> = (0..)
        .zip(&all)
        .filter(|(index, (call, _))| {
            let often = call.starts_with("unlink") && scene.modes.contains(&"move");
            index % step == 0 || !often && always.iter().any(|name| call.starts_with(name))
        })
        .map(|(_, point)| point)
        .collect();
    let (next, killed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failed: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        prepared.try_point(point)
                    }));
                    match tried {
                        Ok(true) => drop(killed.fetch_add(1, Ordering::Relaxed)),
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
    assert!(failed.is_empty(), "{scene:?}: killed at {failed:?}");
    let killed = killed.into_inner();
    say(&format!(
        "{scene:?}: killed at {killed} of {} calls",
        all.len()
    ));
    assert!(
        killed * 10 >= points.len() * 9,
        "{killed} of {}",
        points.len()
    );
}

macro_rules! scenes {
    ($($name:ident: $what:literal $modes:expr, $more:literal, $exchange:literal;)*) => {
        $(
            #[test]
            fn $name() {
                let (what, modes, more, exchange) = ($what, &$modes, $more, $exchange);
                kill_at_each(Scene { what, modes, more, exchange });
            }
        )*
    };
}

scenes! {
    killed_while_copying_to_backup: "archive" ["backup"], false, true;
    killed_while_copying_to_backup_without_exchange: "archive" ["backup"], false, false;
    killed_while_replacing_in_backup: "archive" ["backup"], true, true;
    killed_while_replacing_in_backup_without_exchange: "archive" ["backup"], true, false;
    killed_while_moving: "archive" ["move"], false, true;
    killed_while_moving_without_exchange: "archive" ["move"], false, false;
    killed_while_moving_what_is_there_in_an_older_state: "archive" ["move"], true, true;
    killed_while_moving_what_is_there_in_an_older_state_without_exchange: "archive" ["move"], true, false;
    killed_while_copying_and_moving: "archive" ["backup", "move"], false, true;
    killed_while_copying_and_moving_without_exchange: "archive" ["backup", "move"], false, false;
    killed_while_replacing_and_moving: "archive" ["backup", "move"], true, true;
    killed_while_replacing_and_moving_without_exchange: "archive" ["backup", "move"], true, false;
    killed_while_recovering: "recover" ["backup"], false, true;
    killed_while_recovering_without_exchange: "recover" ["backup"], false, false;
    killed_while_recovering_what_was_moved: "recover" ["move"], true, true;
    killed_while_recovering_what_was_moved_without_exchange: "recover" ["move"], true, false;
}

#[test]
fn a_kill_comes_before_the_call() {
    if program("strace").is_none() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let mut mkdir = Command::new("strace");
    mkdir.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "--inject=mkdir,mkdirat:signal=KILL:when=2",
    ]);
    mkdir.arg("mkdir").args(["a", "b"]).current_dir(top.path());
    let output = mkdir.output().unwrap();
    assert_eq!(output.status.signal(), Some(9), "{}", said(&output));
    assert!(top.path().join("a").exists() && !top.path().join("b").exists());
}

#[test]
fn what_was_written_while_it_moved_is_put_back_by_the_next_start() {
    for note in [true, false] {
        let stage = Stage::new(&["move"]);
        write_job(&stage.job());
        let mut archive = stage.by_one_thread("archive", &[]).spawn().unwrap();
        eventually("it has moved", || stage.job().is_symlink());
        // It keeps what it has moved for a while longer.
        archive.kill().unwrap();
        archive.wait().unwrap();
        let task = stage.job().parent().unwrap().to_owned();
        let aside = task.join(format!(".tmp.{HASH}"));
        fs::write(aside.join("straggler"), "late").unwrap();
        if !note {
            // As experimaestro does when it looks whether somebody is at it.
            fs::write(task.join(format!(".tmp.{HASH}.lock")), "").unwrap();
        }
        stage.archive();
        assert_eq!(fs::read(stage.job().join("straggler")).unwrap(), b"late");
        assert_eq!(
            fs::read(stage.archived("move").join("straggler")).unwrap(),
            b"late"
        );
        assert!(stage.job().is_symlink());
        stage.verify();
        stage.assert_clean();
    }
}
