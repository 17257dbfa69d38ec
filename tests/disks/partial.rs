//! A folder that answers only some requests: a call that it does not answer delays no other.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, Request,
};

use rustix::fs::{AtFlags, FlockOperation, StatxFlags};

use crate::common::footprint::Footprint;
use crate::common::{Workspace, is_mounted, job};

/// No call that the folder answers may take longer, on a busy machine.
const PROMPT: Duration = Duration::from_secs(30);

/// A call that the folder does not answer must fail after this time: 15 s, and some on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(45);

/// Callers that wait at the same time: more than the daemon has threads for requests.
const CALLERS: usize = 20;

/// The daemon's threads for requests.
const LOOP_THREADS: usize = 8;

const SLOW: &str = "slow-";

/// The threads that may be left when no request waits any more.
const THREADS_LEFT: u64 = 4;

type Parked = Box<dyn FnOnce() + Send>;

/// What is not answered, and the replies that are held back.
#[derive(Default)]
struct Gate {
    /// The operation that is not answered for files whose names begin with [`SLOW`].
    closed: Option<&'static str>,
    parked: Vec<Parked>,
}

/// Serves a directory read-only.
struct Server {
    top: PathBuf,
    paths: Mutex<HashMap<u64, PathBuf>>,
    gate: Arc<Mutex<Gate>>,
}

impl Server {
    fn path(&self, node: INodeNo) -> PathBuf {
        let paths = self.paths.lock().unwrap();
        paths.get(&node.0).unwrap_or(&self.top).clone()
    }

    /// Answers now, or when the gate is opened.
    fn answer(&self, operation: &str, node: INodeNo, answer: impl FnOnce() + Send + 'static) {
        let path = self.path(node);
        let mut gate = self.gate.lock().unwrap();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let waits = gate.closed == Some(operation) && name.starts_with(SLOW);
        match waits {
            true => gate.parked.push(Box::new(answer)),
            false => {
                drop(gate);
                answer();
            }
        }
    }

