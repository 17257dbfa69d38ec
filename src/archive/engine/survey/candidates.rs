//! Finds the jobs of one task that are in the primary and not in a folder: candidates for archiving.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Result;

use super::directory::{self, JobEntry, Watched};
use crate::sys::at;
use crate::sys::name::Name;
use crate::workspace::{jobs, markers};

/// The cached state of one task.
#[derive(Debug, Default)]
pub(in crate::archive::engine) struct TaskListing {
    pub(in crate::archive::engine) primary: Watched,
    pub(in crate::archive::engine) folder: Watched,
    pub(in crate::archive::engine) candidates: Vec<MissingJob>,
}

/// A job that is missing from a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::archive::engine) struct MissingJob {
    pub(in crate::archive::engine) hash: Name,
    /// When it is checked next, in milliseconds since the scanner began.
    pub(in crate::archive::engine) again: u64,
    /// How often it was found finished, without being archived since.
    pub(in crate::archive::engine) tries: u8,
}

/// The names of a directory, each as half of its BLAKE3 hash, so that a million of them take 16 MB.
#[derive(Debug, Default)]
pub(in crate::archive::engine) struct NameSet(Vec<u128>);

impl NameSet {
    /// Reads an open directory.
    pub(in crate::archive::engine) fn read(fd: impl AsFd) -> Result<NameSet> {
        let mut names = Vec::new();
        directory::read(fd, |entry| {
            if let JobEntry::Directory(name) = entry {
                names.push(digest(name));
            }
        })?;
        names.sort_unstable();
        Ok(NameSet(names))
    }

    fn contains(&self, name: &OsStr) -> bool {
        self.0.binary_search(&digest(name)).is_ok()
    }
}

fn digest(name: &OsStr) -> u128 {
    let hash = blake3::hash(name.as_bytes());
    let half = hash.as_bytes().first_chunk().copied().unwrap_or_default();
    u128::from_le_bytes(half)
}

/// Compares the primary's directory of a task, open, with the names that a folder has; `before` are the candidates that
/// were found last time. Returns whether there are staged copies, in progress or abandoned.
pub(in crate::archive::engine) fn compare(
    primary: impl AsFd,
    folder: &NameSet,
    before: &mut Vec<MissingJob>,
    wanted: impl Fn(&OsStr) -> bool,
) -> Result<bool> {
    let mut missing = Vec::new();
    let mut staging = false;
    directory::read(primary, |entry| match entry {
        JobEntry::Staging => staging = true,
        JobEntry::Directory(name) if !folder.contains(name) && wanted(name) => {
            missing.push(Name::from(name));
        }
        JobEntry::Directory(_) | JobEntry::Symlink(_) => {}
    })?;
    let mut known: HashMap<Name, (u64, u8)> = before
        .drain(..)
        .map(|candidate| (candidate.hash, (candidate.again, candidate.tries)))
        .collect();
    let found = missing.into_iter().map(|hash| {
        let (again, tries) = known.remove(&hash).unwrap_or_default();
        MissingJob { hash, again, tries }
    });
    *before = found.collect();
    Ok(staging)
}

/// The state of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::archive::engine) enum CandidateState {
    /// It has its marker, or cannot be read; the closer look that follows reports why.
    Done,
    Unfinished,
    /// It is not a directory any more.
    Gone,
}

/// Looks whether a job, in its task's directory, is finished. No symlink is followed: the job may be moved meanwhile.
pub(in crate::archive::engine) fn state(
    directory: impl AsFd,
    task: &OsStr,
    hash: &OsStr,
) -> CandidateState {
    match at::absent(at::open_dir(directory, hash)) {
        Ok(None) => CandidateState::Gone,
        Ok(Some(job)) => match markers::is_done(job, jobs::name(task)) {
            Ok(false) => CandidateState::Unfinished,
            Ok(true) | Err(_) => CandidateState::Done,
        },
        Err(_) => CandidateState::Done,
    }
}

/// Whether a job, in its task's directory, is finished; or cannot be looked at.
pub(in crate::archive::engine) fn is_done(
    directory: impl AsFd,
    task: &OsStr,
    hash: &OsStr,
) -> bool {
    state(directory, task, hash) == CandidateState::Done
}
