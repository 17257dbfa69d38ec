//! Records which tasks and jobs of a folder do not show because they cannot be read, for a user who misses one.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::health::in_words;
use crate::sys::name::Name;

/// The maximum that is counted.
const COUNTED_MAX: usize = 10_000;

/// Tasks and jobs that could not be read when they were last looked up.
#[derive(Debug, Default)]
pub(in crate::view) struct Unreadable {
    /// Whether there are entries; mostly there are none.
    any: AtomicBool,
    /// By task, and by hash if it is not the whole task.
    entries: Mutex<HashMap<(Name, Option<Name>), Errno>>,
}

/// The tasks and jobs of a folder that do not show, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hidden {
    /// How many tasks and jobs, of those that were looked up; at most 10,000.
    pub count: usize,
    /// The path of one of them.
    pub example: PathBuf,
    /// Why that one cannot be read.
    pub reason: String,
}

impl Unreadable {
    /// Records that a job, or a task if `hash` is `None`, could not be read.
    pub(in crate::view) fn note(
        &self,
        folder: &Path,
        task: &OsStr,
        hash: Option<&OsStr>,
        error: Errno,
    ) {
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
                "{entry} of the folder {folder} cannot be read and does not show: {}; \
                 `xpmfs status` counts such entries",
                in_words(error)
            );
        } else {
            tracing::debug!("{entry} of the folder {folder} cannot be read: {error}");
        }
    }

    /// Records that a job could be read, or is missing; or that a task could be listed.
    pub(in crate::view) fn clear(&self, task: &OsStr, hash: Option<&OsStr>) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut entries = self.entries.lock();
        entries.remove(&(Name::from(task), hash.map(Name::from)));
        self.any.store(!entries.is_empty(), Ordering::Release);
    }

    /// Drops all records, when the folder's directory was replaced.
    pub(in crate::view) fn forget(&self) {
        self.entries.lock().clear();
        self.any.store(false, Ordering::Release);
    }

    /// The records, with paths below `jobs`.
    pub(in crate::view) fn hidden(&self, jobs: &Path) -> Option<Hidden> {
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
