//! Finds and makes the directories of a location, by descriptors: the *places* of tasks and jobs, and those in its `.xpmfs`.
//!
//! | function | finds |
//! | --- | --- |
//! | [`task`], [`job`], [`path`] | the directory of a task or a job; a job's path, for messages and symlinks |
//! | [`make_task`], `make_like` | and makes it, with no more permissions than the source has |
//! | [`own`], [`make_own`] | a directory in the `.xpmfs` of a location: manifests, state |
//! | [`archives`], [`folders_of_mode`], `folder` | the folders of a view |

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

use crate::settings::Mode as FolderMode;
use crate::sys::{at, shared_dir};
use crate::view::location::Role;
use crate::view::{Location, PRIMARY, Root, View};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{JOBS, XPMFS};

/// Opens the directory of a task in a location, if it exists.
///
/// # Errors
///
/// As `openat`, except that a missing directory is not an error.
pub fn task(location: &Location, job: &JobId) -> Result<Option<Arc<OwnedFd>>> {
    at::absent(location.root()?.task(job.task_id()))
}

/// Opens the directory of a task in a location, and makes it if it is missing.
///
/// A new directory gets the mode of its parent, without the permissions that the task's directory in the location `from`, the source of
/// its jobs, does not have.
///
/// # Errors
///
/// Fails with the error of the location's file system.
pub fn make_task(location: &Location, task: &OsStr, from: &Location) -> Result<Arc<OwnedFd>> {
    let root = location.root()?;
    match root.task(task) {
        Err(Errno::NOENT) => {}
        found => {
            if let Ok(task) = &found {
                shared_dir::await_shared(task);
            }
            return found;
        }
    }
    // Cached descriptors may refer to a directory that was removed since.
    root.forget_tasks();
    let jobs = match root.jobs() {
        Err(Errno::NOENT) => {
            make_dir(root.fd(), root.fd(), OsStr::new(JOBS))?;
            root.jobs()?
        }
        found => found?,
    };
    let given = match from.root()?.task(task) {
        Ok(task) => rustix::fs::fstat(&*task)?.st_mode,
        Err(_) => ALL,
    };
    let rights = rights(&*jobs)? & (Mode::from_raw_mode(given) | !Mode::from_raw_mode(ALL));
    shared_dir::make_dir(&*jobs, task, rights | Mode::RWXU)?;
    root.task(task)
}

/// Opens a directory below a location, one name after the other, and makes those that are missing as [`make_task`] does: with the mode of
/// the parent, without the permissions that the same directory in `from` does not have.
///
/// # Errors
///
/// Fails with the error of the location's file system; `ENOTDIR` if a file or symlink is in the path.
pub(super) fn make_like(root: &Root, from: &Location, names: &[&OsStr]) -> Result<OwnedFd> {
    let mut dir = rustix::io::fcntl_dupfd_cloexec(root.fd(), 0)?;
    let like = from.root().ok();
    let mut like = like.and_then(|root| rustix::io::fcntl_dupfd_cloexec(root.fd(), 0).ok());
    for name in names {
        like = like.and_then(|like| at::open_dir(like, name).ok());
        let given = like.as_ref().and_then(|like| at::stat_fd(like).ok());
        let given = given.map_or(ALL, |stat| stat.stx_mode.into());
        let limit = Mode::from_raw_mode(given) | !Mode::from_raw_mode(ALL);
        dir = shared_dir::make_dir(&dir, name, rights(&dir)? & limit | Mode::RWXU)?;
    }
    Ok(dir)
}

/// The permissions of all classes of users.
const ALL: u32 = 0o777;

/// Opens the directory of a job in a location for reading; `None` if it is missing, or another entry is in its place, such as the symlink
/// of a moved job.
///
/// # Errors
///
/// As `openat`.
pub fn job(location: &Location, job: &JobId) -> Result<Option<OwnedFd>> {
    match task(location, job)? {
        Some(task) => open(&*task, job.hash()),
        None => Ok(None),
    }
}

/// Opens a directory in a task's for reading; `None` if it is missing, or another entry is in its place.
///
/// # Errors
///
/// As `openat`.
pub fn open(task: impl AsFd, name: &OsStr) -> Result<Option<OwnedFd>> {
    at::absent(open_exactly(task, name))
}

/// As [`open`], but fails if the directory is missing, or another entry is in its place.
pub(super) fn open_exactly(task: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(task, name, flags, Mode::empty())
}

