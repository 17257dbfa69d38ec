//! A location's open directory, and its jobs directory.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode as FileMode, OFlags, Statx, StatxFlags};
use rustix::io::{Errno, Result};

use super::health::{Seen, is_device_error};
use super::task_dirs::TaskDirs;
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::view::walk;
use crate::workspace::layout;

/// A location's directory, open.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    identity: FileId,
    jobs: Jobs,
    /// The absolute paths under which symlinks may name its jobs directory.
    jobs_paths: Vec<PathBuf>,
    kept: TaskDirs,
    /// The identity of its jobs directory when that was last opened.
    known_jobs: Mutex<Option<FileId>>,
}

/// Where a location's jobs directory is.
#[derive(Debug)]
enum Jobs {
    /// `jobs` in it, opened anew each time: it may be made and removed while the view is used.
    Inside,
    /// The location's path names the jobs directory itself.
    Itself,
    /// `jobs` in it was a symlink to a directory when it was opened.
    Linked(OwnedFd),
}

impl Root {
    /// Takes a location's open directory. A folder, whose path without symlinks is `canonical`, may name its jobs directory
    /// itself.
    pub(super) fn new(fd: OwnedFd, path: &Path, canonical: Option<PathBuf>) -> Result<Root> {
        let folder = canonical.is_some();
        let inside = at::absent(at::stat(&fd, OsStr::new("jobs")))?;
        let itself = folder && inside.is_none() && path.ends_with("jobs");
        let jobs = if itself {
            Jobs::Itself
        } else if inside.as_ref().is_some_and(at::is_symlink) {
            let followed = follow_jobs(&fd);
            if followed.is_none() {
                tracing::warn!(
                    "jobs in {} is a symlink that is not followed: it leads to no directory, or to one of another user",
                    path.display()
                );
            }
            followed.map_or(Jobs::Inside, Jobs::Linked)
        } else {
            Jobs::Inside
        };
        let mut jobs_paths = Vec::new();
        // The primary's is canonical already.
        for base in [Some(path.to_owned()), canonical].into_iter().flatten() {
            let jobs_path = if itself { base } else { base.join("jobs") };
            if !jobs_paths.contains(&jobs_path) {
                jobs_paths.push(jobs_path);
            }
        }
        Ok(Root {
            identity: at::file_id(&fd)?,
            fd,
            jobs,
            jobs_paths,
            kept: TaskDirs::default(),
            known_jobs: Mutex::default(),
        })
    }

    /// Whether `stat` is of this directory. It is held open, so no other directory can have its inode number.
    pub(super) fn is(&self, stat: &Statx) -> bool {
        self.identity == FileId::of(stat)
    }

    /// Whether its jobs directory is still the one that it was opened with: a symlink in its place may lead elsewhere now. A
    /// symlink that is not followed counts as missing. The directory is served as it was opened: a process that swaps
    /// symlinks cannot redirect the view.
    pub fn has_same_jobs(&self) -> bool {
        let name = OsStr::new("jobs");
        match &self.jobs {
            Jobs::Itself => true,
            // Its owner may make, remove and replace it.
            Jobs::Inside => {
                let link = at::stat(&self.fd, name).is_ok_and(|stat| at::is_symlink(&stat));
                !link || follow_jobs(&self.fd).is_none()
            }
            Jobs::Linked(fd) => {
                let now = walk::open_dir_from(&self.fd, name);
                now.and_then(at::file_id).ok() == at::file_id(fd).ok()
            }
        }
    }

