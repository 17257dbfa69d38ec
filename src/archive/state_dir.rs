//! Records of archiving in the primary, below `.xpmfs/archive/`.
//!
//! | file | meaning |
//! | --- | --- |
//! | `folders/<BLAKE3 of the folder's path>` | jobs were archived in this folder: if it has none now, its disk is not mounted |
//! | `kept/<task_id>/<hash>` | the job was recovered on request, and stays in the primary until it changes |
//! | `opt-outs/<task_id>/<hash>` | the job's last run opted it out by its tag, or a person in ([`super::job::opt_out`]) |
//! | `verified/`, `verified-copies/` | when copies were verified ([`super::last_verify`]) |
//! | `damaged/<BLAKE3 of the folder's path>/<task_id>/<hash>` | `verify` found the folder's copy damaged or missing; the file says how |
//!
//! A copy that the folder has lost (`view::folder_records::gone`) counts as one that `verify` found missing.
//!
//! Other modules keep records beside these: [`super::experiments::damage`], [`super::fresh_records`], [`super::turn`], `engine::journal`,
//! and `view::location::deleted`.
//!
//! The loss of one of the first three does harm: jobs would be copied below the mount point of a missing disk, or moved although they
//! must stay. So a file or symlink in the place of one of the directories is an error that names it, and not a missing record.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::places;
use crate::archive::error::{self, Cause, Context, JobError};
use crate::archive::obstacle::{self, Obstacle};
use crate::sys::{at, shared_dir};
use crate::view::jobs::names as names_in;
use crate::view::{GONE, Location};
use crate::workspace::jobs::JobId;
pub(super) use crate::workspace::layout::ARCHIVE;
use crate::workspace::layout::{self, XPMFS};

const FOLDERS: &str = "folders";
const KEPT: &str = "kept";
pub(super) const OPT_OUTS: &str = "opt-outs";
const DAMAGED: &str = "damaged";

/// Where damaged copies are recorded, in the primary's `.xpmfs`.
pub const RECORDS_OF_DAMAGE: &str = "archive/damaged";

/// Where copies that folders have lost are recorded, in the primary's `.xpmfs`.
pub const RECORDS_OF_LOST: &str = "archive/gone";

/// Where the jobs of folders are recorded, in the primary's `.xpmfs`.
pub const RECORDS_OF_JOBS: &str = "archive/known";

/// The most damaged copies of a folder that are counted.
const DAMAGED_MAX: usize = 1_000_000;

/// The finding of a copy that a folder has lost.
pub(super) const LOST: &str = "the copy is missing: the folder had it before";

/// The most bytes in the record of a damaged copy.
const FINDING_MAX: usize = 1024;

/// The finding of a record that this user may not read.
const UNREADABLE: &str =
    "`verify` found the copy damaged or missing, but this user may not read the record of it";

/// Whether jobs of a primary were archived in a folder before, or a mount has seen jobs there.
///
/// # Errors
///
/// Errors of the primary's file system; `ENOTDIR` as [`damage`] explains.
pub fn is_known(primary: &Location, folder: &Location) -> Result<bool> {
    let is_archived_to = exists(primary, &[OsStr::new(FOLDERS)], &folder_name(folder))?;
    Ok(is_archived_to || folder.is_recorded())
}

/// Records that jobs of a primary were archived in a folder.
///
/// # Errors
///
/// Errors of the primary's file system; `ENOTDIR` as [`damage`] explains.
pub fn make_known(primary: &Location, folder: &Location) -> Result<()> {
    if exists(primary, &[OsStr::new(FOLDERS)], &folder_name(folder))? {
        return Ok(());
    }
    let dir = places::make_own(primary, [OsStr::new(ARCHIVE), OsStr::new(FOLDERS)])?;
    touch(primary, &dir, &folder_name(folder))
}

