//! Compares the directory of a job in the primary with a folder's copy of the job, by names, sizes and times.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags, Statx};
use rustix::io::{Errno, Result};

use super::record::Stamp;
use super::removed::Removed;
use crate::sys::at;
use crate::sys::disk_time::Time;
use crate::sys::read_dir::{self, EntryBuffer};
use crate::workspace::internal::is_rewritten;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{JOB_STATE, PARAMS};
use crate::workspace::partials;

/// The most entries of a job that are compared.
const ENTRIES_MAX: usize = 1_000_000;

/// How a job compares with one copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It has the files of the copy, and no others.
    Whole,
    /// It has some files of the copy, or none, and no others.
    Incomplete,
    /// As [`How::Incomplete`], but a missing file was removed on purpose.
    Removed,
    /// It has a file that the copy does not have, or has in another state.
    Different,
}

/// How a job compares with one copy, and on what that depends.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) how: How,
    /// Entries on whose times the result depends: while they stay, so does the result. All directories; of an incomplete job all
    /// files as well; of a different one, only the entry that differs.
    pub(super) seen: Vec<(PathBuf, Stamp)>,
    /// A file that was removed on purpose.
    pub(super) removed: Option<PathBuf>,
}

/// A comparison that goes on.
struct Walk<'a> {
    job: &'a JobId,
    copy: &'a OwnedFd,
    on_purpose: &'a Removed,
    buffer: EntryBuffer,
    left: usize,
    /// The directories that both have and that are still to be compared.
    next: Vec<PathBuf>,
    directories: Vec<(PathBuf, Stamp)>,
    files: Vec<(PathBuf, Stamp)>,
    missing: bool,
    removed: Option<PathBuf>,
}

/// The entry of a job that the copy does not have, or has in another state.
struct Differs(PathBuf, Stamp);

/// Compares the job in the directory `ours` with the copy in `copy`. `on_purpose` are the files that were removed on purpose.
///
/// # Errors
///
/// A directory of one of the two cannot be read; `EFBIG` for too many entries.
pub(super) fn compare(
    ours: &OwnedFd,
    copy: &OwnedFd,
    job: &JobId,
    on_purpose: &Removed,
) -> Result<Compared> {
    let mut walk = Walk {
        job,
        copy,
        on_purpose,
        buffer: EntryBuffer::default(),
        left: ENTRIES_MAX,
        next: vec![PathBuf::new()],
        directories: Vec::new(),
        files: Vec::new(),
        missing: false,
        removed: None,
    };
    while let Some(path) = walk.next.pop() {
        if let Some(Differs(path, stamp)) = walk.directory(ours, &path)? {
            return Ok(Compared {
                how: How::Different,
                seen: vec![(path, stamp)],
                removed: None,
            });
        }
    }
    let how = match (walk.missing, &walk.removed) {
        (_, Some(_)) => How::Removed,
        (true, None) => How::Incomplete,
        (false, None) => How::Whole,
    };
    let mut seen = walk.directories;
    if how == How::Incomplete {
        seen.append(&mut walk.files);
    }
    Ok(Compared {
        how,
        seen,
        removed: walk.removed,
    })
}

impl Walk<'_> {
    /// Compares one directory that both have.
    fn directory(&mut self, ours: &OwnedFd, path: &Path) -> Result<Option<Differs>> {
        let (ours, theirs) = (open(ours, path)?, open(self.copy, path)?);
        // Before it is listed: a later change shows in a later time.
        let stamp = Stamp::of(&at::stat_fd(&ours)?);
        self.directories.push((path.to_owned(), stamp));
        let mut left = self.names(&theirs)?;
        for (name, _) in self.names(&ours)? {
            let is_there = left.remove(&name).is_some();
            let Some(stat) = at::absent(at::stat(&ours, &name))? else {
                // Removed a moment ago.
                left.insert(name, FileType::Unknown);
                continue;
            };
            let theirs = match is_there {
                true => at::absent(at::stat(&theirs, &name))?.zip(Some(&theirs)),
                false => None,
            };
            let at = path.join(&name);
            if at::is_dir(&stat) && theirs.as_ref().is_some_and(|(stat, _)| at::is_dir(stat)) {
                self.next.push(at);
                continue;
            }
            if is_ignored(path, &name, self.job, &stat) {
                continue;
            }
            let is_same = theirs.is_some_and(|(there, theirs)| {
                is_rebased(&at, &stat, &there)
                    || is_same((&ours, &stat), (theirs, &there), (path, &name)).unwrap_or(false)
            });
            match is_same {
                true => self.files.push((at, Stamp::of(&stat))),
                false => return Ok(Some(Differs(at, Stamp::of(&stat)))),
            }
        }
        for name in left.into_keys() {
            self.missing(&theirs, path, &name)?;
        }
        Ok(None)
    }

    /// Notes an entry of the copy that the job lacks.
    fn missing(&mut self, theirs: &OwnedFd, path: &Path, name: &OsStr) -> Result<()> {
        if self.missing && self.on_purpose.is_empty() {
            return Ok(());
        }
        let Some(stat) = at::absent(at::stat(theirs, name))? else {
            return Ok(());
        };
        if !counts_as_missing(path, name, self.job, &stat) {
            return Ok(());
        }
        let at = path.join(name);
        if at::is_dir(&stat) {
            return self.missing_directory(at);
        }
        if has_content(&stat) {
            self.note_missing(at);
        }
        Ok(())
    }

    /// Notes the files below a directory of the copy that the job lacks. Empty directories do not count.
    fn missing_directory(&mut self, top: PathBuf) -> Result<()> {
        let mut next = vec![top];
        while let Some(path) = next.pop() {
            if self.missing && self.on_purpose.is_empty() {
                return Ok(());
            }
            let dir = open(self.copy, &path)?;
            for name in self.names(&dir)?.into_keys() {
                let Some(stat) = at::absent(at::stat(&dir, &name))? else {
                    continue;
                };
                let at = path.join(&name);
                match at::is_dir(&stat) {
                    true => next.push(at),
                    false if !counts_as_missing(&path, &name, self.job, &stat) => {}
                    false if has_content(&stat) => self.note_missing(at),
                    false => {}
                }
            }
        }
        Ok(())
    }

    fn note_missing(&mut self, path: PathBuf) {
        self.missing = true;
        if self.removed.is_none() && self.on_purpose.contains(&path) {
            self.removed = Some(path);
        }
    }

    /// The names in a directory.
    fn names(&mut self, dir: &OwnedFd) -> Result<HashMap<OsString, FileType>> {
        let mut names = HashMap::new();
        let left = &mut self.left;
        let read = read_dir::read(dir, &mut self.buffer, |entry| {
            names.insert(entry.name().to_owned(), entry.kind());
            match left.checked_sub(1) {
                Some(fewer) => {
                    *left = fewer;
                    ControlFlow::Continue(())
                }
                None => ControlFlow::Break(()),
            }
        })?;
        match read {
            ControlFlow::Continue(()) => Ok(names),
            ControlFlow::Break(()) => Err(Errno::FBIG),
        }
    }
}

