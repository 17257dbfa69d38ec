//! A mount in use for long: its memory and descriptors stay what they were soon after its start.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use crate::common;
use crate::common::Workspace;
use crate::common::daemon::Footprint;
use crate::job::{self, TASK, hash};
use crate::stage::{Beneath, at_once, status};

/// Jobs that exist at a time: older ones are removed from the workspace and the folder.
const LIVE: usize = 40;
/// Jobs of the task that is listed all the time.
const LISTED: usize = 4000;
const LISTED_TASK: &str = "my.module.many";
/// Jobs of this task that fill the daemon's cache of directories.
const CACHED: usize = 2000;
/// The daemon has at least so many descriptors when this cache is full.
const CACHE_FULL: u64 = 1024;
/// How long after the end of a sample the cache must have been full.
const FILLED_WITHIN: Duration = Duration::from_secs(120);

/// How long it runs, when the first footprint is taken, and by how much the last may exceed it, in percent.
struct Plan {
    length: Duration,
    first: Duration,
    growth: u64,
    /// How long footprints are taken; the most of all counts.
    sampled: Duration,
}

fn plan() -> Plan {
    match common::soak() {
        true => Plan {
            length: Duration::from_secs(3600),
            first: Duration::from_secs(300),
            growth: 10,
            sampled: Duration::from_secs(60),
        },
        // Long enough to notice what grows with each listing; too short for the allocator to settle.
        false => Plan {
            length: Duration::from_secs(14),
            first: Duration::from_secs(5),
            growth: 25,
            sampled: Duration::from_secs(3),
        },
    }
}

#[test]
fn memory_and_descriptors_do_not_grow_with_use() {
    let mounts: [fn() -> Workspace; 2] = [Workspace::new, Workspace::of_ordinary_user];
    at_once(mounts, |workspace| use_for_long(&workspace()));
}