/// Whether a job was recovered on request, and stays in the primary.
///
/// # Errors
///
/// Errors of the primary's file system; `ENOTDIR` as [`damage`] explains.
pub fn is_kept(primary: &Location, job: &JobId) -> Result<bool> {
    exists(primary, &[OsStr::new(KEPT), job.task_id()], job.hash())
}

/// Records that a job stays in the primary, or removes that record.
///
/// # Errors
///
/// Errors of the primary's file system; `ENOTDIR` as [`damage`] explains.
pub fn set_kept(primary: &Location, job: &JobId, kept: bool) -> Result<()> {
    let names = [OsStr::new(KEPT), job.task_id()];
    if kept {
        let names = [OsStr::new(ARCHIVE)].into_iter().chain(names);
        return touch(primary, &places::make_own(primary, names)?, job.hash());
    }
    match open(primary, &names)? {
        Some(dir) => {
            at::absent(rustix::fs::unlinkat(dir, job.hash(), AtFlags::empty())).map(|_| ())
        }
        None => Ok(()),
    }
}

/// Records what `verify` found wrong with a folder's copy of a job; `None` removes the record.
///
/// # Errors
///
/// Errors of the primary's file system.
pub fn set_damaged(
    primary: &Location,
    folder: &Location,
    job: &JobId,
    finding: Option<&str>,
) -> Result<()> {
    let folder = folder_name(folder);
    let Some(finding) = finding else {
        remove(primary, DAMAGED, &folder, job)?;
        return remove(primary, GONE, &folder, job);
    };
    let names = [ARCHIVE, DAMAGED].map(OsStr::new);
    let names = names.into_iter().chain([&*folder, job.task_id()]);
    let dir = places::make_own(primary, names)?;
    let finding = finding.as_bytes();
    let finding = finding.get(..FINDING_MAX).unwrap_or(finding);
    replace(primary, &dir, job.hash(), finding)?;
    remove(primary, GONE, &folder, job)
}

/// Removes the record of a folder's copy below the directory `records`.
fn remove(primary: &Location, records: &str, folder: &OsStr, job: &JobId) -> Result<()> {
    match open(primary, &[OsStr::new(records), folder, job.task_id()])? {
        Some(dir) => at::absent(rustix::fs::unlinkat(dir, job.hash(), AtFlags::empty())).map(drop),
        None => Ok(()),
    }
}

/// Whether a folder has lost its copy of a job, which was not deleted. Asks the folder's disk about a copy that is marked: it may be back, with
/// the directory that another one had replaced, and the mark is removed some time later.
fn is_gone(primary: &Location, folder: &Location, job: &JobId) -> Result<bool> {
    let names = [OsStr::new(GONE), &folder_name(folder), job.task_id()];
    if !exists(primary, &names, job.hash())? || folder.has_deleted(job.task_id(), job.hash()) {
        return Ok(false);
    }
    Ok(!matches!(places::job(folder, job), Ok(Some(_))))
}

/// Whether `verify` found a folder's copy of a job damaged or missing.
///
/// # Errors
///
/// Errors of the primary's file system; `ENOTDIR` as [`damage`] explains.
pub fn is_damaged(primary: &Location, folder: &Location, job: &JobId) -> Result<bool> {
    let names = [OsStr::new(DAMAGED), &folder_name(folder), job.task_id()];
    Ok(exists(primary, &names, job.hash())? || is_gone(primary, folder, job)?)
}

/// What `verify` found wrong with a folder's copy of a job, if anything.
///
/// # Errors
///
/// Errors of the primary's file system; `ENOTDIR` as [`damage`] explains.
pub fn damage_of(primary: &Location, folder: &Location, job: &JobId) -> Result<Option<String>> {
    let names = [OsStr::new(DAMAGED), &folder_name(folder), job.task_id()];
    if let Some(dir) = open(primary, &names)?
        && at::absent(at::stat(&dir, job.hash()))?.is_some()
    {
        return finding(&dir, job.hash()).map(Some);
    }
    Ok(is_gone(primary, folder, job)?.then(|| LOST.to_owned()))
}