    /// Whether its path names a jobs directory: there is no place for anything but jobs.
    pub fn is_bare_jobs(&self) -> bool {
        matches!(self.jobs, Jobs::Itself)
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
    pub fn jobs(&self) -> Result<Arc<OwnedFd>> {
        self.kept.jobs(|| {
            let jobs = match &self.jobs {
                Jobs::Inside => at::open_dir(&self.fd, OsStr::new("jobs")),
                Jobs::Itself => rustix::io::fcntl_dupfd_cloexec(&self.fd, 0),
                Jobs::Linked(fd) => rustix::io::fcntl_dupfd_cloexec(fd, 0),
            }?;
            *self.known_jobs.lock() = Some(at::file_id(&jobs)?);
            Ok(jobs)
        })
    }

    /// Looks at its disk and its jobs directory.
    pub(super) fn look(&self) -> Result<Seen> {
        let stat = rustix::fs::fstatvfs(&self.fd)?;
        let jobs = match self.jobs() {
            Err(error) if is_device_error(error) => return Err(error),
            jobs => !matches!(jobs, Err(Errno::NOENT)),
        };
        Ok(Seen {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            jobs,
        })
    }

    /// Asks its file system for the directory itself and for its jobs directory, past what the kernel has cached.
    pub(super) fn check(&self) -> Result<()> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
        rustix::fs::statx(&self.fd, "", flags, StatxFlags::BASIC_STATS)?;
        at::absent(self.jobs()).map(drop)
    }

    /// Whether its jobs directory is that of another location, by what was last seen of both. Asks no file system.
    pub fn shares_jobs_with(&self, other: &Root) -> bool {
        let own = *self.known_jobs.lock();
        own.is_some() && own == *other.known_jobs.lock()
    }

    /// A descriptor of the directory of a task's jobs.
    ///
    /// # Errors
    ///
    /// `ENOENT` or `ENOTDIR` if it has none; what `openat` gives.
    pub fn task(&self, task: &OsStr) -> Result<Arc<OwnedFd>> {
        self.kept.task(&*self.jobs()?, task)
    }

    /// Drops the kept descriptors of tasks' directories, when one is removed or renamed.
    pub fn forget_tasks(&self) {
        self.kept.forget();
    }

    /// The path of the entry, relative to the top, that has the name of a directory of xpmfs and is not a directory. A symlink
    /// counts too, because it is never followed.
    pub(in crate::view) fn in_the_way(&self) -> Option<&'static Path> {
        let mut dir = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0).ok()?;
        for (name, path) in [
            (layout::XPMFS, layout::XPMFS),
            (layout::INTERNAL_DIR, ".xpmfs/internal"),
        ] {
            match at::open_dir(&dir, OsStr::new(name)) {
                Ok(next) => dir = next,
                Err(Errno::NOTDIR) => return Some(Path::new(path)),
                Err(_) => return None,
            }
        }
        None
    }

    /// Whether `jobs` is a file. A symlink does not count: its target may be on a disk that is not mounted.
    pub(in crate::view) fn jobs_is_file(&self) -> bool {
        at::stat(&self.fd, OsStr::new(layout::JOBS))
            .is_ok_and(|stat| !at::is_dir(&stat) && !at::is_symlink(&stat))
    }

    /// The absolute paths under which a symlink may name its jobs directory.
    pub fn jobs_paths(&self) -> &[PathBuf] {
        &self.jobs_paths
    }
}

const OPEN_PATH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Follows the symlink that a location has in place of its jobs directory, once. The location's owner must not redirect a
/// daemon with more rights by it: a symlink of a user who is neither root nor the daemon's must lead to a directory of that
/// user.
fn follow_jobs(fd: &OwnedFd) -> Option<OwnedFd> {
    // Held open, so that the symlink that is checked is the one that is followed.
    let itself = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = rustix::fs::openat(fd, "jobs", itself, FileMode::empty()).ok()?;
    let target = at::read_link(&link, OsStr::new("")).ok()?;
    // Never through a mount of xpmfs, which may be this process's own, or wait for it.
    let jobs = match target.as_bytes().starts_with(b"/") {
        true => {
            walk::open_dir(Path::new(&target), &mut |_| Err(Errno::LOOP))
                .ok()?
                .0
        }
        false => walk::open_dir_from(fd, &target).ok()?,
    };
    let (link, owner) = (at::stat_fd(&link).ok()?, at::stat_fd(&jobs).ok()?);
    let trusted = [0, rustix::process::geteuid().as_raw(), owner.stx_uid];
    trusted.contains(&link.stx_uid).then_some(jobs)
}

/// Opens the primary by its path, following symlinks: the settings are to be trusted.
pub(super) fn open_path(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OPEN_PATH, FileMode::empty())
}
