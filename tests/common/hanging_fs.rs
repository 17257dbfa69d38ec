//! A FUSE file system in the test's own process that shows a directory, read-only or with files that can be overwritten, and can be made
//! not to answer some or all requests, or to fail.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, SessionACL,
};

use super::is_mounted;

type Parked = Box<dyn FnOnce() + Send>;

/// Whether an operation on a path, relative to the top, is not answered.
type Holds = Box<dyn Fn(&str, &Path) -> bool + Send>;

/// Whether everything about a path, relative to the top, fails.
type Fails = Box<dyn Fn(&Path) -> bool + Send>;

/// What is not answered, and the replies that are held back.
#[derive(Default)]
struct Gate {
    holds: Option<Holds>,
    parked: Vec<Parked>,
    /// The error with which requests fail, and for which paths.
    error: Option<(i32, Fails)>,
}

/// Serves a directory.
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
    fn answer(
        &self,
        operation: &str,
        path: &Path,
        answer: impl FnOnce(Option<Errno>) + Send + 'static,
    ) {
        let mut gate = self.gate.lock().unwrap();
        let path = path.strip_prefix(&self.top).unwrap();
        let error = match &gate.error {
            Some((error, fails)) if fails(path) => Some(Errno::from_i32(*error)),
            _ => None,
        };
        match gate
            .holds
            .as_ref()
            .is_some_and(|holds| holds(operation, path))
        {
            true => gate.parked.push(Box::new(move || answer(None))),
            false => {
                drop(gate);
                answer(error);
            }
        }
    }

    /// Answers a request that returns nothing.
    fn answer_empty(&self, operation: &str, node: INodeNo, reply: ReplyEmpty) {
        self.answer(operation, &self.path(node), move |error| match error {
            Some(error) => reply.error(error),
            None => reply.ok(),
        });
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
        let found = self.attributes(&path);
        if let Some(found) = &found {
            self.paths.lock().unwrap().insert(found.ino.0, path.clone());
        }
        self.answer("lookup", &path, move |error| match (error, found) {
            (Some(error), _) => reply.error(error),
            (None, Some(found)) => reply.entry(&Duration::ZERO, &found, Generation(0)),
            (None, None) => reply.error(Errno::ENOENT),
        });
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let path = self.path(node);
        let found = self.attributes(&path);
        self.answer("getattr", &path, move |error| match (error, found) {
            (Some(error), _) => reply.error(error),
            (None, Some(found)) => reply.attr(&Duration::ZERO, &found),
            (None, None) => reply.error(Errno::ENOENT),
        });
    }

    fn open(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.answer("open", &self.path(node), move |error| match error {
            Some(error) => reply.error(error),
            None => reply.opened(FileHandle(0), fuser::FopenFlags::empty()),
        });
    }

    fn opendir(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.answer("opendir", &self.path(node), move |error| match error {
            Some(error) => reply.error(error),
            None => reply.opened(FileHandle(0), fuser::FopenFlags::empty()),
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
        let file = path.clone();
        self.answer("read", &path, move |error| {
            let mut buffer = vec![0; size as usize];
            let read = File::open(file).and_then(|file| file.read_at(&mut buffer, offset));
            match (error, read) {
                (Some(error), _) => reply.error(error),
                (None, Ok(count)) => reply.data(&buffer[..count]),
                (None, Err(_)) => reply.error(Errno::EIO),
            }
        });
    }

    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: fuser::WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let path = self.path(node);
        let (file, data) = (path.clone(), data.to_owned());
        self.answer("write", &path, move |error| {
            let file = File::options().write(true).open(file);
            let written = file.and_then(|file| file.write_all_at(&data, offset));
            match (error, written) {
                (Some(error), _) => reply.error(error),
                (None, Ok(())) => reply.written(u32::try_from(data.len()).unwrap()),
                (None, Err(_)) => reply.error(Errno::EIO),
            }
        });
    }

    fn flush(&self, _: &Request, node: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.answer_empty("flush", node, reply);
    }

    fn fsync(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.answer_empty("fsync", node, reply);
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.answer_empty("fsync", node, reply);
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
        self.answer_empty("flock", node, reply);
    }

    fn readdir(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let path = self.path(node);
        let entries = fs::read_dir(&path).into_iter().flatten().flatten();
        let found: Vec<_> = entries
            .filter_map(|entry| Some((self.attributes(&entry.path())?, entry.file_name())))
            .collect();
        self.answer("readdir", &path, move |error| {
            if let Some(error) = error {
                return reply.error(error);
            }
            let offset = usize::try_from(offset).unwrap();
            for (at, (about, name)) in found.into_iter().enumerate().skip(offset) {
                if reply.add(about.ino, at as u64 + 1, about.kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }
}

/// A mount of the file system, which answers everything until it is told otherwise, and when it is dropped.
pub struct HangingFs {
    pub at: PathBuf,
    gate: Arc<Mutex<Gate>>,
    session: Option<BackgroundSession>,
    /// Ends the thread that lets it go on in the end.
    _ends: Sender<()>,
}

/// After this time, everything is answered: processes that wait for the file system, and the test itself, could not be killed.
const LIFE: Duration = Duration::from_secs(120);

impl Gate {
    /// Answers everything that was held back, and everything from now on.
    fn open(gate: &Mutex<Gate>) {
        let parked = {
            let mut gate = gate.lock().unwrap();
            gate.holds = None;
            gate.error = None;
            std::mem::take(&mut gate.parked)
        };
        parked.into_iter().for_each(|answer| answer());
    }
}

impl HangingFs {
    /// Shows `disk` at `at`, to all users.
    pub fn mount(disk: &Path, at: &Path) -> HangingFs {
        HangingFs::mount_with(disk, at, MountOption::RO)
    }

    /// As [`HangingFs::mount`]; files can be overwritten.
    pub fn mount_writable(disk: &Path, at: &Path) -> HangingFs {
        HangingFs::mount_with(disk, at, MountOption::RW)
    }

    fn mount_with(disk: &Path, at: &Path, access: MountOption) -> HangingFs {
        fs::create_dir_all(at).unwrap();
        let gate = Arc::new(Mutex::new(Gate::default()));
        let server = Server {
            top: disk.to_owned(),
            paths: Mutex::default(),
            gate: gate.clone(),
        };
        let mut config = Config::default();
        config.mount_options = vec![access, MountOption::FSName("hanging".to_owned())];
        if rustix::process::geteuid().is_root() {
            config.acl = SessionACL::All;
        }
        let session = fuser::spawn_mount(server, at, &config).unwrap();
        let (_ends, end) = channel::<()>();
        let opened = gate.clone();
        std::thread::spawn(move || {
            if end.recv_timeout(LIFE) == Err(RecvTimeoutError::Timeout) {
                eprintln!("a folder has hung for too long");
                Gate::open(&opened);
            }
        });
        assert!(is_mounted(at));
        HangingFs {
            at: at.to_owned(),
            gate,
            session: Some(session),
            _ends,
        }
    }

    /// Answers no request for which `holds` is true: it is called with the operation and the path, relative to the top.
    pub fn hold(&self, holds: impl Fn(&str, &Path) -> bool + Send + 'static) {
        self.gate.lock().unwrap().holds = Some(Box::new(holds));
    }

    /// Answers nothing.
    pub fn hang(&self) {
        self.hold(|_, _| true);
    }

    /// How many requests are not answered.
    pub fn parked(&self) -> usize {
        self.gate.lock().unwrap().parked.len()
    }

    /// Fails everything with an error, or nothing any more.
    pub fn fail(&self, error: Option<i32>) {
        let everything: Fails = Box::new(|_| true);
        self.gate.lock().unwrap().error = error.map(|error| (error, everything));
    }

    /// Fails everything about the paths for which `fails` is true.
    pub fn fail_at(&self, error: i32, fails: impl Fn(&Path) -> bool + Send + 'static) {
        self.gate.lock().unwrap().error = Some((error, Box::new(fails)));
    }

    /// Answers everything that was held back, and everything from now on.
    pub fn go_on(&self) {
        Gate::open(&self.gate);
    }
}

impl Drop for HangingFs {
    fn drop(&mut self) {
        // Callers that wait for it are answered.
        self.go_on();
        drop(self.session.take());
        // After a failure, callers may still have files open there.
        if is_mounted(&self.at) {
            let _ = Command::new("umount").arg("-l").arg(&self.at).output();
        }
    }
}