    fn attributes(&self, path: &Path) -> Option<FileAttr> {
        let meta = fs::symlink_metadata(path).ok()?;
        let kind = match (meta.is_dir(), meta.is_symlink()) {
            (true, _) => FileType::Directory,
            (_, true) => FileType::Symlink,
            _ => FileType::RegularFile,
        };
        let number = match path == self.top {
            true => 1,
            false => meta.ino(),
        };
        Some(FileAttr {
            ino: INodeNo(number),
            size: meta.len(),
            blocks: meta.blocks(),
            atime: meta.accessed().unwrap(),
            mtime: meta.modified().unwrap(),
            ctime: meta.modified().unwrap(),
            crtime: meta.modified().unwrap(),
            kind,
            perm: u16::try_from(meta.permissions().mode() & 0o7777).unwrap(),
            nlink: 1,
            uid: meta.uid(),
            gid: meta.gid(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Locks are sent to the server.
        let _ = config.add_capabilities(InitFlags::FUSE_FLOCK_LOCKS);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let path = self.path(parent).join(name);
        match self.attributes(&path) {
            Some(found) => {
                self.paths.lock().unwrap().insert(found.ino.0, path);
                reply.entry(&Duration::ZERO, &found, Generation(0));
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.attributes(&self.path(node));
        self.answer("getattr", node, move || match found {
            Some(found) => reply.attr(&Duration::ZERO, &found),
            None => reply.error(Errno::ENOENT),
        });
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let path = self.path(node);
        self.answer("read", node, move || {
            let mut buffer = vec![0; size as usize];
            let read = File::open(path).and_then(|file| file.read_at(&mut buffer, offset));
            match read {
                Ok(count) => reply.data(&buffer[..count]),
                Err(_) => reply.error(Errno::EIO),
            }
        });
    }

    fn flush(&self, _: &Request, node: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.answer("flush", node, move || reply.ok());
    }

    fn fsync(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.answer("fsync", node, move || reply.ok());
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.answer("fsync", node, move || reply.ok());
    }

    fn setlk(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        _: LockOwner,
        _: u64,
        _: u64,
        _: i32,
        _: u32,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.answer("flock", node, move || reply.ok());
    }

    fn readdir(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let found = fs::read_dir(self.path(node))
            .into_iter()
            .flatten()
            .flatten();
        for (at, entry) in found.enumerate().skip(usize::try_from(offset).unwrap()) {
            let Some(about) = self.attributes(&entry.path()) else {
                continue;
            };
            let next = at as u64 + 1;
            if reply.add(about.ino, next, about.kind, entry.file_name()) {
                break;
            }
        }
        reply.ok();
    }
}

/// A folder that can be made not to answer an operation on files of one name.
struct Served {
    at: PathBuf,
    gate: Arc<Mutex<Gate>>,
    session: Option<BackgroundSession>,
}

impl Served {
    fn new(workspace: &Workspace, disk: &Path) -> Served {
        let at = workspace.top().join("served");
        fs::create_dir(&at).unwrap();
        let gate = Arc::new(Mutex::new(Gate::default()));
        let server = Server {
            top: disk.to_owned(),
            paths: Mutex::default(),
            gate: gate.clone(),
        };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::RO, MountOption::FSName("partial".to_owned())];
        let session = fuser::spawn_mount(server, &at, &config).unwrap();
        assert!(is_mounted(&at));
        Served {
            at,
            gate,
            session: Some(session),
        }
    }

    fn close(&self, operation: &'static str) {
        self.gate.lock().unwrap().closed = Some(operation);
    }

    fn parked(&self) -> usize {
        self.gate.lock().unwrap().parked.len()
    }

    fn open(&self) {
        let parked = {
            let mut gate = self.gate.lock().unwrap();
            gate.closed = None;
            std::mem::take(&mut gate.parked)
        };
        parked.into_iter().for_each(|answer| answer());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Whoever waits for it is answered.
        self.open();
        drop(self.session.take());
        // After a failure, callers may still have files open there.
        if is_mounted(&self.at) {
            let _ = Command::new("umount").arg("-l").arg(&self.at).output();
        }
    }
}

/// Runs `call` in a thread, and returns its result, which must come in time.
fn timely<T: Send + 'static>(
    what: &str,
    limit: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (result, comes) = channel();
    std::thread::spawn(move || result.send(call()));
    comes
        .recv_timeout(limit)
        .unwrap_or_else(|_| panic!("{what} did not end in time"))
}

/// What many callers do at the same time, each with an open file of its own, and with a directory in the primary.
type Call = fn(&File, &Path) -> std::io::Result<()>;

/// Calls that the folder does not answer: the operation that it is asked for, and whether the call fails with
/// `ETIMEDOUT`. If not, it ends when the folder answers.
const CALLS: [(&str, Call, bool); 5] = [
    (
        "read",
        |mut file, _| file.read_to_end(&mut Vec::new()).map(drop),
        false,
    ),
    ("getattr", |file, _| ask_attributes(file), true),
    ("fsync", |file, _| file.sync_all(), true),
    (
        "flock",
        |file, _| Ok(rustix::fs::flock(file, FlockOperation::LockShared)?),
        false,
    ),
    ("read", copy_a_part, false),
];

fn ask_attributes(file: &File) -> std::io::Result<()> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    rustix::fs::statx(file, "", flags, StatxFlags::BASIC_STATS)?;
    Ok(())
}

fn copy_a_part(file: &File, to: &Path) -> std::io::Result<()> {
    let to = tempfile::tempfile_in(to)?;
    let copied = rustix::fs::copy_file_range(file, None, &to, None, 100)?;
    assert_eq!(copied, 100);
    Ok(())
}

#[test]
fn a_request_that_a_folder_does_not_answer_delays_no_other() {
    let workspace = Workspace::new();
    let disk = workspace.top().join("disk");
    for number in 0..2 {
        job::write(&disk.join(job::path(number)), number);
    }
    job::write(&workspace.primary().join(job::path(2)), 2);
    for caller in 0..CALLERS {
        fs::write(disk.join(job::path(0)).join(slow(caller)), vec![7; 5000]).unwrap();
    }
    let served = Served::new(&workspace, &disk);
    workspace.with_folders(&[]);
    workspace.attach("use", &served.at);
    let mountpoint = workspace.mountpoint("elsewhere");
    // Without passthrough, the kernel sends reads to the daemon.
    let mounted = workspace.mount_with(&mountpoint, &["-o", "noatime"]);
    let daemon = daemon(&workspace, mounted.path());
    for (round, (operation, call, fails)) in CALLS.into_iter().enumerate() {
        let what = format!("{operation} (round {round})");
        let before = Footprint::of(daemon).threads;
        let (results, ended) = channel();
        let open = |caller| File::open(mountpoint.join(job::path(0)).join(slow(caller))).unwrap();
        let files: Vec<File> = (0..CALLERS).map(open).collect();
        served.close(operation);
        for file in files {
            let (results, to) = (results.clone(), mountpoint.clone());
            std::thread::spawn(move || results.send(call(&file, &to)));
        }
        until(&format!("{what}: the folder is asked"), || {
            served.parked() >= LOOP_THREADS
        });
        elsewhere(&mountpoint, &what, round);
        if fails {
            for _ in 0..CALLERS {
                let error = ended.recv_timeout(TIMEOUT).expect(&what).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT), "{what}");
            }
        }
        assert!(Footprint::of(daemon).threads <= before + 2 * CALLERS as u64);
        served.open();
        if !fails {
            for _ in 0..CALLERS {
                ended.recv_timeout(PROMPT).expect(&what).expect(&what);
            }
        }
        expect_threads(daemon, before);
    }
    many_callers(&mountpoint, daemon);
}

