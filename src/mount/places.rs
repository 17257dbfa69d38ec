//! What becomes of what is known of a job when its place changes without the mount's doing.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags};

use super::descriptors::Directories;
use super::identity::{Devices, Identity};
use super::listings::Listings;
use super::nodes::Nodes;
use super::notices::Notices;
use crate::view::name::Name;
use crate::view::{View, beneath};
use crate::workspace::jobs::JobId;
use crate::workspace::layout;

/// Takes notice of jobs that change place, once there is a mount.
#[derive(Default)]
pub struct Places {
    moved: OnceLock<Box<dyn Fn(&JobId) + Send + Sync>>,
}

impl Places {
    /// The directory of a job in the primary has become a symlink to a folder, or the other way round. To be
    /// called when that has been done, and before what stood there, now called `.tmp.<hash>`, is removed: the
    /// mount then finds the job anew at once and keeps nothing open of it. Files that somebody has open stay
    /// readable.
    ///
    /// Sends no request to the mount and waits for none, but looks at the primary's and the folders' disks.
    pub fn moved(&self, job: &JobId) {
        if let Some(moved) = self.moved.get() {
            moved(job);
        }
    }

    pub(super) fn answer_by(&self, moved: impl Fn(&JobId) + Send + Sync + 'static) {
        // The first mount that is served with these options is the only one.
        let _ = self.moved.set(Box::new(moved));
    }
}

/// What a job's directory is called when something else has taken its place.
pub(super) fn staging(hash: &OsStr) -> OsString {
    let mut name = OsString::from(layout::STAGING_PREFIX);
    name.push(hash);
    name
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Places")
    }
}

/// What a mount knows of jobs that may change place.
pub(super) struct Known {
    pub(super) view: Arc<View>,
    pub(super) devices: Arc<Devices>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) directories: Arc<Directories>,
    pub(super) listings: Arc<Listings>,
    pub(super) notices: Arc<Notices>,
}

impl Known {
    /// A job has changed place.
    pub(super) fn moved(&self, job: &JobId) {
        let hash = Name::from(job.hash());
        // The task is known by the directory of the location that was first to have it.
        for location in self.view.locations() {
            let task = location.root().and_then(|root| root.task(job.task_id()));
            if let Ok(stat) = task.and_then(beneath::stat_fd)
                && let Some(task) = self.number(&Identity::of(&stat))
            {
                self.notices.forget_name(task, &hash);
            }
        }
        if let Some((old, fd)) = self.old_directory(job) {
            self.let_go_below(old);
            self.notices.forget_attributes(old);
            // For who works in it, until the kernel forgets it.
            self.directories.keep_removed(old, fd.into());
            if self.nodes.get(old).is_none() {
                self.directories.forget(old);
            }
        }
    }

    /// What stood in the primary, if it is a directory that the kernel knows.
    fn old_directory(&self, job: &JobId) -> Option<(u64, OwnedFd)> {
        let task = self.view.primary().root().ok()?.task(job.task_id()).ok()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = staging(job.hash());
        let fd = rustix::fs::openat(task, name, flags, Mode::empty()).ok()?;
        let identity = Identity::of(&beneath::stat_fd(&fd).ok()?);
        Some((self.number(&identity)?, fd))
    }

    /// The number of the node that stands for something, if there is one.
    fn number(&self, identity: &Identity) -> Option<u64> {
        let id = self.nodes.number(self.devices.node(identity), identity);
        let node = self.nodes.get(id)?;
        (node.identity == *identity).then_some(id)
    }

    /// Closes what is kept open of a job's directory and of those below: as many are looked at as are kept
    /// open at most.
    fn let_go_below(&self, job: u64) {
        for id in self
            .directories
            .kept()
            .into_iter()
            .chain(self.listings.kept())
        {
            if self.nodes.is_below_job(id, job) {
                self.directories.let_go(id);
                self.listings.let_go(id);
            }
        }
    }
}
