//! A file system with one file, to be served by the daemon's code.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, Request,
};
use xpmfs::daemon::{Kept, Service, StatusSource};
use xpmfs::sys::deadline::wait_until;

use crate::stage::LIMIT;

/// The file's name.
pub(crate) const NAME: &str = "file";
/// What is in it.
pub(crate) const CONTENT: &[u8] = b"all of it";

/// What goes wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    /// The root's attributes are never told.
    HangsInGetattr,
    /// Serving fails before the kernel is greeted.
    FailsToServe,
    /// The process dies before the kernel is greeted.
    DiesBeforeReady,
    /// When it is unmounted, the process stays until there is a file `go` in the primary.
    Lingers,
}

pub(crate) struct OneFile {
    primary: File,
    fault: Fault,
}

impl OneFile {
    pub(crate) fn new(primary: &Path, fault: Fault) -> Self {
        Self {
            primary: File::open(primary).unwrap(),
            fault,
        }
    }
}

impl Service for OneFile {
    fn serve(&self, kept: Kept, ready: &dyn Fn()) -> io::Result<()> {
        match self.fault {
            Fault::FailsToServe => return Err(io::Error::other("the service is on strike")),
            Fault::DiesBeforeReady => std::process::abort(),
            _ => {}
        }
        let mut config = Config::default();
        config.n_threads = Some(2);
        let files = Files { fault: self.fault };
        let (session, _) = kept.connection.session(files, config)?;
        ready();
        session.run()
    }

    fn stop(&self) {
        let flags = rustix::fs::AtFlags::empty();
        let may_go = || rustix::fs::statat(&self.primary, "go", flags).is_ok();
        if self.fault == Fault::Lingers {
            wait_until(4 * LIMIT, may_go);
        }
    }
}

impl StatusSource for OneFile {
    fn status(&self) -> serde_json::Value {
        serde_json::json!({"files": 1})
    }

    fn primary(&self) -> BorrowedFd<'_> {
        self.primary.as_fd()
    }
}

struct Files {
    fault: Fault,
}

const FILE: INodeNo = INodeNo(2);

fn attributes(ino: INodeNo) -> FileAttr {
    let root = ino == INodeNo::ROOT;
    FileAttr {
        ino,
        size: if root { 0 } else { CONTENT.len() as u64 },
        blocks: 1,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if root {
            FileType::Directory
        } else {
            FileType::RegularFile
        },
        perm: if root { 0o755 } else { 0o644 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        blksize: 512,
    }
}

const TTL: Duration = Duration::from_secs(1);

impl Filesystem for Files {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&TTL, &attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if self.fault == Fault::HangsInGetattr {
            std::mem::forget(reply);
        } else {
            reply.attr(&TTL, &attributes(ino));
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let start = CONTENT.len().min(offset as usize);
        let end = CONTENT.len().min(start + size as usize);
        reply.data(&CONTENT[start..end]);
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        if offset == 0 {
            let _ = reply.add(FILE, 1, FileType::RegularFile, NAME);
        }
        reply.ok();
    }
}
