//! Takes the internal files that the primary keeps for an archived job into the recovered job.
//!
//! A process may hold the lock of an archived job: its file lies in `.xpmfs/internal/<task_id>/<hash>/` and must become the
//! job's lock file itself, not a copy, while other processes open it through the old place and the new one:
//!
//! 1. Each file is linked into the staged copy ([`link_into`]). From then on both names lead to it.
//! 2. The copy is published. Files that were created since are linked before that, while no process may create any
//!    ([`InternalGate`](crate::view::internal_gate::InternalGate)).
//! 3. The old names are removed ([`remove`]). A file that was created nevertheless, by a process that went on without the gate, is linked first.
//!
//! A job that was moved or released a moment ago, and is put back since it was written to, takes them over too ([`put_back`]).
//!
//! After a crash in 1 the staged copy is swept, and nothing has changed; after a crash in 3 the old names are left, beside the
//! lock of the staging: they are removed with it. At the latest they are removed before a folder serves the job again: they would
//! hide newer files of the archived copy. A file system without hard links has the files renamed: then a crash in 1 loses lock files
//! that no living process holds.

use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, Timespec, Timestamps};
use rustix::io::{Errno, Result};

use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::name::Name;
use crate::sys::read_dir::{self, EntryBuffer};
use crate::transfer::durable::sync_directory;
use crate::transfer::staging::Staging;
use crate::view::internal::JobDir;
use crate::view::{InPrimary, View};
use crate::workspace::jobs::JobId;

/// How deep directories of internal files are followed.
const DEPTH_MAX: usize = 64;

/// Which entry is kept where the job has one of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// The internal file, which hides the archived one.
    Internal,
    /// The job's: it was published with every internal file of that time.
    Job,
}

/// Links the internal files of a job into its staged copy, or its directory that will be put back, unless they are there already, and makes
/// that durable.
///
/// # Errors
///
/// The error of the primary's file system.
pub(super) fn link_into(view: &View, job: &JobId, staged: &OwnedFd) -> Result<()> {
    match open(view, job)? {
        Some(internal) => link_all(&internal, staged, Keep::Internal, false, DEPTH_MAX),
        None => Ok(()),
    }
}

/// As [`remove`]; a failure is logged. What is left has no effect while the job is in the primary. The caller has the lock of the job's
/// staging: the job is being put back otherwise, and the internal files become its own.
pub(in crate::archive) fn remove_old_names(view: &View, job: &JobId) {
    if let Err(error) = remove(view, job) {
        tracing::debug!("{job}: internal files are left in .xpmfs: {error}");
    }
}

/// Removes the internal files of a job that has been published in the primary. Links those first that were created since
/// [`link_into`].
///
/// # Errors
///
/// The error of the primary's file system.
fn remove(view: &View, job: &JobId) -> Result<()> {
    let Some(internal) = open(view, job)? else {
        return Ok(());
    };
    let task = view.primary().root()?.task(job.task_id())?;
    let published = at::open_to_list(&*task, job.hash())?;
    link_all(&internal, &published, Keep::Job, true, DEPTH_MAX)?;
    drop(internal);
    remove_directory(view, job)
}

/// Takes a job's internal files into its directory, and puts this back in the primary with `publish`: a program may hold the lock that it
/// found while a folder served the job. No process creates any meanwhile, unless another process holds the gate for too long: the job must
/// be put back all the same, and a warning is logged.
///
/// The caller holds the locks that the directory has. If a program holds one of them itself, `keep` is false, and the internal files are
/// left.
///
/// # Errors
///
/// Those of `publish`. What fails afterwards is logged.
pub(in crate::archive) fn put_back<T, E>(
    view: &View,
    job: &JobId,
    directory: &OwnedFd,
    keep: bool,
    publish: impl FnOnce() -> std::result::Result<T, E>,
) -> std::result::Result<T, E> {
    let gate = view.close_gate(&|| false);
    if gate.is_none() {
        tracing::warn!(
            "{job}: another process holds the lock {}: putting the job back without it. If a process of xpmfs is stopped on any node, \
             continue or end it",
            view.gate_path().display()
        );
    }
    let linked = || link_into(view, job, &at::open_to_list(directory, OsStr::new("."))?);
    if keep && let Err(error) = linked() {
        tracing::warn!("{job}: its internal files are left in .xpmfs: {error}");
    }
    let published = publish()?;
    drop(gate);
    if keep {
        remove_old_names(view, job);
    }
    Ok(published)
}

