//! Marks of jobs that a `backup` or `move` folder had and has lost: xpmfs has not deleted them, and the folder is not away.
//!
//! The mark of a job is the empty file `<primary>/.xpmfs/archive/gone/<BLAKE3 of the folder's path>/<task_id>/<hash>`. `recorder` makes it
//! before it takes the job off the folder's record, and removes it when the folder has the job again. `archive::state_dir` reports it like
//! a copy that `verify` found missing.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::Record;
use crate::sys::at;
use crate::sys::shared_dir;
use crate::view::record_files;
use crate::view::{Location, Root, View, jobs as listing};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{ARCHIVE, JOBS, MANIFESTS, TRASH, XPMFS, folder_name};

/// The directory of the marks, in `.xpmfs/archive`.
pub const GONE: &str = "gone";

/// How many marks are made before a pause, which leaves the disk to others.
const MADE: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// The directory of a folder's marks for a task, if it exists.
fn open(primary: &Root, folder: &Location, task: &OsStr) -> Result<Option<OwnedFd>> {
    let name = folder_name(folder.path());
    let names = [XPMFS, ARCHIVE, GONE, &name].map(OsStr::new);
    at::absent(at::open_dirs(primary.fd(), names.into_iter().chain([task])))
}

/// Marks jobs of a task.
pub(super) fn mark(
    primary: &Root,
    folder: &Location,
    task: &OsStr,
    hashes: &[OsString],
) -> Result<()> {
    if hashes.is_empty() {
        return Ok(());
    }
    let top = record_files::make_dir(primary, GONE, OsStr::new(&folder_name(folder.path())))?;
    let own = rustix::fs::fstat(primary.fd())?;
    let rights = Mode::from_raw_mode(own.st_mode & 0o7777);
    let dir = shared_dir::make_shared(&top, task, own.st_gid, rights)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for (made, hash) in hashes.iter().enumerate() {
        if made % MADE == MADE - 1 {
            std::thread::sleep(PAUSE);
        }
        match rustix::fs::openat(&dir, hash, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => record_files::share(primary, &dir, &file)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes the marks of those jobs of a task for which `is_back` is true.
pub(super) fn unmark(
    primary: &Root,
    folder: &Location,
    task: &OsStr,
    is_back: impl Fn(&OsStr) -> bool,
) -> Result<()> {
    let Some(dir) = open(primary, folder, task)? else {
        return Ok(());
    };
    for hash in listing::names(&dir)? {
        if is_back(&hash) {
            at::absent(rustix::fs::unlinkat(&dir, &hash, AtFlags::empty()))?;
        }
    }
    Ok(())
}

/// Removes from a list of missing jobs those that were deleted: they lie in the folder's trash, with their manifests. A node that has listed
/// the folder before the deletion may put them on record again after it.
pub(super) fn retain_lost(root: &Root, task: &OsStr, missing: &mut Vec<OsString>) {
    if missing.is_empty() {
        return;
    }
    let trash = [XPMFS, TRASH].map(OsStr::new);
    // What cannot be read there counts as lost: to report too much is better than too little.
    let Ok(trash) = at::open_dirs(root.fd(), trash.into_iter()) else {
        return;
    };
    let mut deleted = HashSet::new();
    for batch in listing::names(&trash).unwrap_or_default() {
        let jobs = [&*batch, OsStr::new(JOBS), task];
        if let Ok(jobs) = at::open_dirs(&trash, jobs.into_iter()) {
            deleted.extend(listing::names(&jobs).unwrap_or_default());
        }
    }
    missing.retain(|hash| !deleted.contains(hash) || has_manifest(root, task, hash));
}

/// Whether a folder has the manifest of a job: the job was archived again after it was deleted.
fn has_manifest(root: &Root, task: &OsStr, hash: &OsStr) -> bool {
    let mut file = hash.to_owned();
    file.push(".json");
    let path: PathBuf = [OsStr::new(XPMFS), OsStr::new(MANIFESTS), task, &file]
        .iter()
        .collect();
    at::stat_below(root.fd(), &path).is_ok()
}

impl View {
    /// Whether a folder has lost a job.
    pub fn is_gone(&self, folder: &Location, task: &OsStr, hash: &OsStr) -> bool {
        let dir = self
            .primary()
            .root()
            .and_then(|primary| open(&primary, folder, task));
        matches!(dir, Ok(Some(dir)) if at::stat(&dir, hash).is_ok())
    }

    /// The jobs that a `backup` or `move` folder has on record and does not have now, deleted ones excluded: nothing has marked them yet.
    /// Asks the folder's disk, without a limit.
    ///
    /// # Errors
    ///
    /// Errors of either disk. None are found while the folder is away.
    pub fn lost_since_recorded(&self, folder: &Location) -> Result<Vec<JobId>> {
        let mut lost = Vec::new();
        if folder.is_away() {
            return Ok(lost);
        }
        let (primary, root) = (self.primary().root()?, folder.root()?);
        for task in self.recorded_tasks(folder) {
            let Some(record) = Record::open(&primary, folder, &task) else {
                continue;
            };
            let jobs = at::absent(root.jobs())?;
            let dir = match &jobs {
                Some(jobs) => at::absent(at::open_dir(&**jobs, &task))?,
                None => None,
            };
            let listed = match &dir {
                Some(dir) if record.is_of(&at::stat_fd(dir)?) => continue,
                Some(dir) => listing::names(dir)?,
                None => Vec::new(),
            };
            let mut missing = record.all();
            missing.retain(|hash| {
                listed.binary_search(hash).is_err() && !folder.has_deleted(&task, hash)
            });
            retain_lost(&root, &task, &mut missing);
            let jobs = missing.into_iter();
            lost.extend(jobs.filter_map(|hash| JobId::new(&task, hash).ok()));
        }
        Ok(lost)
    }
}
