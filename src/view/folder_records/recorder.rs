//! Lists folders in the background, and records which jobs they have.
//!
//! A task's directory is listed only if its times differ from the recorded ones, so that a pass over an unchanged folder costs one `stat`
//! for each task. Of a `use` folder only finished jobs count: each is looked at once, and those that are not finished in each pass.

use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::Statx;
use rustix::io::{Errno, Result};

use super::{Record, fields, gone, write};
use crate::settings::Mode;
use crate::sys::at;
use crate::view::location::{DISK, Disk, KNOWN, Role};
use crate::view::record_files;
use crate::view::{Location, Root, View, jobs as listing};
use crate::workspace::layout::folder_name;
use crate::workspace::{jobs, markers};

/// The pause between two passes over a folder.
const INTERVAL: Duration = Duration::from_secs(10);

/// The time before the first pass: a mount begins without this work.
const START: Duration = Duration::from_secs(2);

/// How many jobs are looked at before a pause, which leaves the disk to others.
const LOOKS: usize = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// How long a directory must have been unchanged before its times show every later change.
const SETTLED: i64 = 5;

impl View {
    /// Starts a thread for each folder that records which jobs it has. The threads end with the view.
    pub fn record_jobs(&self) {
        let Some(primary) = self.locations().first() else {
            return;
        };
        for folder in self.folders() {
            let (primary, folder) = (Arc::downgrade(primary), Arc::downgrade(folder));
            let thread = std::thread::Builder::new().name("xpmfs-records".to_owned());
            let spawned = thread.spawn(move || record(&primary, &folder));
            if let Err(error) = spawned {
                tracing::error!(
                    "cannot record the jobs of a folder: starting a thread failed: {error}"
                );
            }
        }
    }

    /// Records which jobs a folder has, as far as it has changed. For a command that has archived jobs there: no mount may ever do so.
    /// Not on which disk it lies: without a mount, a disk may be replaced at any time.
    ///
    /// # Errors
    ///
    /// Errors of either disk.
    pub fn record_now(&self, folder: &Location) -> Result<()> {
        pass(self.primary(), folder, false)
    }
}

