//! Replaces what a purge has left of a job by the whole job.
//!
//! What is left has the job's name, and programs may work in it at any time. So it is compared with the copy again when the recovered job has
//! replaced it, and put back if it has changed meanwhile. Bookkeeping in it that is newer than the copy's is kept: `status.json`, events,
//! locks, and the file that opts the job out.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxTimestamp, Timespec, Timestamps};
use rustix::io::{Errno, Result as SysResult};

use super::ready::{LOCKED, WRITTEN, hold_locks};
use super::select;
use crate::archive::env::{Env, Writing};
use crate::archive::error::{Cause, Context, CopyContext, JobError, Result};
use crate::archive::places;
use crate::sys::at;
use crate::sys::read_dir::{self, EntryBuffer};
use crate::transfer::durable::sync_directory;
use crate::transfer::{self, Candidate, Options, Time, writers};
use crate::workspace::internal::{is_removed, is_rewritten};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::JOB_STATE;

/// What a purge has left of a job. No process can begin to run the job while this exists.
pub(super) struct Skeleton {
    directory: OwnedFd,
    _locks: Vec<OwnedFd>,
}

impl Skeleton {
    /// Opens what a purge has left of a job in the primary; `None` if the primary does not have the job any more, or has all of it.
    pub(super) fn open(env: &Env<'_>, job: &JobId) -> Result<Option<Skeleton>> {
        let primary = env.view.primary();
        let at = places::path(primary, job);
        let Some(directory) = places::job(primary, job).tried(job, "open", &at)? else {
            return Ok(None);
        };
        let Some(locks) = hold_locks(&directory, job).tried(job, "lock", &at)? else {
            return Err(JobError::new(job, Cause::Busy(LOCKED.into())));
        };
        let purged = env.view.purged_from(job, &directory, None);
        let purged = purged.tried(job, "compare", &at)?;
        // Before the job is copied, possibly again: a program of another mount may keep a file open for hours.
        if purged.is_some() && env.hooks.open_for_writing(job) == Writing::Yes {
            return Err(JobError::new(job, Cause::Busy(WRITTEN.into())));
        }
        Ok(purged.map(|_| Skeleton {
            directory,
            _locks: locks,
        }))
    }

