//! Eight processes at the same few files and directories of one mount, while jobs change place beneath: no
//! error that a disk would not give, nothing stale, nothing lost, nothing left over.
//!
//! - `worker`: what each of the processes does
//! - `checks`: what must hold at the end
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod checks;
#[path = "../common/mod.rs"]
mod common;
mod worker;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use checks::{Daemon, check_moved_jobs, check_nothing_is_left, check_shared_files};
use common::Workspace;
use worker::Worker;
use xpmfs::daemon::uncovered;

const TASK: &str = "my.module.train";
const PROCESSES: usize = 8;

/// Jobs that change place all the time.
const MOVING: [&str; 3] = ["moving-0", "moving-1", "moving-2"];

/// Names that everybody makes, renames and removes.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Each process's share of a file that all append to comes in records of this length.
const RECORD: usize = 64;

/// What others change is seen within a second; the machine may be busy besides.
const SOON: Duration = Duration::from_secs(5);

fn duration() -> Duration {
    Duration::from_secs(if common::soak() { 60 } else { 10 })
}

#[test]
fn eight_processes_and_moving_jobs_leave_nothing_wrong_and_nothing_behind() {
    for in_place in [false, true] {
        stress(in_place);
    }
}

fn stress(in_place: bool) {
    let root = rustix::process::geteuid().is_root();
    let workspace = Workspace::new().never_recovers();
    furnish(&workspace);
    let mountpoint = match in_place {
        true => workspace.primary(),
        false => workspace.mountpoint("elsewhere"),
    };
    let arguments: &[&str] = match root {
        true => &["-o", "allow_other"],
        false => &[],
    };
    let mounted = workspace.mount_with(&mountpoint, arguments);
    // In place the primary's own path leads into the mount; the daemon leads beneath.
    let beneath = match in_place {
        true => uncovered::beneath(&mountpoint).unwrap().unwrap(),
        false => File::open(workspace.primary()).unwrap().into(),
    };
    let beneath_path = PathBuf::from(format!("/proc/self/fd/{}", beneath.as_raw_fd()));
    let before = Daemon::of(&mounted);
    let workers: Vec<Child> = (0..PROCESSES)
        .map(|number| start_worker(&workspace, mounted.path(), number))
        .collect();
    let stop = AtomicBool::new(false);
    let moves = std::thread::scope(|scope| {
        let movers = MOVING.map(|hash| {
            let mover = Mover::new(&workspace, &beneath_path, hash);
            let stop = &stop;
            scope.spawn(move || mover.run(stop))
        });
        let failures: Vec<String> = workers.into_iter().filter_map(failure_of).collect();
        stop.store(true, Ordering::Release);
        let moves = movers.map(|mover| mover.join().unwrap());
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        moves
    });
    common::say(&format!(
        "jobs were moved {} times",
        moves.iter().sum::<u64>()
    ));
    check_shared_files(&mounted, &workspace);
    check_moved_jobs(&mounted, &moves);
    check_nothing_is_left(&mounted, &before);
}

/// A job for each purpose, and what all processes share.
fn furnish(workspace: &Workspace) {
    workspace.finished("use", TASK, "archived");
    for hash in MOVING {
        let job = workspace.finished("primary", TASK, hash);
        fs::write(job.join("version"), "0").unwrap();
        fs::write(workspace.top().join(hash), "0").unwrap();
    }
    let shared = workspace.primary().join("shared");
    fs::create_dir_all(shared.join("names")).unwrap();
    fs::write(shared.join("counter"), "0").unwrap();
    fs::write(shared.join("log"), "").unwrap();
    fs::write(shared.join("current"), vec![b'0'; 10_000]).unwrap();
}

/// Moves a job to a folder and back as experimaestro does, and counts in its `version`.
struct Mover {
    job: PathBuf,
    archived: PathBuf,
    published: PathBuf,
}

impl Mover {
    fn new(workspace: &Workspace, beneath: &Path, hash: &str) -> Mover {
        let below = |root: &Path| root.join("jobs").join(TASK).join(hash);
        let archived = below(&workspace.folder("move"));
        fs::create_dir_all(archived.parent().unwrap()).unwrap();
        Mover {
            job: below(beneath),
            archived,
            published: workspace.top().join(hash),
        }
    }

    /// Returns the last version.
    fn run(&self, stop: &AtomicBool) -> u64 {
        let mut version = 0;
        while !stop.load(Ordering::Acquire) {
            version += 1;
            let next = self.job.join("version.next");
            fs::write(&next, version.to_string()).unwrap();
            fs::rename(&next, self.job.join("version")).unwrap();
            fs::rename(&self.job, &self.archived).unwrap();
            symlink(&self.archived, &self.job).unwrap();
            replace(&self.published, version.to_string().as_bytes());
            std::thread::sleep(Duration::from_millis(version % 7 * 10));
            fs::remove_file(&self.job).unwrap();
            fs::rename(&self.archived, &self.job).unwrap();
            std::thread::sleep(Duration::from_millis(version % 5 * 10));
        }
        version
    }
}

/// Puts a file in another's place, whole.
fn replace(path: &Path, contents: &[u8]) {
    let next = path.with_extension(format!("{}.next", std::process::id()));
    fs::write(&next, contents).unwrap();
    fs::rename(next, path).unwrap();
}

fn start_worker(workspace: &Workspace, mount: &Path, number: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker", "--nocapture"])
        .env("XPMFS_STRESS_WORKER", number.to_string())
        .env("XPMFS_STRESS_MOUNT", mount)
        .env("XPMFS_STRESS_TOP", workspace.top())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn failure_of(worker: Child) -> Option<String> {
    let output = worker.wait_with_output().unwrap();
    (!output.status.success()).then(|| {
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// One of the eight processes; nothing where it is run as a test.
#[test]
fn worker() {
    let Ok(number) = std::env::var("XPMFS_STRESS_WORKER") else {
        return;
    };
    let path = |name| PathBuf::from(std::env::var_os(name).unwrap());
    let mut worker = Worker {
        number: number.parse().unwrap(),
        mount: path("XPMFS_STRESS_MOUNT"),
        top: path("XPMFS_STRESS_TOP"),
        random: number.parse::<u64>().unwrap() + 1,
        appended: 0,
        counted: 0,
        seen: VecDeque::new(),
    };
    let end = Instant::now() + duration();
    while Instant::now() < end {
        worker.step();
    }
    let told = format!("{} {}", worker.appended, worker.counted);
    fs::write(worker.top.join(format!("worker-{number}")), told).unwrap();
}
