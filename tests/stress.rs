//! Eight processes at the same few files and directories of one mount, while jobs change place beneath: no
//! error that a disk would not give, nothing stale, nothing lost, nothing left over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::footprint::Footprint;
use common::{Mounted, Workspace, eventually};
use rustix::fs::{CWD, FlockOperation, RenameFlags};
use xpmfs::daemon::control::{self, Client};
use xpmfs::daemon::mounts;

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
        true => control::beneath(&mountpoint).unwrap().unwrap(),
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

struct Worker {
    number: usize,
    mount: PathBuf,
    top: PathBuf,
    random: u64,
    /// Records appended to the log.
    appended: u64,
    /// How often this has counted.
    counted: u64,
    /// Versions of moving jobs that had been published at a time.
    seen: VecDeque<(Instant, usize, u64)>,
}

impl Worker {
    fn step(&mut self) {
        match self.draw(9) {
            0 => self.append(),
            1 => self.count(),
            2 => self.replace_and_read(),
            3 => self.archived(),
            4 | 5 => self.moving(),
            6 => self.list(),
            _ => self.names(),
        }
    }

    /// A number below `limit`.
    fn draw(&mut self, limit: u64) -> u64 {
        // xorshift64.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn shared(&self, name: &str) -> PathBuf {
        self.mount.join("shared").join(name)
    }

    /// What is appended by one process is never torn apart by another.
    fn append(&mut self) {
        let mut log = OpenOptions::new()
            .append(true)
            .open(self.shared("log"))
            .unwrap();
        for _ in 0..5 {
            let mut record = format!("{} {} ", self.number, self.appended).into_bytes();
            record.resize(RECORD - 1, b'.');
            record.push(b'\n');
            log.write_all(&record).unwrap();
            self.appended += 1;
        }
    }

    /// Nobody counts while another has the lock.
    fn count(&mut self) {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.shared("counter"))
            .unwrap();
        rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let count: u64 = text.parse().unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        write!(file, "{}", count + 1).unwrap();
        self.counted += 1;
        rustix::fs::flock(&file, FlockOperation::Unlock).unwrap();
    }

    /// A file that is replaced by renaming is always there and always whole.
    fn replace_and_read(&mut self) {
        let current = self.shared("current");
        if self.draw(3) == 0 {
            let digit = b'0' + (self.number % 10) as u8;
            replace(&current, &vec![digit; 10_000]);
        }
        let contents = fs::read(&current).unwrap();
        assert_eq!(contents.len(), 10_000);
        assert!(contents.iter().all(|byte| *byte == contents[0]), "torn");
        assert_eq!(fs::metadata(&current).unwrap().len(), 10_000);
    }

    /// A job in a folder stays as it is.
    fn archived(&mut self) {
        let job = self.mount.join("jobs").join(TASK).join("archived");
        assert_eq!(fs::read(job.join("model.bin")).unwrap(), [7; 10_000]);
        let error = fs::write(job.join("new"), "x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    }

    /// A job that changes place is always there, has what it had, and no old version for long.
    fn moving(&mut self) {
        let which = self.draw(MOVING.len() as u64) as usize;
        let job = self.mount.join("jobs").join(TASK).join(MOVING[which]);
        let published = fs::read_to_string(self.top.join(MOVING[which])).unwrap();
        self.seen
            .push_back((Instant::now(), which, published.parse().unwrap()));
        match fs::read(job.join("model.bin")) {
            Ok(contents) => assert_eq!(contents, [7; 10_000]),
            Err(error) => moved_meanwhile(&error),
        }
        let read = fs::read_to_string(job.join("version"));
        let now = Instant::now();
        while let Some((at, of, version)) = self.seen.front().copied() {
            if now.duration_since(at) < SOON {
                break;
            }
            self.seen.pop_front();
            if let Ok(read) = &read
                && of == which
            {
                let read: u64 = read.parse().unwrap();
                assert!(
                    read >= version,
                    "{read} read {SOON:?} after {version} was published"
                );
            }
        }
        if let Err(error) = read {
            moved_meanwhile(&error);
        }
        match fs::symlink_metadata(&job) {
            Ok(meta) => assert!(meta.is_dir(), "{meta:?}"),
            Err(error) => moved_meanwhile(&error),
        }
    }

    /// Jobs that stay are listed, each once.
    fn list(&mut self) {
        let task = self.mount.join("jobs").join(TASK);
        let mut names: Vec<String> = fs::read_dir(task)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        // What goes and comes while a directory is read may be listed once, twice or not at all.
        names.retain(|name| !MOVING.contains(&name.as_str()));
        assert_eq!(names, ["archived"]);
        let mut few: Vec<_> = fs::read_dir(self.shared("names"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        few.sort();
        assert!(
            few.iter().all(|name| NAMES.iter().any(|one| name == one)),
            "{few:?}"
        );
    }

    /// Files and directories of the same few names come and go.
    fn names(&mut self) {
        let directory = self.shared("names");
        let a = directory.join(NAMES[self.draw(5) as usize]);
        let b = directory.join(NAMES[self.draw(5) as usize]);
        let result = match self.draw(10) {
            0 => fs::create_dir(&a),
            1 => fs::remove_dir(&a),
            2 => fs::remove_file(&a),
            3 => fs::rename(&a, &b),
            4 => fs::hard_link(&a, &b),
            5 => symlink("nowhere", &a),
            6 => fs::symlink_metadata(&a).map(drop),
            7 => rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE)
                .map_err(io::Error::from),
            8 => written_and_read(&a),
            _ => File::create_new(&a).map(drop),
        };
        if let Err(error) = result {
            let usual = [
                libc::ENOENT,
                libc::EEXIST,
                libc::ENOTDIR,
                libc::EISDIR,
                libc::ENOTEMPTY,
                libc::EINVAL,
                // A link to a directory, and removing one as a file.
                libc::EPERM,
            ];
            let number = error.raw_os_error().unwrap();
            assert!(
                usual.contains(&number),
                "{} {}: {error}",
                a.display(),
                b.display()
            );
        }
    }
}

/// What is written through an open file is read through it, whatever becomes of its name.
fn written_and_read(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).custom(path)?;
    let length = file.metadata()?.len();
    assert!(length <= 4, "{length}");
    file.write_all(b"four")?;
    file.seek(SeekFrom::Start(0))?;
    let mut contents = Vec::new();
    file.read_to_end(&mut contents)?;
    assert_eq!(contents, b"four");
    assert_eq!(file.metadata()?.len(), 4);
    Ok(())
}

/// Opening that does not follow symlinks.
trait NoFollow {
    fn custom(&mut self, path: &Path) -> io::Result<File>;
}

impl NoFollow for OpenOptions {
    fn custom(&mut self, path: &Path) -> io::Result<File> {
        use std::os::unix::fs::OpenOptionsExt;
        match self.custom_flags(libc::O_NOFOLLOW).open(path) {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                Err(io::Error::from_raw_os_error(libc::ENOENT))
            }
            result => result,
        }
    }
}

