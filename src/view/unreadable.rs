//! What of a folder cannot be looked at, so that it does not show: who misses a job must be able to find out why.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::location::in_words;
use crate::sys::name::Name;

/// More than these are not counted.
const COUNTED_MAX: usize = 10_000;

/// Tasks and jobs that were asked for and could not be looked at, and have not been since.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    /// Whether there is any: as a rule there is none.
    any: AtomicBool,
    /// By task, and by hash if it is not the whole task.
    entries: Mutex<HashMap<(Name, Option<Name>), Errno>>,
}

/// What of a folder does not show, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hidden {
    /// How many tasks and jobs, among those that somebody has asked for; no more than 10,000 are counted.
    pub count: usize,
    /// The path of one of them.
    pub example: PathBuf,
    /// Why that one cannot be looked at.
    pub reason: String,
}

impl Unreadable {
    /// Notes that a job, or a task if no `hash` is given, could not be looked at.
    pub(super) fn note(&self, folder: &Path, task: &OsStr, hash: Option<&OsStr>, error: Errno) {
        let mut entries = self.entries.lock();
        let key = (Name::from(task), hash.map(Name::from));
        if entries.contains_key(&key) || entries.len() >= COUNTED_MAX {
            return;
        }
        let first = entries.is_empty();
        let path = path(task, hash);
        entries.insert(key, error);
        self.any.store(true, Ordering::Release);
        drop(entries);
        let (folder, entry) = (folder.display(), path.display());
        if first {
            tracing::warn!(
                "{entry} of the folder {folder} cannot be looked at, so it does not show: {}; \
                 `xpmfs status` tells of more",
                in_words(error)
            );
        } else {
            tracing::debug!("{entry} of the folder {folder} cannot be looked at: {error}");
        }
    }

    /// Notes that a job could be looked at, or is not there at all; or that a task could be listed.
    pub(super) fn clear(&self, task: &OsStr, hash: Option<&OsStr>) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut entries = self.entries.lock();
        entries.remove(&(Name::from(task), hash.map(Name::from)));
        self.any.store(!entries.is_empty(), Ordering::Release);
    }

    /// Forgets all, when the folder's directory is another than it was.
    pub(super) fn forget(&self) {
        self.entries.lock().clear();
        self.any.store(false, Ordering::Release);
    }

    /// What is known, with paths below `jobs`.
    pub(super) fn hidden(&self, jobs: &Path) -> Option<Hidden> {
        let entries = self.entries.lock();
        let ((task, hash), error) = entries.iter().next()?;
        Some(Hidden {
            count: entries.len(),
            example: jobs.join(path(task, hash.as_deref())),
            reason: in_words(*error),
        })
    }
}

fn path(task: &OsStr, hash: Option<&OsStr>) -> PathBuf {
    let task = Path::new(task);
    hash.map_or_else(|| task.to_owned(), |hash| task.join(hash))
}
