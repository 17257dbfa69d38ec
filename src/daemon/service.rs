//! The view of a workspace, as the daemon serves it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::control::{self, ClientError};
use super::inventory;
use super::{Asked, Service};
use crate::archive::engine::Archiver;
use crate::mount;
use crate::view::{Beneath, LocationStatus, Root, View};
use crate::workspace::jobs::JobId;

/// The primary's directory beneath an in-place mount of it, if there is one: its path then leads into that mount.
///
/// # Errors
///
/// There is such a mount, and its daemon does not hand the directory out.
pub fn beneath(primary: &Path) -> Result<Option<OwnedFd>, ClientError> {
    control::beneath(primary)
}

/// Opens folders that lie in mounts of xpmfs, beneath them.
#[must_use]
pub fn beneath_folders() -> Arc<dyn Beneath> {
    Arc::new(control::Uncovered)
}

/// Whether no other mount, of those that can be seen from here, shows the workspace with this directory.
pub fn is_alone(primary: &Path) -> bool {
    inventory::take().is_ok_and(|mounts| !mounts.iter().any(|mount| mount.shows(None, primary)))
}

/// A workspace's view, with how it is mounted.
pub struct Workspace {
    view: Arc<View>,
    options: mount::Options,
    primary: Arc<Root>,
    archiver: Option<Arc<Archiver>>,
}

impl Workspace {
    /// Takes a view that is open, and who archives beside it.
    ///
    /// # Errors
    ///
    /// The primary is not open.
    pub fn new(
        view: Arc<View>,
        options: mount::Options,
        archiver: Option<Arc<Archiver>>,
    ) -> io::Result<Workspace> {
        let primary = view.primary().root()?;
        Ok(Workspace {
            view,
            options,
            primary,
            archiver,
        })
    }
}

/// How the locations of a view do, and archiving, if anything is archived.
pub(super) fn status(view: &View, archiver: Option<&Archiver>) -> serde_json::Value {
    let locations = view.locations().iter();
    let locations: Vec<LocationStatus> = locations.map(|location| location.status()).collect();
    let archive = archiver.map(Archiver::report);
    serde_json::json!({ "locations": locations, "archive": archive })
}

impl Service for Workspace {
    fn serve(&self, fuse: OwnedFd, ready: &dyn Fn()) -> io::Result<()> {
        mount::serve(self.view.clone(), self.options.clone(), fuse, ready)
    }

    fn stop(&self) {
        // What is under way is found by the next start.
        if let Some(archiver) = &self.archiver {
            archiver.stop();
        }
    }
}

impl Asked for Workspace {
    fn status(&self) -> serde_json::Value {
        let mut status = status(&self.view, self.archiver.as_deref());
        status["counts"] = serde_json::json!(self.options.census.take());
        status
    }

    fn archive(&self) -> Option<Arc<Archiver>> {
        self.archiver.clone()
    }

    fn is_written(&self, job: &JobId) -> bool {
        self.options.writers.is_written(job)
    }

    fn moved(&self, job: &JobId) {
        self.options.places.moved(job);
    }

    fn primary(&self) -> std::os::fd::BorrowedFd<'_> {
        // Whoever asks for it is going to change it, or to look at what others change.
        self.options.exclusive.give_up();
        self.primary.fd()
    }
}
