//! Finds the jobs of one task that are in the primary and not in a folder: candidates for archiving.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Result;

use super::directory::{self, Entry, Watched};
use crate::sys::at;
use crate::sys::name::Name;
use crate::workspace::{jobs, markers};

/// The cached state of one task.
#[derive(Debug, Default)]
pub(super) struct Task {
    pub(super) primary: Watched,
    pub(super) folder: Watched,
    pub(super) candidates: Vec<Candidate>,
}

/// A job that is missing from a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) hash: Name,
    /// It is not looked at before this, in milliseconds since the scanner began.
    pub(super) again: u64,
    /// How often it was found finished, and yet was not archived.
    pub(super) tries: u8,
}

/// The names of a directory, each as half of its BLAKE3 hash, so that a million of them take 16 MB.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<u128>);

impl Names {
    /// Reads an open directory.
    pub(super) fn read(fd: impl AsFd) -> Result<Names> {
        let mut names = Vec::new();
        directory::read(fd, |entry| {
            if let Entry::Directory(name) = entry {
                names.push(digest(name));
            }
        })?;
        names.sort_unstable();
        Ok(Names(names))
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
pub(super) fn compare(
    primary: impl AsFd,
    folder: &Names,
    before: &mut Vec<Candidate>,
    wanted: impl Fn(&OsStr) -> bool,
) -> Result<bool> {
    let mut missing = Vec::new();
    let mut staging = false;
    directory::read(primary, |entry| match entry {
        Entry::Staging => staging = true,
        Entry::Directory(name) if !folder.contains(name) && wanted(name) => {
            missing.push(Name::from(name));
        }
        Entry::Directory(_) | Entry::Symlink(_) => {}
    })?;
    let mut known: HashMap<Name, (u64, u8)> = before
        .drain(..)
        .map(|candidate| (candidate.hash, (candidate.again, candidate.tries)))
        .collect();
    let found = missing.into_iter().map(|hash| {
        let (again, tries) = known.remove(&hash).unwrap_or_default();
        Candidate { hash, again, tries }
    });
    *before = found.collect();
    Ok(staging)
}

/// The state of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::archive::engine) enum State {
    /// It has its marker, or cannot be read; the closer look that follows reports why.
    Done,
    Unfinished,
    /// It is not a directory any more.
    Gone,
}

/// Looks whether a job, in its task's directory, is finished. No symlink is followed: the job may be moved meanwhile.
pub(in crate::archive::engine) fn state(directory: impl AsFd, task: &OsStr, hash: &OsStr) -> State {
    match at::absent(at::open_dir(directory, hash)) {
        Ok(None) => State::Gone,
        Ok(Some(job)) => match markers::is_done(job, jobs::name(task)) {
            Ok(false) => State::Unfinished,
            Ok(true) | Err(_) => State::Done,
        },
        Err(_) => State::Done,
    }
}
