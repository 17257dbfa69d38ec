//! What other rooms may ask of a mount and report to it, and what a mount reports to them.
//!
//! A mount is made before those who use it: `daemon` makes the mount, gives its [`Handle`] to the archiver and to the
//! control socket, and then serves the mount. A handle works before and after that, too: no job is then being written.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::archive::engine::Archiver;
use crate::mount::moved_jobs::Known;
use crate::mount::tables::handles::Handles;
use crate::mount::{Mount, writers};
use crate::workspace::jobs::JobId;

/// Receives reports of jobs of the primary that are altered through the mount.
pub trait Activity: Send + Sync {
    /// Reports that a job in the primary has been altered, or may now be settled: an entry was made, renamed, linked or
    /// removed, attributes were changed, a file was opened for writing or closed after that, or a lock was released.
    /// The job may be gone by now. A report follows the last alteration within half a second.
    ///
    /// Called by threads that answer requests: it must neither block nor use the mount.
    fn touched(&self, job: JobId);
}

impl Activity for Archiver {
    fn touched(&self, job: JobId) {
        Archiver::touched(self, job);
    }
}

impl fmt::Debug for dyn Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Activity")
    }
}

/// The numbers of objects that a mount keeps because the kernel refers to them: to find leaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Files and directories that the kernel has looked up and not forgotten.
    pub nodes: usize,
    /// Open files, counted once per open.
    pub files: usize,
}

/// A mount, as other rooms see it.
#[derive(Debug, Clone)]
pub struct Handle {
    known: Known,
    files: Arc<Handles>,
    exclusive: Arc<AtomicBool>,
}

impl Mount {
    /// Returns what other rooms may ask of this mount.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            known: self.known_jobs(),
            files: self.handles.clone(),
            exclusive: self.exclusive.clone(),
        }
    }
}

impl Handle {
    /// Whether a file of a job in the primary is open for writing now, or mapped.
    ///
    /// A file with several names counts for the jobs of all names known to the mount. A file without a name does not
    /// count, nor do files that are not archived, like the job's lock: the caller must check on the disk whether the
    /// lock is held. For a job that has been moved, the files that were opened before the move count. Takes time
    /// proportional to the number of open files.
    #[must_use]
    pub fn is_written(&self, job: &JobId) -> bool {
        writers::is_written(&self.files, &self.known.nodes, job)
    }

    /// Reports that the directory of a job in the primary has become a symlink to a folder, or the other way round. The
    /// caller must do so after the exchange, and before the removal of the previous entry, now called `.tmp.<hash>`:
    /// the mount then finds the job anew at once and keeps none of its files open. Files that other processes have open
    /// stay readable.
    ///
    /// Sends no request to the mount and waits for none. Accesses the primary's disk, and those of folders with a
    /// deadline.
    pub fn moved(&self, job: &JobId) {
        self.known.moved(job);
    }

    /// Reports that other processes may change the primary from now on: the kernel must no longer cache for long what
    /// it shows.
    pub fn primary_is_shared(&self) {
        if self.exclusive.swap(false, Ordering::Relaxed) {
            let (nodes, notices) = (&self.known.nodes, &self.known.notices);
            nodes.each(|id, node| notices.forget(id, node));
        }
    }

    /// Returns the numbers of nodes and open files.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            nodes: self.known.nodes.count(),
            files: self.files.count(),
        }
    }
}
