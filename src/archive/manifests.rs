//! The record of each archived copy: `<folder>/.xpmfs/manifests/<task_id>/<hash>.json`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::places;
use super::select::is_removed;
use crate::transfer::{Manifest, ReadError};
use crate::view::jobs::names;
use crate::view::{Location, Root, beneath};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::XPMFS;

/// The directory of manifests in a folder's `.xpmfs`.
pub(super) const DIRECTORY: &str = "manifests";

/// Bytes of most lines of a manifest, at the most.
const LINE: usize = 256;

/// Why there is no manifest to be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its file cannot be opened.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What it holds is of no use.
    #[error("{0}")]
    Content(#[from] ReadError),
}

fn file_name(job: &JobId) -> OsString {
    let mut name = job.hash().to_owned();
    name.push(".json");
    name
}

/// Where the manifest of a job's copy in a folder is, for people.
#[must_use]
pub fn path(folder: &Location, job: &JobId) -> PathBuf {
    let mut path = folder.path().join(XPMFS).join(DIRECTORY);
    path.extend([job.task_id(), &file_name(job)]);
    path
}

/// The manifest of a job's copy in a folder, if there is one.
///
/// # Errors
///
/// It is there and cannot be read, or says what no manifest does.
pub fn read(folder: &Location, job: &JobId) -> Result<Option<Manifest>, Error> {
    let names = [OsStr::new(DIRECTORY), job.task_id()];
    let io = |errno: Errno| Error::Io(errno.into());
    let Some(dir) = places::own(folder, names).map_err(io)? else {
        return Ok(None);
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&dir, file_name(job), flags, Mode::empty());
    match beneath::absent(opened).map_err(io)? {
        Some(file) => {
            let manifest = Manifest::read(BufReader::new(File::from(file)))?;
            // Earlier versions have copied these, too.
            Ok(Some(manifest.without(|entry| is_removed(&entry.name))))
        }
        None => Ok(None),
    }
}

/// The jobs that a folder has manifests of.
///
/// # Errors
///
/// What its file system gave.
pub fn jobs(folder: &Location) -> rustix::io::Result<Vec<JobId>> {
    let mut jobs = Vec::new();
    let directory = OsStr::new(DIRECTORY);
    let Some(tasks) = places::own(folder, [directory])? else {
        return Ok(jobs);
    };
    for task in names(&tasks)? {
        let Some(dir) = places::own(folder, [directory, &task])? else {
            continue;
        };
        for name in names(&dir)? {
            let hash = name.as_bytes().strip_suffix(b".json");
            let job = hash.map(|hash| JobId::new(&task, OsStr::from_bytes(hash)));
            jobs.extend(job.and_then(Result::ok));
        }
    }
    Ok(jobs)
}

/// Writes the manifest of a job's copy in a folder, whose directory is the one that the copy was written to: whole, or not at all, and for those to read who may list the job. With `sync`, it is durable on return. The caller
/// holds the lock of the job's staging in the folder.
///
/// # Errors
///
/// What the folder's file system gave.
pub fn write(folder: &Root, job: &JobId, manifest: &Manifest, sync: bool) -> io::Result<()> {
    let names = [OsStr::new(DIRECTORY), job.task_id()];
    let dir = match places::own_in(folder, names)? {
        Some(dir) => dir,
        None => places::make_own_in(folder, names)?,
    };
    let mut staged = OsString::from(".");
    staged.push(job.hash());
    staged.push(".new");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let create = || rustix::fs::openat(&dir, &staged, flags, Mode::RUSR | Mode::WUSR);
    let file = match create() {
        // Left by somebody who had the lock of the job's staging before, and died.
        Err(Errno::EXIST) => {
            let _ = rustix::fs::unlinkat(&dir, &staged, AtFlags::empty());
            create()?
        }
        created => created?,
    };
    // The job's own directory is the first entry. Neither more nor less than that, whatever the umask.
    let rights = manifest.entries().first().map_or(0, |job| job.mode);
    let rights = Mode::from_raw_mode(rights & 0o666) | Mode::RUSR | Mode::WUSR;
    let written = (|| {
        beneath::share(&file, rustix::fs::fstat(&dir)?.st_gid, rights)?;
        let size = manifest.entries().len().saturating_mul(LINE);
        let buffer = size.clamp(LINE, 64 << 10);
        let mut buffered = BufWriter::with_capacity(buffer, File::from(file));
        manifest.write(&mut buffered)?;
        buffered.flush()?;
        if sync {
            buffered.get_ref().sync_all()?;
        }
        rustix::fs::renameat(&dir, &staged, &dir, file_name(job))?;
        if sync {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::fsync(rustix::fs::openat(&dir, ".", flags, Mode::empty())?)?;
        }
        Ok(())
    })();
    if written.is_err() {
        let _ = rustix::fs::unlinkat(&dir, &staged, AtFlags::empty());
    }
    written
}
