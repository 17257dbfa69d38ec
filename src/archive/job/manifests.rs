//! Reads and writes the manifest of each archived copy: `<folder>/.xpmfs/manifests/<task_id>/<hash>.json`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use jiff::Timestamp;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::select::is_removed;
use crate::archive::error::{Cause, JobError};
use crate::archive::places::{self, MANIFESTS};
use crate::sys::{at, shared_dir};
use crate::transfer::durable::sync_directory;
use crate::transfer::{Manifest, ReadError, Size};
use crate::view::jobs::names;
use crate::view::{Location, Root};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::XPMFS;

/// The estimated bytes per entry, for the size of the buffer.
const LINE_BYTES: usize = 256;

const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// The most bytes of the first line of a manifest that are read.
const FIRST_LINE_MAX: usize = 512;

/// No manifest has fewer bytes.
const MANIFEST_BYTES_MIN: u64 = 100;

/// The beginning of the manifests that this version writes.
const BEGINNING: &[u8; 14] = b"{\"version\": 1,";

/// Why a manifest cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Its file cannot be opened.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Its content cannot be used.
    #[error("{0}")]
    Content(#[from] ReadError),
}

impl ManifestError {
    /// Whether the manifest is damaged: not if a newer version wrote it, or if reading it failed.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            ManifestError::Io(_) => false,
            ManifestError::Content(ReadError::Json(error)) => !error.is_io(),
            ManifestError::Content(error) => matches!(error, ReadError::Entry { .. }),
        }
    }
}

fn file_name(job: &JobId) -> OsString {
    file_of(job.hash())
}

/// The name of the manifest of a copy with this name.
fn file_of(name: &OsStr) -> OsString {
    let mut file = name.to_owned();
    file.push(".json");
    file
}

/// The path of the manifest of a job's copy in a folder, for messages.
#[must_use]
pub fn path(folder: &Location, job: &JobId) -> PathBuf {
    let mut path = folder.path().join(XPMFS).join(MANIFESTS);
    path.extend([job.task_id(), &file_name(job)]);
    path
}

/// The error that a manifest cannot be read.
pub(super) fn unreadable(folder: &Location, job: &JobId, error: ManifestError) -> JobError {
    let at = path(folder, job);
    let cause = match error {
        ManifestError::Io(error) => Cause::io("open", &at, error),
        ManifestError::Content(error) => {
            Cause::Unsafe(format!("cannot read {}: {error}", at.display()))
        }
    };
    JobError::new(job, cause)
}

/// Reads the manifest of a job's copy in a folder, if it exists.
///
/// # Errors
///
/// Fails if the manifest cannot be read, or is damaged.
pub fn read(folder: &Location, job: &JobId) -> Result<Option<Manifest>, ManifestError> {
    let names = [OsStr::new(MANIFESTS), job.task_id()];
    let manifest = read_named(folder, &names, job.hash())?;
    // Earlier versions have copied these too.
    Ok(manifest.map(|manifest| manifest.without(|entry| is_removed(&entry.name))))
}

/// Reads the manifest of the copy with this name, from these directories in a folder's `.xpmfs`, if it exists.
///
/// # Errors
///
/// As [`read`].
pub(in crate::archive) fn read_named(
    folder: &Location,
    names: &[&OsStr],
    name: &OsStr,
) -> Result<Option<Manifest>, ManifestError> {
    let io = |errno: Errno| ManifestError::Io(errno.into());
    let Some(dir) = places::own(folder, names.iter().copied()).map_err(io)? else {
        return Ok(None);
    };
    let opened = rustix::fs::openat(&dir, file_of(name), READ, Mode::empty());
    match at::absent(opened).map_err(io)? {
        Some(file) => Ok(Some(Manifest::read(BufReader::new(File::from(file)))?)),
        None => Ok(None),
    }
}

/// The facts about a manifest that need no reading of its entries.
#[derive(Debug, Clone, Copy)]
pub struct Recorded {
    /// Files and bytes, if the first line has them.
    pub size: Option<Size>,
    /// When the manifest was written.
    pub written: Timestamp,
}