/// While a job goes from one place to the other, a disk has it nowhere for a moment.
fn moved_meanwhile(error: &io::Error) {
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
}

fn check_shared_files(mounted: &Mounted<'_>, workspace: &Workspace) {
    let shared = mounted.path().join("shared");
    let (mut appended, mut counted) = (0, 0);
    for number in 0..PROCESSES {
        let told = fs::read_to_string(workspace.top().join(format!("worker-{number}"))).unwrap();
        let (records, counts) = told.split_once(' ').unwrap();
        appended += records.parse::<usize>().unwrap();
        counted += counts.parse::<u64>().unwrap();
    }
    let log = fs::read(shared.join("log")).unwrap();
    assert_eq!(log.len(), appended * RECORD, "records are lost");
    for record in log.chunks(RECORD) {
        assert!(
            record.ends_with(b".\n"),
            "torn: {:?}",
            String::from_utf8_lossy(record)
        );
    }
    let count = fs::read_to_string(shared.join("counter")).unwrap();
    assert_eq!(count.parse::<u64>().unwrap(), counted);
    assert!(appended > 0 && counted > 0);
}

fn check_moved_jobs(mounted: &Mounted<'_>, versions: &[u64]) {
    for (hash, version) in MOVING.iter().zip(versions) {
        let job = mounted.job(TASK, hash);
        eventually("the last version of the job is seen", || {
            let read = fs::read_to_string(job.join("version"));
            read.is_ok_and(|read| read == version.to_string())
        });
        eventually("the job is served by the primary", || {
            mounted.location(&job) == "primary"
        });
    }
}

fn check_nothing_is_left(mounted: &Mounted<'_>, before: &Daemon) {
    fs::remove_dir_all(mounted.path().join("shared")).unwrap();
    // What there is, and a few that the kernel has not given up yet.
    let enough = before.nodes + 100;
    let mut after = Daemon::of(mounted);
    // A thread that waited for a disk is kept for a moment, for the next request that waits.
    let threads = before.footprint.threads + 4;
    eventually("files are closed, nodes forgotten, threads ended", || {
        after = Daemon::of(mounted);
        after.files == 0 && after.nodes <= enough && after.footprint.threads <= threads
    });
    common::say(&format!("before {before:?}\nafter  {after:?}"));
    // A few directories that are kept open on purpose, for each place.
    assert!(
        after.footprint.descriptors <= before.footprint.descriptors + 100,
        "{before:?} {after:?}"
    );
    assert!(
        after.footprint.kibibytes <= before.footprint.kibibytes + 64 * 1024,
        "{before:?} {after:?}"
    );
}

/// What a daemon holds.
#[derive(Debug)]
struct Daemon {
    nodes: u64,
    files: u64,
    footprint: Footprint,
}

impl Daemon {
    fn of(mounted: &Mounted<'_>) -> Daemon {
        let mount = mounts::top_at(mounted.path()).unwrap().unwrap();
        let mut client = Client::connect(mount.device, mount.owner()).unwrap();
        let status = client.request("status").unwrap();
        let count = |what: &str| status["service"]["counts"][what].as_u64().unwrap();
        Daemon {
            nodes: count("nodes"),
            files: count("files"),
            footprint: Footprint::of(client.pid().unwrap()),
        }
    }
}
