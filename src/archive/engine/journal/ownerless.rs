//! Finds, reads and removes journals whose owner is gone.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use indexmap::IndexMap;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::file::{Journal, STAGED, SUFFIX, directory, lock};
use super::line::{Line, RecordedRefusal};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::view::View;
use crate::workspace::JobId;

/// The most bytes of a journal that are read.
const SIZE_MAX: u64 = 64 << 20;

/// A journal whose owner is gone. It is locked as long as this lives.
#[derive(Debug)]
pub(in crate::archive::engine) struct Ownerless {
    directory: OwnedFd,
    name: OsString,
    file: File,
}

/// The journals in a directory whose owners are gone; `own` is left out.
///
/// # Errors
///
/// That the directory cannot be read.
pub(in crate::archive::engine) fn ownerless(
    directory: &OwnedFd,
    own: &str,
) -> io::Result<Vec<Ownerless>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::new(fd)? {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        let bytes = name.as_bytes();
        let journal = bytes.ends_with(SUFFIX.as_bytes()) || bytes.ends_with(STAGED.as_bytes());
        if journal
            && name != own
            && let Some(journal) = Ownerless::take(directory, name)
        {
            found.push(journal);
        }
    }
    Ok(found)
}

impl Ownerless {
    /// Locks a journal if its owner is gone. One that cannot be opened or locked belongs to another process.
    fn take(directory: &OwnedFd, name: OsString) -> Option<Ownerless> {
        // Without blocking: a fifo would make this process wait for a writer.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, &name, flags, Mode::empty()).ok()?;
        let file = File::from(file);
        lock(&file).ok()?;
        let stat = at::stat_fd(&file).ok()?;
        let there = at::stat(directory, &name).ok()?;
        let regular = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
        // Its owner may have replaced the file before it released the lock.
        if !regular || FileId::of(&stat) != FileId::of(&there) {
            return None;
        }
        Some(Ownerless {
            directory: rustix::io::fcntl_dupfd_cloexec(directory, 0).ok()?,
            name,
            file,
        })
    }

    /// The jobs that were queued, with the refusals of folders. Torn lines are skipped.
    pub(in crate::archive::engine) fn jobs(&self) -> Vec<(JobId, Vec<RecordedRefusal>)> {
        let mut jobs: IndexMap<JobId, Vec<RecordedRefusal>> = IndexMap::new();
        // A journal that was being rewritten: the old one is still there.
        if self.name.as_bytes().ends_with(STAGED.as_bytes()) {
            return Vec::new();
        }
        let mut reader = BufReader::new((&self.file).take(SIZE_MAX));
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            match Line::read(&line) {
                Some(Line::Queued(job)) => {
                    jobs.entry(job).or_default();
                }
                Some(Line::Done(job)) => {
                    jobs.swap_remove(&job);
                }
                Some(Line::Failed(job, refused)) => {
                    let before = jobs.entry(job).or_default();
                    before.retain(|one| one.folder != refused.folder);
                    before.push(refused);
                }
                None => {}
            }
            line.clear();
        }
        jobs.into_iter().collect()
    }

    /// Removes the journal, once its jobs are in another one.
    pub(in crate::archive::engine) fn remove(self) {
        // A journal that stays is read again, which does no harm.
        let _ = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
    }
}

/// Writes jobs into a journal for the next process, as if their owner were gone. Leaves out jobs that another journal
/// without an owner lists already, so that repeated attempts do not add journals.
///
/// # Errors
///
/// The error of the primary's file system.
pub(in crate::archive::engine) fn queue_for_next_start(
    view: &View,
    jobs: Vec<JobId>,
) -> io::Result<()> {
    let left: HashSet<JobId> = ownerless(&directory(view)?, "")?
        .iter()
        .flat_map(|journal| journal.jobs().into_iter().map(|(job, _)| job))
        .collect();
    let jobs = jobs.into_iter().filter(|job| !left.contains(job));
    let lines: Vec<Line> = jobs.map(Line::Queued).collect();
    match lines.is_empty() {
        true => Ok(()),
        false => Journal::make(view)?.append(&lines),
    }
}