/// Removes the records of damaged copies of a folder for which `keeps` is false: the copy and its manifest were removed.
///
/// # Errors
///
/// Errors of the primary's file system.
pub fn retain_damaged(
    primary: &Location,
    folder: &Location,
    keeps: impl Fn(&JobId) -> bool,
) -> Result<()> {
    retain(primary, DAMAGED, folder, &keeps)?;
    retain(primary, GONE, folder, keeps)
}

/// Removes the records of a folder's copies, below the directory `records`, for which `keeps` is false.
pub(super) fn retain(
    primary: &Location,
    records: &str,
    folder: &Location,
    keeps: impl Fn(&JobId) -> bool,
) -> Result<()> {
    let folder = folder_name(folder);
    let Some(tasks) = open(primary, &[OsStr::new(records), &folder])? else {
        return Ok(());
    };
    for task in names_in(&tasks)? {
        let Some(dir) = at::absent(at::open_dir(&tasks, &task))? else {
            continue;
        };
        for hash in names_in(&dir)? {
            if JobId::new(&task, &hash).is_ok_and(|job| !keeps(&job)) {
                at::absent(rustix::fs::unlinkat(&dir, &hash, AtFlags::empty()))?;
            }
        }
    }
    Ok(())
}

/// Copies of a folder that `verify` found damaged or missing.
#[derive(Debug, Default)]
pub struct DamagedCopies {
    /// The number of copies, at most [`DAMAGED_MAX`].
    pub count: usize,
    /// The first few, with the findings.
    pub first: Vec<(JobId, String)>,
}

/// The copies of a folder that `verify` found damaged or missing, the first `limit` of them with the findings.
///
/// # Errors
///
/// Errors of the primary's file system.
pub fn damaged(primary: &Location, folder: &Location, limit: usize) -> Result<DamagedCopies> {
    let mut damaged = DamagedCopies::default();
    let name = folder_name(folder);
    for records in [DAMAGED, GONE] {
        let Some(tasks) = open(primary, &[OsStr::new(records), &name])? else {
            continue;
        };
        for task in names_in(&tasks)? {
            let Some(dir) = at::absent(at::open_dir(&tasks, &task))? else {
                continue;
            };
            for hash in names_in(&dir)? {
                let Ok(job) = JobId::new(&task, &hash) else {
                    continue;
                };
                let is_deleted = || folder.has_deleted(&task, &hash);
                if records == GONE && is_deleted() {
                    continue;
                }
                damaged.count += 1;
                if damaged.first.len() < limit {
                    let finding = match records {
                        GONE => LOST.to_owned(),
                        _ => finding(&dir, &hash)?,
                    };
                    damaged.first.push((job, finding));
                }
                if damaged.count == DAMAGED_MAX {
                    return Ok(damaged);
                }
            }
        }
    }
    Ok(damaged)
}

fn finding(dir: &OwnedFd, hash: &OsStr) -> Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, hash, flags, Mode::empty()) {
        // The copy was replaced a moment ago, or this is another program's symlink.
        Err(Errno::NOENT | Errno::LOOP) => return Ok(String::new()),
        // Earlier versions applied the umask, so that only the writer may read it.
        Err(Errno::ACCESS | Errno::PERM) => return Ok(UNREADABLE.to_owned()),
        opened => opened?,
    };
    let mut text = vec![0; FINDING_MAX];
    let count = rustix::io::read(file, &mut text)?;
    text.truncate(count);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The file or symlink that is in the place of a directory of the state; for a job, of the directory of its task as well.