fn record(primary: &Weak<Location>, folder: &Weak<Location>) {
    std::thread::sleep(START);
    loop {
        {
            let (Some(primary), Some(folder)) = (primary.upgrade(), folder.upgrade()) else {
                return;
            };
            if let Err(error) = pass(&primary, &folder, true) {
                let folder = folder.path().display();
                tracing::debug!("cannot record the jobs of the folder {folder}: {error}");
            }
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Brings the record of a folder up to date, and with `with_disk` that of its disk.
fn pass(primary: &Location, folder: &Location, with_disk: bool) -> Result<()> {
    let (Ok(primary), Ok(root)) = (primary.root(), folder.root()) else {
        return Ok(());
    };
    // The mount point of its disk: what was recorded stays.
    if folder.is_away() {
        return Ok(());
    }
    let tasks = match at::absent(root.jobs())? {
        Some(dir) => listing::names(&*dir)?,
        None => Vec::new(),
    };
    let mut any = false;
    for task in &tasks {
        // One that may not be read is recorded when it can be.
        any |= record_task(&primary, folder, &root, task).unwrap_or(false);
    }
    // The folder may have gone in the meantime: what is missing then says nothing.
    if !folder.is_away() && folder.root().is_ok_and(|now| Arc::ptr_eq(&now, &root)) {
        forget_others(&primary, folder, &root, &tasks)?;
        if any && with_disk {
            record_disk(&primary, folder, &root)?;
        }
    }
    Ok(())
}

/// Records the jobs of a task; returns whether there are any.
fn record_task(primary: &Root, folder: &Location, root: &Root, task: &OsStr) -> Result<bool> {
    let dir = at::open_dir(&*root.jobs()?, task)?;
    let stat = at::stat_fd(&dir)?;
    let known = Record::open(primary, folder, task);
    if let Some(known) = &known
        && known.is_of(&stat)
    {
        return Ok(known.begin < known.end);
    }
    let before = known.as_ref().map(Record::all).unwrap_or_default();
    let listed = listing::names(&dir)?;
    // First, so that a pass which is interrupted is made again.
    mark_lost(primary, folder, root, task, &before, &listed)?;
    let (mut names, mut unfinished, mut looks) = (Vec::with_capacity(listed.len()), false, 0);
    for name in listed {
        if before.binary_search(&name).is_err() {
            looks += 1;
            if looks % LOOKS == 0 {
                std::thread::sleep(PAUSE);
            }
            match counts(folder, &dir, task, &name)? {
                true => {}
                false => {
                    unfinished = true;
                    continue;
                }
            }
        }
        names.push(name);
    }
    let complete = !unfinished && is_settled(&stat);
    let is_same =
        known.is_some_and(|known| known.fields == fields(&stat) && known.complete == complete);
    if !is_same || names != before {
        write(primary, folder, task, &stat, complete, &names)?;
    }
    Ok(!names.is_empty())
}

/// Marks the jobs on record that a folder does not list any more, unless they were deleted, and unmarks jobs that are back. Others may
/// remove jobs from a `use` folder.
fn mark_lost(
    primary: &Root,
    folder: &Location,
    root: &Root,
    task: &OsStr,
    before: &[OsString],
    listed: &[OsString],
) -> Result<()> {
    if folder.role() == Role::Folder(Mode::Use) {
        return Ok(());
    }
    gone::unmark(primary, folder, task, |hash| {
        listed
            .binary_search_by(|it| it.as_os_str().cmp(hash))
            .is_ok()
    })?;
    let missing = before
        .iter()
        .filter(|hash| listed.binary_search(hash).is_err());
    let mut lost: Vec<OsString> = missing.cloned().collect();
    if lost.is_empty() {
        return Ok(());
    }
    // On a disk that cannot exchange two directories, a copy that is replaced is away for a moment.
    std::thread::sleep(PAUSE);
    let again = |hash: &OsString| {
        let path = std::path::Path::new(task).join(hash);
        root.jobs()
            .is_ok_and(|jobs| at::stat_below(&*jobs, &path).is_ok())
    };
    // The deletion of a job in another directory than before is not complete.
    let is_same = folder.is_same_directory(root) != Some(false);
    lost.retain(|hash| !(again(hash) || is_same && folder.has_deleted(task, hash)));
    gone::retain_lost(root, task, &mut lost);
    gone::mark(primary, folder, task, &lost)
}

/// Whether an entry of a task is a job that the folder serves.
fn counts(
    folder: &Location,
    dir: &std::os::fd::OwnedFd,
    task: &OsStr,
    name: &OsStr,
) -> Result<bool> {
    let job = match at::open_dir(dir, name) {
        Ok(job) => job,
        // A file, a symlink, or removed since.
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT | Errno::ACCESS) => return Ok(false),
        Err(error) => return Err(error),
    };
    match folder.role() == Role::Folder(Mode::Use) {
        true => markers::is_done(job, jobs::name(task))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        false => Ok(true),
    }
}

fn is_settled(stat: &Statx) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs().cast_signed());
    now.abs_diff(stat.stx_mtime.tv_sec) > SETTLED.unsigned_abs()
}

/// Removes the records of tasks that the folder does not have any more.
fn forget_others(primary: &Root, folder: &Location, root: &Root, tasks: &[OsString]) -> Result<()> {
    let path = crate::view::location::known_dir(folder.path());
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let Some(dir) = at::absent(at::open_below(primary.fd(), &path, flags))? else {
        return Ok(());
    };
    for known in listing::names(&dir)? {
        if tasks.binary_search(&known).is_err() {
            let before = Record::open(primary, folder, &known);
            let before = before.as_ref().map(Record::all).unwrap_or_default();
            mark_lost(primary, folder, root, &known, &before, &[])?;
            at::absent(rustix::fs::unlinkat(
                &dir,
                &known,
                rustix::fs::AtFlags::empty(),
            ))?;
        }
    }
    Ok(())
}

/// Records the disk on which a folder with jobs lies, the first time.
fn record_disk(primary: &Root, folder: &Location, root: &Root) -> Result<()> {
    let dir = record_files::make_dir(primary, KNOWN, OsStr::new(&folder_name(folder.path())))?;
    if at::absent(at::stat(&dir, OsStr::new(DISK)))?.is_some() {
        return Ok(());
    }
    let disk = Disk::of(root.fd())?.to_string();
    super::replace(primary, &dir, OsStr::new(DISK), disk.as_bytes())
}