fn slow(caller: usize) -> String {
    format!("{SLOW}{caller}")
}

fn daemon(workspace: &Workspace, mountpoint: &Path) -> i64 {
    let mut command = workspace.xpmfs();
    let output = command
        .args(["--json", "status"])
        .arg(mountpoint)
        .output()
        .unwrap();
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    status["mounts"][0]["pid"].as_i64().unwrap()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PROMPT;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a process has few more threads than before.
fn expect_threads(process: i64, before: u64) {
    until("the threads have ended", || {
        Footprint::of(process).threads <= before + THREADS_LEFT
    });
}

/// Uses what the folder answers, and the primary.
fn elsewhere(mountpoint: &Path, what: &str, round: usize) {
    let at = mountpoint.to_owned();
    timely(&format!("elsewhere during {what}"), PROMPT, move || {
        for number in 1..3 {
            let job = at.join(job::path(number));
            let model = fs::read(job.join("train.out")).unwrap();
            assert_eq!(model, b"step 1\nstep 2\n");
            assert!(fs::read_dir(&job).unwrap().count() > 5);
        }
        assert_eq!(
            fs::read_dir(at.join("jobs").join(job::TASK))
                .unwrap()
                .count(),
            3
        );
        fs::write(at.join(format!("new-{round}")), "new").unwrap();
    });
}

/// Many callers of a folder that answers all get their answers, and no thread is left.
fn many_callers(mountpoint: &Path, daemon: i64) {
    let before = Footprint::of(daemon).threads;
    std::thread::scope(|scope| {
        for caller in 0..100 {
            scope.spawn(move || {
                for round in 0..20 {
                    let number = (caller + round) % 2;
                    let job = mountpoint.join(job::path(number));
                    let file = File::open(job.join("model.bin")).unwrap();
                    rustix::fs::flock(&file, FlockOperation::LockShared).unwrap();
                    file.sync_all().unwrap();
                    assert_eq!(fs::read(job.join("model.bin")).unwrap(), job::model(number));
                }
            });
        }
    });
    expect_threads(daemon, before);
}
