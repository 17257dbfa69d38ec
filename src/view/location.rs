//! The primary and the folders: opened, watched, reopened.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::RwLock;
use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::{Errno, Result};

use super::{FolderSpec, PRIMARY, beneath};
use crate::settings::Mode;

/// What a location is to its workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The workspace's own directory.
    Primary,
    /// A folder.
    Folder(Mode),
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Role::Primary => f.write_str("primary"),
            Role::Folder(mode) => mode.fmt(f),
        }
    }
}

/// One directory that jobs are served from.
#[derive(Debug)]
pub struct Location {
    index: u8,
    role: Role,
    path: PathBuf,
    state: RwLock<State>,
}

/// What is known of a location's directory.
#[derive(Debug, Clone)]
enum State {
    Open(Arc<Root>),
    Closed(Errno),
}

/// A location's directory, open.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    identity: (u64, u64),
    jobs: Jobs,
    /// The absolute paths under which symlinks may name its jobs directory.
    jobs_paths: Vec<PathBuf>,
}

/// Where a location's jobs directory is.
#[derive(Debug)]
enum Jobs {
    /// `jobs` in it, opened anew each time: it may be made and removed while we run.
    Inside,
    /// The location's path names the jobs directory itself.
    Itself,
    /// `jobs` in it was a symlink to a directory when it was opened.
    Linked(OwnedFd),
}

/// How a location does, for `status`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct LocationStatus {
    /// `primary`, `use`, `backup` or `move`.
    pub mode: String,
    /// Its directory.
    pub path: PathBuf,
    /// `ok`, or what is the matter.
    pub state: String,
    /// Bytes that an ordinary user may still write there, if known.
    pub free: Option<u64>,
    /// Bytes in all, if known.
    pub total: Option<u64>,
}

impl Location {
    /// Opens the primary by its path.
    pub(super) fn primary(path: &Path) -> Result<Location> {
        Location::primary_from(path, open_path(path)?)
    }

    /// The primary, from a descriptor that the caller has opened.
    pub(super) fn primary_from(path: &Path, fd: OwnedFd) -> Result<Location> {
        let root = Root::new(fd, path, None)?;
        Ok(Location {
            index: PRIMARY,
            role: Role::Primary,
            path: path.to_owned(),
            state: RwLock::new(State::Open(Arc::new(root))),
        })
    }

    /// A folder; whether it could be opened is kept with it.
    pub(super) fn folder(index: u8, spec: &FolderSpec) -> Location {
        let location = Location {
            index,
            role: Role::Folder(spec.mode),
            path: spec.path.clone(),
            state: RwLock::new(State::Closed(Errno::NOENT)),
        };
        location.refresh();
        location
    }

    /// Its number in the view: 0 is the primary.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// What it is to the workspace.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its path, as in the settings.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `user.xpmfs.location` says of what is served from here: `primary`, or the mode and
    /// the path.
    pub fn label(&self) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        match self.role {
            Role::Primary => b"primary".to_vec(),
            Role::Folder(mode) => {
                let mut label = mode.to_string().into_bytes();
                label.push(b':');
                label.extend_from_slice(self.path.as_os_str().as_bytes());
                label
            }
        }
    }

    /// Its directory, if it could be opened.
    ///
    /// # Errors
    ///
    /// What the last attempt to open it gave.
    pub fn root(&self) -> Result<Arc<Root>> {
        match &*self.state.read() {
            State::Open(root) => Ok(root.clone()),
            State::Closed(error) => Err(*error),
        }
    }

    /// Looks at the folder's path again, and opens what is there now if that is something else.
    /// Returns whether anything has changed. Never called for the primary, whose path may lead
    /// into the mount.
    fn refresh(&self) -> bool {
        let was = self.state.read().clone();
        let now = match rustix::fs::stat(&self.path) {
            Err(error) => State::Closed(error),
            Ok(stat) => match &was {
                // Held open: an inode number that is in use cannot be another directory's.
                State::Open(root) if root.identity == (stat.st_dev, stat.st_ino) => return false,
                _ => match open_path(&self.path).and_then(|fd| Root::new(fd, &self.path, Some(())))
                {
                    Ok(root) => State::Open(Arc::new(root)),
                    Err(error) => State::Closed(error),
                },
            },
        };
        let changed = match (&was, &now) {
            (State::Closed(before), State::Closed(after)) => before != after,
            _ => true,
        };
        match (&was, &now) {
            (_, State::Open(_)) => {
                tracing::info!(folder = %self.path.display(), "folder is there");
            }
            (_, State::Closed(error)) if changed => {
                tracing::warn!(folder = %self.path.display(), %error, "folder is not there");
            }
            _ => {}
        }
        *self.state.write() = now;
        changed
    }

    /// How it does. Asks the file system for its free space, which may block.
    pub fn status(&self) -> LocationStatus {
        let root = self.root();
        let space = root
            .as_ref()
            .ok()
            .and_then(|root| rustix::fs::fstatvfs(&root.fd).ok());
        LocationStatus {
            mode: self.role.to_string(),
            path: self.path.clone(),
            state: match root {
                Ok(_) => "ok".to_owned(),
                Err(Errno::NOENT) => "missing".to_owned(),
                Err(error) => std::io::Error::from(error).to_string(),
            },
            free: space.as_ref().map(|s| s.f_bavail * s.f_frsize),
            total: space.as_ref().map(|s| s.f_blocks * s.f_frsize),
        }
    }
}