/// Reads the first line of the manifest of a job's copy in a folder, if the manifest exists.
///
/// # Errors
///
/// Fails with the error of the folder's file system.
pub fn recorded(folder: &Location, job: &JobId) -> rustix::io::Result<Option<Recorded>> {
    let names = [OsStr::new(MANIFESTS), job.task_id()];
    let Some(dir) = places::own(folder, names)? else {
        return Ok(None);
    };
    let opened = rustix::fs::openat(&dir, file_name(job), READ, Mode::empty());
    let Some(file) = at::absent(opened)? else {
        return Ok(None);
    };
    let stat = at::stat_fd(&file)?;
    let written = stat.stx_mtime;
    let written = Timestamp::new(written.tv_sec, written.tv_nsec.cast_signed());
    let mut start = [0; FIRST_LINE_MAX];
    let length = rustix::io::pread(&file, &mut start, 0)?;
    Ok(Some(Recorded {
        size: first_line(start.get(..length).unwrap_or_default()),
        written: written.unwrap_or(Timestamp::MIN),
    }))
}

/// The size in the first line of a manifest: `{"version": 1, …, "files": 2, "bytes": 3, "entries": [`.
fn first_line(start: &[u8]) -> Option<Size> {
    let line = start.split(|byte| *byte == b'\n').next()?;
    let whole = [line, b"]}"].concat();
    let value: serde_json::Value = serde_json::from_slice(&whole).ok()?;
    Some(Size {
        files: value.get("files")?.as_u64()?,
        bytes: value.get("bytes")?.as_u64()?,
    })
}