/// The path of a job in a location, for messages and for symlinks.
#[must_use]
pub fn path(location: &Location, job: &JobId) -> PathBuf {
    let jobs = match location.root() {
        Ok(root) => root.jobs_paths().first().cloned(),
        Err(_) => None,
    };
    let jobs = jobs.unwrap_or_else(|| location.path().join(JOBS));
    jobs.join(job.path())
}

/// Opens a directory below a location's `.xpmfs`, and makes it if it is missing, with the mode of the location's directory.
///
/// # Errors
///
/// Fails with the error of the location's file system; `ENOTDIR` if a file or symlink is in the path.
pub fn make_own<'a>(
    location: &Location,
    names: impl IntoIterator<Item = &'a OsStr>,
) -> Result<OwnedFd> {
    make_own_in(&*location.root()?, names)
}

/// As [`make_own`], in the open directory of a location.
pub(super) fn make_own_in<'a>(
    root: &Root,
    names: impl IntoIterator<Item = &'a OsStr>,
) -> Result<OwnedFd> {
    let mut dir = make_dir(root.fd(), root.fd(), OsStr::new(XPMFS))?;
    for name in names {
        dir = make_dir(root.fd(), &dir, name)?;
    }
    Ok(dir)
}

/// Opens a directory below a location's `.xpmfs`, if it exists.
///
/// # Errors
///
/// As `openat`, except that a missing directory is not an error.
pub fn own<'a>(
    location: &Location,
    names: impl IntoIterator<Item = &'a OsStr>,
) -> Result<Option<OwnedFd>> {
    own_in(&*location.root()?, names)
}

/// As [`own`], in the open directory of a location.
pub(super) fn own_in<'a>(
    root: &Root,
    names: impl IntoIterator<Item = &'a OsStr>,
) -> Result<Option<OwnedFd>> {
    let names: Vec<&OsStr> = names.into_iter().collect();
    let path = [OsStr::new(XPMFS)].into_iter().chain(names);
    at::absent(shared_dir::open_shared(
        root.fd(),
        path.collect::<Vec<_>>().into_iter(),
    ))
}

/// Opens a directory, and makes it if it is missing, with the group and mode of its parent: the same users may write in it.
fn make_dir(root: impl AsFd, dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    let Sharing { group, rights } = sharing(root, &dir)?;
    shared_dir::make_shared(dir, name, group, rights)
}

/// The group and mode of new entries in a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sharing {
    pub(super) group: u32,
    /// The mode of a directory.
    pub(super) rights: Mode,
}

impl Sharing {
    /// The mode of a file.
    pub(super) fn of_file(self) -> Mode {
        let read_and_write = Mode::from_raw_mode(0o666);
        (self.rights & read_and_write) | Mode::RUSR | Mode::WUSR
    }
}

/// The group and mode of a directory in a location. A new directory may not have them yet, if another process of this user is making it:
/// then those of the location's own directory, `root`, are returned.
pub(super) fn sharing(root: impl AsFd, dir: impl AsFd) -> Result<Sharing> {
    let mut model = at::stat_fd(&dir)?;
    if shared_dir::is_new(&model) {
        model = at::stat_fd(root)?;
    }
    Ok(Sharing {
        group: model.stx_gid,
        rights: Mode::from_raw_mode(u32::from(model.stx_mode) & 0o7777),
    })
}

fn rights(dir: impl AsFd) -> Result<Mode> {
    Ok(Mode::from_raw_mode(
        rustix::fs::fstat(dir)?.st_mode & 0o7777,
    ))
}

/// The folder with a number: any location except the primary.
pub(super) fn folder(view: &View, index: u8) -> Option<&Location> {
    view.location(index).filter(|_| index != PRIMARY)
}

pub(super) use crate::workspace::layout::MANIFESTS;

/// The folders of a mode, in the order of the settings.
pub fn folders_of_mode(view: &View, mode: FolderMode) -> impl Iterator<Item = &Location> {
    let folders = view.folders().iter().map(|folder| &**folder);
    folders.filter(move |folder| folder.role() == Role::Folder(mode))
}

/// The folders that jobs are archived to: `backup` folders before `move` folders.
pub fn archives(view: &View) -> impl Iterator<Item = &Location> {
    folders_of_mode(view, FolderMode::Backup).chain(folders_of_mode(view, FolderMode::Move))
}

/// The reason for a folder without jobs although some were archived there.
pub const NO_DISK: &str =
    "jobs were archived there before, and it has none now: see whether its disk is mounted";