/// As [`remove_old_names`], for files that a crash has left; does nothing while another process works on the job.
pub(in crate::archive) fn remove_left(view: &View, job: &JobId) {
    if !matches!(open(view, job), Ok(Some(_))) {
        return;
    }
    let removed = view.primary().root().and_then(|root| {
        let task = root.task(job.task_id())?;
        Ok(Staging::take(&*task, job.hash()))
    });
    match removed {
        Ok(Ok(Some(staging))) => {
            // Before the lock was taken, the job may have been moved.
            if view.in_primary(job.task_id(), job.hash()) == Ok(InPrimary::Job) {
                remove_old_names(view, job);
            }
            if let Err(error) = staging.finish(None) {
                tracing::debug!("{job}: {error}");
            }
        }
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::debug!("{job}: {error}"),
        Err(error) => tracing::debug!("{job}: {error}"),
    }
}

/// Removes the directory of a job's internal files, which are not there any more.
fn remove_directory(view: &View, job: &JobId) -> Result<()> {
    let top = view.internal_top()?;
    let task = at::open_dir(&top, job.task_id())?;
    // A file that is created at this moment keeps the directory.
    match rustix::fs::unlinkat(&task, job.hash(), AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::NOENT) => Ok(()),
        removed => removed,
    }
}

fn open(view: &View, job: &JobId) -> Result<Option<OwnedFd>> {
    let holder = JobDir {
        task: Name::from(job.task_id()),
        hash: Name::from(job.hash()),
        nested: false,
    };
    match view.internal_dir(&holder)? {
        Some(dir) => at::absent(at::open_to_list(&dir, OsStr::new("."))),
        None => Ok(None),
    }
}

fn link_all(from: &OwnedFd, to: &OwnedFd, keep: Keep, unlink: bool, depth: usize) -> Result<()> {
    let names = names_in(from)?;
    if names.is_empty() {
        return Ok(());
    }
    let before = at::stat_fd(to)?;
    let mut is_changed = false;
    for name in &names {
        let Some(stat) = at::absent(at::stat(from, name))? else {
            continue;
        };
        if at::is_dir(&stat) {
            let mode = Mode::from_raw_mode(u32::from(stat.stx_mode) & 0o7777);
            match rustix::fs::mkdirat(to, name, mode) {
                Ok(()) => is_changed = true,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            let (below, there) = (at::open_to_list(from, name)?, at::open_to_list(to, name)?);
            let depth = depth.checked_sub(1).ok_or(Errno::LOOP)?;
            link_all(&below, &there, keep, unlink, depth)?;
            if unlink {
                match rustix::fs::unlinkat(from, name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOTEMPTY | Errno::NOENT) => {}
                    Err(error) => return Err(error),
                }
            }
        } else {
            let there = at::absent(at::stat(to, name))?;
            if there.is_none_or(|there| FileId::of(&there) != FileId::of(&stat)) {
                link(from, name, to, keep)?;
                is_changed = true;
            }
            if unlink {
                at::absent(rustix::fs::unlinkat(from, name, AtFlags::empty()))?;
            }
        }
    }
    if keep == Keep::Internal && is_changed {
        // The job's directories keep their times.
        let times = Timestamps {
            last_access: timespec(before.stx_atime),
            last_modification: timespec(before.stx_mtime),
        };
        rustix::fs::futimens(to, &times)?;
        sync_directory(to)?;
    }
    Ok(())
}

fn link(from: &OwnedFd, name: &OsStr, to: &OwnedFd, keep: Keep) -> Result<()> {
    let linked = || rustix::fs::linkat(from, name, to, name, AtFlags::empty());
    let done = match (linked(), keep) {
        (Err(Errno::EXIST), Keep::Job) => return Ok(()),
        (Err(Errno::EXIST), Keep::Internal) => {
            rustix::fs::unlinkat(to, name, AtFlags::empty())?;
            linked()
        }
        (done, _) => done,
    };
    match done {
        // The file system has no hard links, or the file belongs to another user.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
            rustix::fs::renameat(from, name, to, name)
        }
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

fn names_in(dir: impl AsFd) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    read_dir::read(&dir, &mut EntryBuffer::default(), |entry| {
        let name = entry.name();
        if at::is_component(name) {
            names.push(name.to_owned());
        }
        ControlFlow::<()>::Continue(())
    })
    .map(|_| names)
}

fn timespec(time: rustix::fs::StatxTimestamp) -> Timespec {
    Timespec {
        tv_sec: time.tv_sec,
        tv_nsec: time.tv_nsec.into(),
    }
}