/// The jobs that have a manifest in a folder.
///
/// # Errors
///
/// Fails with the error of the folder's file system.
pub fn jobs(folder: &Location) -> rustix::io::Result<Vec<JobId>> {
    let mut jobs = Vec::new();
    let directory = OsStr::new(MANIFESTS);
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

/// The jobs of a task in a folder whose manifests cannot be opened, or do not begin and end as this version writes them: a power cut may
/// have emptied those of earlier versions. [`read`] checks the rest.
///
/// # Errors
///
/// Fails with the error of the folder's file system.
pub(in crate::archive) fn cut_short(
    folder: &Location,
    task: &OsStr,
) -> rustix::io::Result<Vec<JobId>> {
    let Some(dir) = places::own(folder, [OsStr::new(MANIFESTS), task])? else {
        return Ok(Vec::new());
    };
    let mut jobs = Vec::new();
    for name in names(&dir)? {
        let hash = name.as_bytes().strip_suffix(b".json");
        let job = hash.map(|hash| JobId::new(task, OsStr::from_bytes(hash)));
        if let Some(Ok(job)) = job
            && is_cut_short(&dir, &name).unwrap_or(true)
        {
            jobs.push(job);
        }
    }
    Ok(jobs)
}

fn is_cut_short(dir: &OwnedFd, name: &OsStr) -> rustix::io::Result<bool> {
    let file = rustix::fs::openat(dir, name, READ, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Ok(true);
    }
    let end = match u64::try_from(stat.st_size - 1) {
        Ok(end) if end >= MANIFEST_BYTES_MIN => end,
        _ => return Ok(true),
    };
    // An editor may have added whitespace at the end.
    let mut last = [0; 8];
    let from = end.saturating_sub(last.len() as u64 - 1);
    let length = rustix::io::pread(&file, &mut last, from)?;
    let mut first = [0; BEGINNING.len()];
    rustix::io::pread(&file, &mut first, 0)?;
    let last = last.get(..length).unwrap_or_default().trim_ascii_end();
    Ok(first != *BEGINNING || !last.ends_with(b"}"))
}

/// Writes the manifest of a job's copy in a folder, atomically and durably. `folder` is the directory that the copy was written to. The
/// caller holds the lock of the job's staging in the folder.
///
/// # Errors
///
/// Fails with the error of the folder's file system.
pub fn write(folder: &Root, job: &JobId, manifest: &Manifest) -> io::Result<()> {
    let dir = stage(folder, job, manifest, true)?;
    let placed = place_in(&dir, job.hash(), true);
    if placed.is_err() {
        discard_in(&dir, job.hash());
    }
    placed
}

/// Writes a manifest beside its place, readable for the users who may list the job; with `sync`, durably. It must be durable before
/// [`place`] renames it: otherwise a power cut after the rename may leave an empty file.
pub(in crate::archive) fn stage(
    folder: &Root,
    job: &JobId,
    manifest: &Manifest,
    sync: bool,
) -> io::Result<OwnedFd> {
    let names = [OsStr::new(MANIFESTS), job.task_id()];
    stage_named(folder, &names, job.hash(), manifest, sync)
}

/// As [`stage`], for the copy with this name, in these directories in a folder's `.xpmfs`.
pub(in crate::archive) fn stage_named(
    folder: &Root,
    names: &[&OsStr],
    name: &OsStr,
    manifest: &Manifest,
    sync: bool,
) -> io::Result<OwnedFd> {
    let dir = match places::own_in(folder, names.iter().copied())? {
        Some(dir) => dir,
        None => places::make_own_in(folder, names.iter().copied())?,
    };
    let staged = staged_name(name);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let create = || rustix::fs::openat(&dir, &staged, flags, Mode::RUSR | Mode::WUSR);
    let file = match create() {
        // Left by a process that held the lock of the job's staging before, and crashed.
        Err(Errno::EXIST) => {
            discard_in(&dir, name);
            create()?
        }
        created => created?,
    };
    // Exactly the permissions of the job's own directory, which is the first entry, independent of the umask.
    let rights = manifest.entries().first().map_or(0, |job| job.mode);
    let rights = Mode::from_raw_mode(rights & 0o666) | Mode::RUSR | Mode::WUSR;
    let written = (|| {
        shared_dir::share(&file, places::sharing(folder.fd(), &dir)?.group, rights)?;
        let size = manifest.entries().len().saturating_mul(LINE_BYTES);
        let buffer = size.clamp(LINE_BYTES, 64 << 10);
        let mut buffered = BufWriter::with_capacity(buffer, File::from(file));
        manifest.write(&mut buffered)?;
        buffered.flush()?;
        match sync {
            true => buffered.get_ref().sync_all(),
            false => Ok(()),
        }
    })();
    match written {
        Ok(()) => Ok(dir),
        Err(error) => {
            discard_in(&dir, name);
            Err(error)
        }
    }
}

/// Renames a staged manifest to its place; with `sync`, durably.
pub(in crate::archive) fn place(folder: &Root, job: &JobId, sync: bool) -> io::Result<()> {
    let names = [OsStr::new(MANIFESTS), job.task_id()];
    match places::own_in(folder, names)? {
        Some(dir) => place_in(&dir, job.hash(), sync),
        None => Err(Errno::NOENT.into()),
    }
}

/// Removes a staged manifest.
pub(in crate::archive) fn discard(folder: &Root, task: &OsStr, hash: &OsStr) {
    if let Ok(Some(dir)) = places::own_in(folder, [OsStr::new(MANIFESTS), task]) {
        let _ = rustix::fs::unlinkat(&dir, staged_name(hash), AtFlags::empty());
    }
}

/// As [`place`], in the directory that [`stage_named`] returned.
pub(in crate::archive) fn place_in(dir: &OwnedFd, name: &OsStr, sync: bool) -> io::Result<()> {
    rustix::fs::renameat(dir, staged_name(name), dir, file_of(name))?;
    if sync {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        sync_directory(rustix::fs::openat(dir, ".", flags, Mode::empty())?)?;
    }
    Ok(())
}

/// As [`discard`], in the directory that [`stage_named`] returned.
pub(in crate::archive) fn discard_in(dir: &OwnedFd, name: &OsStr) {
    let _ = rustix::fs::unlinkat(dir, staged_name(name), AtFlags::empty());
}

fn staged_name(hash: &OsStr) -> OsString {
    let mut staged = OsString::from(".");
    staged.push(hash);
    staged.push(".new");
    staged
}