/// Called after an `ENOTDIR`.
#[must_use]
pub fn damage(primary: &Location, job: Option<&JobId>) -> Option<Obstacle> {
    let of_all = [FOLDERS, KEPT, OPT_OUTS, DAMAGED, GONE]
        .map(|name| [ARCHIVE, name])
        .into_iter()
        .find_map(|names| {
            let names = names.map(OsStr::new);
            obstacle::of_own(primary, &names).map(Obstacle::of_every_job)
        });
    let of_job = || {
        let task = job?.task_id();
        [KEPT, OPT_OUTS].into_iter().find_map(|name| {
            let names = [OsStr::new(ARCHIVE), OsStr::new(name), task];
            obstacle::of_own(primary, &names)
        })
    };
    of_all.or_else(of_job)
}

/// Converts a result of this module into one about a job, with the obstacle instead of `ENOTDIR`.
pub(super) fn checked<T>(
    primary: &Location,
    job: &JobId,
    operation: &'static str,
    result: Result<T>,
) -> error::Result<T> {
    match result {
        Err(Errno::NOTDIR) => match damage(primary, Some(job)) {
            Some(damaged) => Err(JobError::new(job, Cause::Obstacle(damaged))),
            None => result.tried(job, operation, &path(primary)),
        },
        result => result.tried(job, operation, &path(primary)),
    }
}

fn path(primary: &Location) -> PathBuf {
    primary.path().join(XPMFS).join(ARCHIVE)
}

/// Explains an error of this module, as a sentence.
#[must_use]
pub fn explain(primary: &Location, error: Errno) -> String {
    let damaged = (error == Errno::NOTDIR)
        .then(|| damage(primary, None))
        .flatten();
    damaged.map_or_else(
        || format!("cannot use {}: {error}", path(primary).display()),
        |damaged| damaged.to_string(),
    )
}

fn exists(primary: &Location, names: &[&OsStr], name: &OsStr) -> Result<bool> {
    match open(primary, names)? {
        Some(dir) => Ok(at::absent(at::stat(dir, name))?.is_some()),
        None => Ok(false),
    }
}

/// Opens a directory of the state; `None` only if it does not exist.
pub(super) fn open(primary: &Location, names: &[&OsStr]) -> Result<Option<OwnedFd>> {
    let names = [OsStr::new(XPMFS), OsStr::new(ARCHIVE)]
        .into_iter()
        .chain(names.iter().copied());
    match shared_dir::open_shared(primary.root()?.fd(), names) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn folder_name(folder: &Location) -> OsString {
    layout::folder_name(folder.path()).into()
}

/// Makes an empty record, unless it exists.
fn touch(primary: &Location, dir: &OwnedFd, name: &OsStr) -> Result<()> {
    match create(primary.root()?.fd(), dir, name) {
        Err(Errno::EXIST) => Ok(()),
        created => created.map(drop),
    }
}

/// Writes a record, and replaces any of the name, even one of another user that this user may not write to.
pub(super) fn replace(primary: &Location, dir: &OwnedFd, name: &OsStr, text: &[u8]) -> Result<()> {
    let root = primary.root()?;
    let mut staged = OsString::from(format!(".new-{}-", std::process::id()));
    // Shortened, since the record's name may be as long as the file system allows.
    staged.push(blake3::hash(name.as_bytes()).to_hex().as_str());
    let file = match create(root.fd(), dir, &staged) {
        // Left by a crashed process that had the same number.
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(dir, &staged, AtFlags::empty())?;
            create(root.fd(), dir, &staged)?
        }
        created => created?,
    };
    let written = rustix::io::write(file, text);
    let renamed = written.and_then(|_| rustix::fs::renameat(dir, &staged, dir, name));
    if renamed.is_err() {
        let _ = rustix::fs::unlinkat(dir, &staged, AtFlags::empty());
    }
    renamed
}

/// Makes a file that the users of its directory may read and write, independent of the umask. While the directory is new, the users of
/// `root`.
pub(super) fn create(root: impl AsFd, dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
    let sharing = places::sharing(root, dir)?;
    shared_dir::share(&file, sharing.group, sharing.of_file())?;
    Ok(file)
}