fn use_for_long(workspace: &Workspace) {
    workspace.with_folders(&["use", "move"]);
    workspace.tune("{settle: 100ms, scan_interval: 1s}");
    for number in 0..LISTED {
        let job = workspace.folder("use").join("jobs").join(LISTED_TASK);
        fs::create_dir_all(job.join(hash(number))).unwrap();
        File::create(job.join(hash(number)).join("many.done")).unwrap();
    }
    workspace.give_away();
    let beneath = Beneath::of(&workspace.primary());
    let mounted = workspace.mount_archiving(&workspace.primary(), &[]);
    let work = Work {
        mount: mounted.path().to_owned(),
        beneath: beneath.path(),
        folders: ["use", "move"].map(|name| workspace.folder(name)),
        newest: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    };
    let daemon = status(workspace, mounted.path())["pid"].as_i64().unwrap();
    let plan = plan();
    let (first, last) = std::thread::scope(|scope| {
        let tasks = [
            Work::make_jobs,
            Work::list,
            Work::open,
            Work::lock,
            Work::rename,
        ];
        for task in tasks {
            let work = &work;
            scope.spawn(move || workspace.as_user(|| work.repeat(task)));
        }
        scope.spawn(|| work.repeat(Work::reclaim));
        // Ends the workers, also if a sample fails.
        let _over = Over(&work.over);
        let began = Instant::now();
        let sample = |end| workspace.as_user(|| work.sample(daemon, end, plan.sampled));
        let first = sample(began + plan.first);
        let last = sample(began + plan.length);
        (first, last)
    });
    let jobs = work.newest.load(Ordering::Relaxed);
    common::say(&format!(
        "{jobs} jobs came and went\nfirst {first:?}\nlast  {last:?}"
    ));
    assert!(jobs > LIVE, "only {jobs} jobs were made");
    for (what, first, last) in [
        ("KiB of memory", first.kibibytes, last.kibibytes),
        ("descriptors", first.descriptors, last.descriptors),
    ] {
        assert!(
            last * 100 <= first * (100 + plan.growth),
            "{what} grew from {first} to {last}, by more than {} %",
            plan.growth
        );
    }
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What programs do with the mount, each task in a thread of its own.
struct Work {
    mount: PathBuf,
    beneath: PathBuf,
    folders: [PathBuf; 2],
    /// The number of the job that is made next.
    newest: AtomicUsize,
    over: AtomicBool,
}

/// Held while the kernel drops names, which it does for all mounts at once, and while a footprint is taken.
static RECLAIM: Mutex<()> = Mutex::new(());

impl Work {
    /// The most that the daemon holds in the time before `end`, or at the first moment afterwards at which its cache of
    /// directories is full: only such moments can be compared, and other processes, too, make the kernel drop names.
    fn sample(&self, daemon: i64, end: Instant, length: Duration) -> Footprint {
        let is_over = || self.over.load(Ordering::Acquire);
        while Instant::now() < end - length && !is_over() {
            std::thread::sleep(Duration::from_millis(100));
        }
        let mut most: Option<Footprint> = None;
        loop {
            let now = self.filled(daemon);
            if now.descriptors >= CACHE_FULL {
                most = Some(most.map_or(now, |most| most.max(now)));
            }
            match most {
                Some(most) if Instant::now() >= end || is_over() => return most,
                // Another worker has failed.
                None if is_over() => return now,
                _ => {}
            }
            assert!(
                Instant::now() < end + FILLED_WITHIN,
                "the cache of directories is never full: {now:?}"
            );
        }
    }

    /// What the daemon holds after enough jobs have been read to fill its cache of directories.
    fn filled(&self, daemon: i64) -> Footprint {
        let _kept = RECLAIM.lock().unwrap_or_else(PoisonError::into_inner);
        let many = self.mount.join("jobs").join(LISTED_TASK);
        for number in 0..CACHED {
            usual(File::open(many.join(hash(number)).join("many.done")).map(drop));
        }
        Footprint::of(daemon)
    }

    fn repeat(&self, task: fn(&Work, u64)) {
        // Ends the other workers and the samples, also if this one fails.
        let _over = Over(&self.over);
        for round in 0.. {
            if self.over.load(Ordering::Acquire) {
                return;
            }
            task(self, round);
        }
    }

    /// Makes a job through the mount or beneath it, and removes the oldest wherever it is.
    fn make_jobs(&self, _round: u64) {
        let number = self.newest.load(Ordering::Relaxed);
        let root = if number.is_multiple_of(2) {
            &self.mount
        } else {
            &self.beneath
        };
        job::write(&root.join(job::path(number)), number);
        self.newest.store(number + 1, Ordering::Relaxed);
        if let Some(old) = number.checked_sub(LIVE) {
            let [_, moved] = &self.folders;
            let link = self.beneath.join(job::path(old));
            // Removes a symlink, too. The job may become one while it is removed.
            usual(match fs::remove_dir_all(&link) {
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    fs::remove_file(&link)
                }
                removed => removed,
            });
            usual(fs::remove_dir_all(moved.join(job::path(old))));
        }
        std::thread::sleep(Duration::from_millis(50));
    }

    /// Changes a task of a folder, and lists it.
    fn list(&self, round: u64) {
        let [read, _] = &self.folders;
        let extra = read
            .join("jobs")
            .join(LISTED_TASK)
            .join(format!("extra-{round}"));
        fs::create_dir(&extra).unwrap();
        File::create(extra.join("many.done")).unwrap();
        let listed = fs::read_dir(self.mount.join("jobs").join(LISTED_TASK)).unwrap();
        assert!(listed.count() >= LISTED);
        fs::remove_dir_all(&extra).unwrap();
        let live = fs::read_dir(self.mount.join("jobs").join(TASK));
        usual(live.map(|live| live.for_each(drop)));
    }

    /// Reads files of jobs, those that are moved meanwhile among them.
    fn open(&self, round: u64) {
        let newest = self.newest.load(Ordering::Relaxed);
        let number = newest.saturating_sub(round as usize % LIVE + 1);
        let job = self.mount.join(job::path(number));
        for name in ["model.bin", "train.out", "data/uv.lock"] {
            let read =
                File::open(job.join(name)).and_then(|mut file| file.read_to_end(&mut Vec::new()));
            usual(read.map(drop));
        }
        let many = self.mount.join("jobs").join(LISTED_TASK);
        usual(File::open(many.join(hash(round as usize % LISTED)).join("many.done")).map(drop));
    }

    /// Locks a job of a folder as experimaestro does, and unlinks the lock as some versions of filelock do.
    fn lock(&self, round: u64) {
        let many = self.mount.join("jobs").join(LISTED_TASK);
        let path = many.join(hash(round as usize % 50)).join("many.lock");
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
        fs::remove_file(&path).unwrap();
    }

    /// Lets the kernel drop the names that no program uses, as it does when memory is short: the daemon keeps what the kernel
    /// keeps, and jobs that are removed beneath the mount stay in the kernel's cache until then.
    fn reclaim(&self, round: u64) {
        std::thread::sleep(Duration::from_millis(100));
        if round.is_multiple_of(100) && rustix::process::geteuid().is_root() {
            let _dropped = RECLAIM.lock().unwrap_or_else(PoisonError::into_inner);
            fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        }
    }

    /// Files and directories with ever new names come and go.
    fn rename(&self, round: u64) {
        let directory = self.mount.join(format!("directory-{round}"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("file"), b"contents").unwrap();
        let renamed = directory.with_extension("renamed");
        fs::rename(&directory, &renamed).unwrap();
        assert_eq!(fs::read(renamed.join("file")).unwrap(), b"contents");
        fs::remove_dir_all(&renamed).unwrap();
    }
}

/// What happens to a job that is moved or removed at that moment is tested elsewhere.
fn usual(result: io::Result<()>) {
    if let Err(error) = result {
        let expected = [libc::ENOENT, libc::ESTALE, libc::EROFS, libc::ENOTEMPTY];
        assert!(expected.contains(&error.raw_os_error().unwrap()), "{error}");
    }
}
