//! Keeps descriptors of the directories on the way to a job: a location's `jobs/`, and below it one for each task.
//!
//! They are kept for at most a second: when another process replaces such a directory, the view follows within that time,
//! as with all changes by other processes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rustix::io::Result;

use crate::sys::at;

/// How long a descriptor is used before its name is looked up again.
const TTL: Duration = Duration::from_secs(1);

/// The maximum number of kept tasks.
const TASKS_MAX: usize = 512;

#[derive(Debug, Clone)]
struct Held {
    fd: Arc<OwnedFd>,
    opened: Instant,
}

impl Held {
    fn new(fd: Arc<OwnedFd>) -> Held {
        Held {
            fd,
            opened: Instant::now(),
        }
    }

    fn fresh(&self) -> Option<Arc<OwnedFd>> {
        (self.opened.elapsed() < TTL).then(|| self.fd.clone())
    }
}

/// The kept descriptors of one location.
#[derive(Debug, Default)]
pub(super) struct TaskDirs {
    jobs: Mutex<Option<Held>>,
    tasks: RwLock<HashMap<Box<OsStr>, Held>>,
}

impl TaskDirs {
    /// The location's `jobs/`; calls `open` if no descriptor is kept.
    pub(super) fn jobs(&self, open: impl FnOnce() -> Result<OwnedFd>) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = self.jobs.lock().as_ref().and_then(Held::fresh) {
            return Ok(fd);
        }
        // Not under the lock: opening may wait for a disk.
        let fd = Arc::new(open()?);
        *self.jobs.lock() = Some(Held::new(fd.clone()));
        Ok(fd)
    }

    /// The directory of a task in `jobs`.
    pub(super) fn task(&self, jobs: &OwnedFd, task: &OsStr) -> Result<Arc<OwnedFd>> {
        if let Some(fd) = self.tasks.read().get(task).and_then(Held::fresh) {
            return Ok(fd);
        }
        let fd = Arc::new(at::open_dir(jobs, task)?);
        let mut tasks = self.tasks.write();
        if tasks.len() >= TASKS_MAX {
            tasks.retain(|_, kept| kept.fresh().is_some());
        }
        if tasks.len() < TASKS_MAX {
            tasks.insert(task.into(), Held::new(fd.clone()));
        }
        Ok(fd)
    }

    /// Drops all descriptors, when a directory on the way to a job is made, removed or renamed through the mount.
    pub(super) fn forget(&self) {
        *self.jobs.lock() = None;
        self.tasks.write().clear();
    }
}
