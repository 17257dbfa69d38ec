//! Marks of jobs that were deleted, and whose copy in a folder is still at its place: it does not count.
//!
//! The mark of a job is `<primary>/.xpmfs/archive/deleted/<BLAKE3 of the folder's path>/<task_id>/<hash>`. `archive::job::trash` makes it
//! before it moves the copy to the trash, and removes it afterwards; a folder that is away keeps its marks until it is back. Most folders
//! have none: then a lookup costs nothing but a `stat` each [`CHECK_INTERVAL`].

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::root::Root;
use crate::sys::at;
use crate::workspace::layout::{ARCHIVE, XPMFS, folder_name};

/// The directory of the marks, in `.xpmfs/archive`.
pub const DELETED: &str = "deleted";

/// How long the result "the folder has no marks" stays valid: another node may make one.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Whether a folder has marks.
#[derive(Debug, Default)]
pub(super) struct Marks(Mutex<Known>);

#[derive(Debug, Default, Clone, Copy)]
struct Known {
    /// When that was looked at.
    at: Option<Instant>,
    any: bool,
}

impl Marks {
    /// Looks again at the next question: marks may have been made.
    pub(super) fn forget(&self) {
        self.0.lock().at = None;
    }

    /// Whether the folder has the mark of a job.
    pub(super) fn has(&self, primary: &Root, folder: &Path, task: &OsStr, hash: &OsStr) -> bool {
        let top = || -> PathBuf {
            let marks = folder_name(folder);
            [XPMFS, ARCHIVE, DELETED, &marks].iter().collect()
        };
        let is_there = |path: &Path| at::stat_below(primary.fd(), path).is_ok();
        self.any(|| is_there(&top())) && is_there(&top().join(task).join(hash))
    }

    /// Whether there are any; `look` asks the primary's disk.
    fn any(&self, look: impl FnOnce() -> bool) -> bool {
        let known = *self.0.lock();
        if known.at.is_some_and(|at| at.elapsed() < CHECK_INTERVAL) {
            return known.any;
        }
        // Before the look: what changes during it is seen by the next one.
        let at = Some(Instant::now());
        let any = look();
        *self.0.lock() = Known { at, any };
        any
    }
}