    /// The directory.
    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Whether the purge has removed the directory as well.
    pub(super) fn is_gone(&self) -> bool {
        rustix::fs::fstat(&self.directory).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Checks that it is still what a purge has left, and that no process writes to it. Called when another directory has its name.
    pub(super) fn expect_unused(&self, env: &Env<'_>, job: &JobId) -> Result<()> {
        let at = places::path(env.view.primary(), job);
        let busy = || JobError::new(job, Cause::Busy(WRITTEN.into()));
        let changed = |why: &str| JobError::new(job, Cause::Changed(why.to_owned()));
        if env.hooks.open_for_writing(job) == Writing::Yes {
            return Err(changed(
                "a program opened a file of it for writing meanwhile",
            ));
        }
        let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
        let options = Options {
            select: Some(&select),
            ..Options::default()
        };
        let left = transfer::outline(&self.directory, &options).copying(job, &at)?;
        if writers::being_written(&self.directory, &left)
            .copying(job, &at)?
            .is_some()
        {
            return Err(busy());
        }
        // After that: a process that has closed a file has changed it.
        let purged = env.view.purged_from(job, &self.directory, None);
        match purged.tried(job, "compare", &at)? {
            Some(_) => Ok(()),
            None => Err(changed("its files in the primary changed meanwhile")),
        }
    }

    /// Gives the recovered job, in its staging, the bookkeeping that is newer than the copy's.
    pub(super) fn keep_bookkeeping(&self, job: &JobId, staged: &OwnedFd) -> Result<()> {
        let at = job.path();
        let events = Path::new(JOB_STATE).join("events");
        for path in [Path::new(""), Path::new(JOB_STATE), &events] {
            let kept = keep_in(job, path, &self.directory, staged);
            kept.tried(job, "keep the bookkeeping of", &at)?;
        }
        Ok(())
    }
}

/// Keeps the bookkeeping of one directory, whose times in the recovered job stay as they are.
fn keep_in(job: &JobId, path: &Path, left: &OwnedFd, staged: &OwnedFd) -> SysResult<()> {
    let Some(from) = at::absent(open(left, path))? else {
        return Ok(());
    };
    let mut kept = Vec::new();
    // A few of what may be many files.
    let may_be = |name: &OsStr| is_rewritten(path, name, job.name(), false, 0);
    let _ = read_dir::read(&from, &mut EntryBuffer::default(), |entry| {
        if may_be(entry.name()) {
            kept.push(entry.name().to_owned());
        }
        ControlFlow::<()>::Continue(())
    })?;
    kept.retain(|name| {
        at::stat(&from, name).is_ok_and(|stat| {
            let rewritten = is_rewritten(path, name, job.name(), false, stat.stx_size);
            let temporary = is_removed(name) || name.as_bytes().starts_with(b".hardlink_test");
            rewritten && !temporary && FileType::from_raw_mode(stat.stx_mode.into()).is_file()
        })
    });
    if kept.is_empty() {
        return Ok(());
    }
    let to = make(staged, path)?;
    let times = at::stat_fd(&to)?;
    for name in kept {
        let Some(ours) = at::absent(at::stat(&from, &name))? else {
            continue;
        };
        let theirs = at::absent(at::stat(&to, &name))?;
        let time = |stat: &Statx| Time::of(stat.stx_mtime);
        if theirs.is_none_or(|theirs| time(&ours).order(time(&theirs)).is_gt()) {
            link(&from, &to, &name)?;
        }
    }
    let stamp = |time: StatxTimestamp| Timespec {
        tv_sec: time.tv_sec,
        tv_nsec: time.tv_nsec.into(),
    };
    let times = Timestamps {
        last_access: stamp(times.stx_atime),
        last_modification: stamp(times.stx_mtime),
    };
    rustix::fs::futimens(&to, &times)?;
    sync_directory(&to)
}

/// Gives a file a second name in another directory, in place of any file there: a process that has opened the file, or waits for a lock on it,
/// goes on with the file of the recovered job. Copies it on a disk without hard links.
fn link(from: &OwnedFd, to: &OwnedFd, name: &OsStr) -> SysResult<()> {
    let mut staged = OsString::from(".new-");
    staged.push(blake3::hash(name.as_bytes()).to_hex().as_str());
    match rustix::fs::linkat(from, name, to, &staged, AtFlags::empty()) {
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::XDEV) => {
            copy(from, to, name, &staged)?;
        }
        linked => linked?,
    }
    let renamed = rustix::fs::renameat(to, &staged, to, name);
    if renamed.is_err() {
        let _ = rustix::fs::unlinkat(to, &staged, AtFlags::empty());
    }
    renamed
}

fn copy(from: &OwnedFd, to: &OwnedFd, name: &OsStr, new_name: &OsStr) -> SysResult<()> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let original = rustix::fs::openat(from, name, read, Mode::empty())?;
    let rights = Mode::from_raw_mode(rustix::fs::fstat(&original)?.st_mode & 0o7777);
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let made = rustix::fs::openat(to, new_name, write, rights)?;
    let copied = std::io::copy(&mut File::from(original), &mut File::from(made));
    copied.map(drop).map_err(|error| {
        let _ = rustix::fs::unlinkat(to, new_name, AtFlags::empty());
        Errno::from_io_error(&error).unwrap_or(Errno::IO)
    })
}

fn open(top: impl AsFd, path: &Path) -> SysResult<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    match path.as_os_str().is_empty() {
        true => at::open_to_list(top, OsStr::new(".")),
        false => at::open_below(top, path, flags),
    }
}

/// Opens a directory of the recovered job, and makes it if the copy lacks it.
fn make(staged: &OwnedFd, path: &Path) -> SysResult<OwnedFd> {
    let mut made = PathBuf::new();
    for name in path {
        let parent = open(staged, &made)?;
        made.push(name);
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    open(staged, path)
}
