//! The view of a workspace, as the daemon serves it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::control::ClientError;
use super::inventory;
use super::uncovered;
use super::{Kept, Service, StatusSource};
use crate::archive::engine::Archiver;
use crate::archive::trash_upkeep::TrashCounts;
use crate::mount::{Activity, Handle, Mount, Recover, Serving};
use crate::view::{Beneath, LocationStatus, Root, View};
use crate::workspace::jobs::JobId;

/// The primary's directory beneath an in-place mount of it, if there is one: its path then leads into that mount.
///
/// # Errors
///
/// There is such a mount, and its daemon does not hand the directory out.
pub fn beneath(primary: &Path) -> Result<Option<OwnedFd>, ClientError> {
    uncovered::beneath(primary)
}

/// Opens folders that lie in mounts of xpmfs, beneath them.
#[must_use]
pub fn beneath_folders() -> Arc<dyn Beneath> {
    Arc::new(uncovered::Uncovered)
}

/// Whether no other mount, of those that can be seen from here, shows the workspace with this directory.
pub fn is_alone(primary: &Path) -> bool {
    inventory::take().is_ok_and(|mounts| !mounts.iter().any(|mount| mount.shows(None, primary)))
}

/// A workspace's view, and its mount.
pub struct WorkspaceService {
    view: Arc<View>,
    /// Until it is served.
    mount: Mutex<Option<Mount>>,
    handle: Handle,
    primary: Arc<Root>,
    archiver: Option<Arc<Archiver>>,
    recover: Option<Arc<dyn Recover>>,
    trash: Arc<TrashCounts>,
}

impl WorkspaceService {
    /// Returns a workspace with a mount of its view, and what archives and recovers jobs beside the mount.
    ///
    /// # Errors
    ///
    /// The primary is not open.
    pub fn new(
        view: Arc<View>,
        mount: Mount,
        archiver: Option<Arc<Archiver>>,
        recover: Option<Arc<dyn Recover>>,
        trash: Arc<TrashCounts>,
    ) -> io::Result<WorkspaceService> {
        let primary = view.primary().root()?;
        Ok(WorkspaceService {
            view,
            handle: mount.handle(),
            mount: Mutex::new(Some(mount)),
            primary,
            archiver,
            recover,
            trash,
        })
    }
}

/// The status of the locations, and of archiving if jobs are archived.
pub(super) fn status(
    view: &View,
    archiver: Option<&Archiver>,
    trash: &TrashCounts,
) -> serde_json::Value {
    let locations = view.locations().iter();
    let mut locations: Vec<LocationStatus> = locations.map(|location| location.status()).collect();
    if let Some(primary) = locations.first_mut() {
        primary.purged = Some(view.purged_count()).filter(|count| *count > 0);
    }
    let archive = archiver.map(Archiver::report);
    let mut status = serde_json::json!({ "locations": locations, "archive": archive });
    for (location, shown) in view
        .locations()
        .iter()
        .zip(status["locations"].as_array_mut().into_iter().flatten())
    {
        if let Some(count) = trash.of(location.index()) {
            shown["trash"] = serde_json::json!(count);
        }
    }
    status
}

impl Service for WorkspaceService {
    fn serve(&self, kept: Kept, ready: &dyn Fn()) -> io::Result<()> {
        let Some(mount) = self.mount.lock().take() else {
            return Err(io::Error::other("the mount has been served already"));
        };
        let archiver = self.archiver.clone();
        let serving = Serving {
            connection: kept.connection,
            keeper: kept.keeper,
            inheritance: kept.inheritance,
            activity: archiver.map(|archiver| archiver as Arc<dyn Activity>),
            recover: self.recover.clone(),
        };
        mount.serve(serving, ready)
    }

    fn stop(&self) {
        // What is under way is found by the next start.
        if let Some(archiver) = &self.archiver {
            archiver.stop();
        }
    }
}

impl StatusSource for WorkspaceService {
    fn status(&self) -> serde_json::Value {
        let mut status = status(&self.view, self.archiver.as_deref(), &self.trash);
        status["recoveries"] = serde_json::json!(self.handle.recoveries());
        status["counts"] = serde_json::json!(self.handle.counts());
        status
    }

    fn archive(&self) -> Option<Arc<Archiver>> {
        self.archiver.clone()
    }

    fn is_written(&self, job: &JobId) -> bool {
        self.handle.is_written(job)
    }

    fn has_writers(&self, job: &JobId) -> bool {
        self.handle.has_writers(job)
    }

    fn moved(&self, job: &JobId) {
        self.handle.moved(job);
    }

    fn primary(&self) -> std::os::fd::BorrowedFd<'_> {
        // A process that requests it will change it, or look at what other processes change.
        self.handle.primary_is_shared();
        self.primary.fd()
    }
}