fn open(top: impl AsFd, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    match path.as_os_str().is_empty() {
        true => at::open_to_list(top, OsStr::new(".")),
        false => at::open_below(top, path, flags),
    }
}

/// Whether an entry of a job says nothing about whether the job is used.
fn is_ignored(path: &Path, name: &OsStr, job: &JobId, stat: &Statx) -> bool {
    let directory = at::is_dir(stat);
    let rewritten = is_rewritten(path, name, job.name(), directory, stat.stx_size);
    rewritten || !(directory || has_content(stat))
}

/// Whether the job is incomplete without an entry that the copy has. Unlike the rest of the bookkeeping, the status and the events are
/// archived.
fn counts_as_missing(path: &Path, name: &OsStr, job: &JobId, stat: &Statx) -> bool {
    let (is_dir, size) = (at::is_dir(stat), stat.stx_size);
    let is_archived = path.starts_with(JOB_STATE)
        && (is_dir || (size > 0 && (name == "status.json" || path.ends_with("events"))));
    is_archived || !is_rewritten(path, name, job.name(), is_dir, size)
}

/// Whether an entry is a file or a symlink. Not every file system has fifos, and they hold no data.
fn has_content(stat: &Statx) -> bool {
    let kind = FileType::from_raw_mode(stat.stx_mode.into());
    matches!(kind, FileType::RegularFile | FileType::Symlink)
}

/// Whether the two are a job's `params.json` with the same time, of which a recovery may have rewritten one for a workspace at another
/// path.
fn is_rebased(path: &Path, ours: &Statx, theirs: &Statx) -> bool {
    let is_file =
        |stat: &Statx| FileType::from_raw_mode(stat.stx_mode.into()).is_file() && stat.stx_size > 0;
    let (mtime, there) = (Time::of(ours.stx_mtime), Time::of(theirs.stx_mtime));
    path == Path::new(PARAMS) && is_file(ours) && is_file(theirs) && mtime.order(there).is_eq()
}

/// Whether two files are the same, as far as can be seen without reading: a disk may keep times less precisely.
fn is_same(
    ours: (&OwnedFd, &Statx),
    theirs: (&OwnedFd, &Statx),
    (directory, name): (&Path, &OsStr),
) -> Result<bool> {
    let kind = |stat: &Statx| FileType::from_raw_mode(stat.stx_mode.into());
    match (kind(ours.1), kind(theirs.1)) {
        (FileType::RegularFile, FileType::RegularFile) => {
            let (mtime, there) = (Time::of(ours.1.stx_mtime), Time::of(theirs.1.stx_mtime));
            Ok(ours.1.stx_size == theirs.1.stx_size && mtime.order(there).is_eq())
        }
        (FileType::Symlink, FileType::Symlink) => {
            let [one, other] = [ours.0, theirs.0].map(|dir| at::read_link(dir, name));
            let (one, other) = (PathBuf::from(one?), PathBuf::from(other?));
            // A recovery lets the symlinks to partials lead to its workspace.
            let is_rebased = partials::has_links(directory)
                && partials::is_same_in_another_workspace(&one, &other);
            Ok(one == other || is_rebased)
        }
        _ => Ok(false),
    }
}
