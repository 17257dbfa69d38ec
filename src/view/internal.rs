//! The internal files of a job that a folder serves: in `<primary>/.xpmfs/internal/<task_id>/<hash>/`, laid out as in the
//! job.
//!
//! experimaestro opens and locks `<name>.lock` in every job of a plan that is run again. Because these files are separate,
//! such a run over archived jobs neither changes an archive nor copies one back.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::{Errno, Result};

use super::View;
use crate::sys::name::Name;
use crate::sys::{at, shared_dir};
use crate::workspace::internal::{Class, classify, classify_nested, is_bookkeeping};
use crate::workspace::{jobs, layout};

/// The file in the primary's `.xpmfs` whose lock is an [`InternalGate`].
const GATE: &str = "internal.lock";

/// How long to wait for the gate. A process holds it for a moment only, unless it was stopped.
const GATE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often to try meanwhile.
const GATE_POLL: Duration = Duration::from_millis(2);

/// Keeps an internal file of a job from being created while the job is published in the primary, by any process of any node.
///
/// The published job gets the internal files that exist. One that is created after the last look at them, by a process that has not seen
/// the job in the primary, would not be the job's: a program could lock it while another one locks the file of that name in the job.
#[derive(Debug)]
pub struct InternalGate {
    /// Holds the lock, if it could be taken.
    _file: Option<OwnedFd>,
}

/// A directory of a job that can have internal files in it.
#[derive(Debug, Clone)]
pub struct JobDir {
    /// The job's task.
    pub task: Name,
    /// The job's hash.
    pub hash: Name,
    /// Whether it is `.experimaestro/` in the job, where older layouts have the lock, and not the
    /// job's own directory.
    pub nested: bool,
}

impl JobDir {
    /// Whether an entry is an internal file; `directory`: it is a directory; `size`: in bytes.
    pub fn is_internal(&self, name: &OsStr, directory: bool, size: Option<u64>) -> bool {
        let job = jobs::name(&self.task).as_bytes();
        if !self.nested {
            return classify(name.as_bytes(), job, directory, size).is_internal();
        }
        let bookkeeping = !directory && is_bookkeeping(name.as_bytes());
        bookkeeping || classify_nested(name.as_bytes(), job, directory, size).is_internal()
    }

    /// Whether an internal file is one only as long as it is empty: a `*.lock` with content is the
    /// user's data, such as `uv.lock`.
    pub fn is_only_while_empty(&self, name: &OsStr) -> bool {
        let job = jobs::name(&self.task).as_bytes();
        let classify = match self.nested {
            true => classify_nested,
            false => classify,
        };
        classify(name.as_bytes(), job, false, None) == Class::EmptyLock
    }

    /// The directory of its internal files, from the top of the primary.
    fn path(&self) -> impl Iterator<Item = &OsStr> + Clone {
        let nested = self.nested.then_some(OsStr::new(layout::JOB_STATE));
        [
            layout::XPMFS.as_ref(),
            layout::INTERNAL_DIR.as_ref(),
            &*self.task,
            &*self.hash,
        ]
        .into_iter()
        .chain(nested)
    }
}

impl View {
    /// Waits until no process publishes a job, and lets none do so while the gate is held: to look whether the primary has a job, and to
    /// create an internal file of it if not.
    #[must_use]
    pub fn open_gate(&self) -> InternalGate {
        self.gate(FlockOperation::NonBlockingLockShared)
    }

    /// Waits until no process creates an internal file, and lets none do so while the gate is held: to give a job all of them, and to
    /// publish it.
    #[must_use]
    pub fn close_gate(&self) -> InternalGate {
        self.gate(FlockOperation::NonBlockingLockExclusive)
    }

    /// Takes the lock, if that is possible in time: a disk without locks, or a stopped process, must not keep jobs from being used.
    fn gate(&self, operation: FlockOperation) -> InternalGate {
        let deadline = Instant::now() + GATE_TIMEOUT;
        let locked = self.gate_file().and_then(|file| {
            loop {
                match flock(&file, operation) {
                    Ok(()) => return Ok(file),
                    Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                        std::thread::sleep(GATE_POLL);
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                }
            }
        });
        let locked = locked.inspect_err(|error| {
            tracing::debug!("cannot lock {} in the primary: {error}", GATE);
        });
        InternalGate { _file: locked.ok() }
    }

    fn gate_file(&self) -> Result<OwnedFd> {
        let root = self.primary().root()?;
        let path = Path::new(layout::XPMFS).join(GATE);
        let open = |flags: OFlags| at::open_below(root.fd(), &path, flags);
        match open(OFlags::RDWR) {
            Err(Errno::NOENT) => {}
            // An exclusive lock on NFS is not possible with this descriptor.
            Err(Errno::ACCESS) => return open(OFlags::RDONLY),
            opened => return opened,
        }
        let own = rustix::fs::fstat(root.fd())?;
        let rights = Mode::from_raw_mode(own.st_mode & 0o7777);
        let name = OsStr::new(layout::XPMFS);
        let dir = shared_dir::make_shared(root.fd(), name, own.st_gid, rights)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match rustix::fs::openat(&dir, GATE, flags, Mode::RUSR | Mode::WUSR) {
            Ok(made) => {
                let rights = Mode::from_raw_mode(own.st_mode & 0o666) | Mode::RUSR | Mode::WUSR;
                shared_dir::share(&made, own.st_gid, rights)?;
                Ok(made)
            }
            Err(Errno::EXIST) => open(OFlags::RDWR),
            Err(error) => Err(error),
        }
    }

    /// The directory of a job's internal files, if it has been made.
    ///
    /// # Errors
    ///
    /// An error of the primary's file system, except that it is missing.
    pub fn internal_dir(&self, holder: &JobDir) -> Result<Option<OwnedFd>> {
        let root = self.primary().root()?;
        at::absent(shared_dir::open_shared(root.fd(), holder.path()))
    }

    /// The directory of a job's internal files, made if missing, with the mode of the primary's own directory: users who may
    /// write to the workspace may lock its jobs.
    ///
    /// # Errors
    ///
    /// An error of the primary's file system.
    pub fn make_internal_dir(&self, holder: &JobDir) -> Result<OwnedFd> {
        let root = self.primary().root()?;
        let own = rustix::fs::fstat(root.fd())?;
        let rights = Mode::from_raw_mode(own.st_mode & 0o7777);
        let mut dir = rustix::io::fcntl_dupfd_cloexec(root.fd(), 0)?;
        for name in holder.path() {
            // If another process is making the parent, its group may not be the workspace's yet.
            dir = shared_dir::make_shared(&dir, name, own.st_gid, rights)?;
        }
        Ok(dir)
    }

    /// The directory of all jobs' internal files.
    ///
    /// # Errors
    ///
    /// An error of the primary's file system.
    pub fn internal_top(&self) -> Result<OwnedFd> {
        let root = self.primary().root()?;
        let names = [layout::XPMFS, layout::INTERNAL_DIR].map(OsStr::new);
        shared_dir::open_shared(root.fd(), names.into_iter())
    }
}