/// Watches a folder from a thread of its own until its view is gone.
pub(super) fn watch(folder: Weak<Location>, interval: Duration) {
    let spawned = std::thread::Builder::new()
        .name("xpmfs-folder".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(interval);
                match folder.upgrade() {
                    Some(folder) => folder.refresh(),
                    None => return,
                };
            }
        });
    if let Err(error) = spawned {
        tracing::error!(%error, "cannot watch a folder: starting a thread failed");
    }
}

impl Root {
    /// Takes a location's open directory. A folder may name its jobs directory itself.
    fn new(fd: OwnedFd, path: &Path, folder: Option<()>) -> Result<Root> {
        let stat = rustix::fs::fstat(&fd)?;
        let inside = beneath::absent(beneath::stat(&fd, OsStr::new("jobs")))?;
        let itself = folder.is_some() && inside.is_none() && path.ends_with("jobs");
        let jobs = if itself {
            Jobs::Itself
        } else if inside.as_ref().is_some_and(beneath::is_symlink) {
            // Followed once, while our own mount cannot be in the way yet.
            match rustix::fs::openat(&fd, "jobs", OPEN_PATH, FileMode::empty()) {
                Ok(jobs) => Jobs::Linked(jobs),
                Err(_) => Jobs::Inside,
            }
        } else {
            Jobs::Inside
        };
        let mut jobs_paths = Vec::new();
        // A folder is opened again while the mount runs; its path leads around the mount, since
        // the settings refuse a folder inside the primary. The primary's is canonical already.
        let canonical = match folder {
            Some(()) => path.canonicalize().ok(),
            None => None,
        };
        for base in [Some(path.to_owned()), canonical].into_iter().flatten() {
            let jobs_path = if itself { base } else { base.join("jobs") };
            if !jobs_paths.contains(&jobs_path) {
                jobs_paths.push(jobs_path);
            }
        }
        Ok(Root {
            identity: (stat.st_dev, stat.st_ino),
            fd,
            jobs,
            jobs_paths,
        })
    }

    /// The directory's descriptor (`O_PATH`).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A descriptor of its jobs directory.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it has none; what `openat` gives.
    pub fn jobs(&self) -> Result<OwnedFd> {
        match &self.jobs {
            Jobs::Inside => beneath::open_dir(&self.fd, OsStr::new("jobs")),
            Jobs::Itself => rustix::io::fcntl_dupfd_cloexec(&self.fd, 0),
            Jobs::Linked(fd) => rustix::io::fcntl_dupfd_cloexec(fd, 0),
        }
    }

    /// A descriptor of the directory of a task's jobs.
    ///
    /// # Errors
    ///
    /// `ENOENT` or `ENOTDIR` if it has none; what `openat` gives.
    pub fn task(&self, task: &OsStr) -> Result<OwnedFd> {
        match &self.jobs {
            Jobs::Inside => beneath::open_dir(self.jobs()?, task),
            Jobs::Itself => beneath::open_dir(&self.fd, task),
            Jobs::Linked(fd) => beneath::open_dir(fd, task),
        }
    }

    /// The absolute paths under which a symlink may name its jobs directory.
    pub fn jobs_paths(&self) -> &[PathBuf] {
        &self.jobs_paths
    }
}

const OPEN_PATH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a location by its path, following symlinks: the settings are to be trusted.
fn open_path(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OPEN_PATH, FileMode::empty())
}
