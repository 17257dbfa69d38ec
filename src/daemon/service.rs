//! The view of a workspace, as the daemon serves it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::Service;
use super::control::{self, ClientError};
use super::inventory;
use crate::mount;
use crate::view::{LocationStatus, Root, View};
use crate::workspace::jobs::JobId;

/// The primary's directory beneath an in-place mount of it, if there is one: its path then leads into that mount.
///
/// # Errors
///
/// There is such a mount, and its daemon does not hand the directory out.
pub fn beneath(primary: &Path) -> Result<Option<OwnedFd>, ClientError> {
    control::beneath(primary)
}

/// Whether no other mount, of those that can be seen from here, shows the workspace with this directory.
pub fn is_alone(primary: &Path) -> bool {
    inventory::take().is_ok_and(|mounts| !mounts.iter().any(|mount| mount.shows(None, primary)))
}

/// A workspace's view, with how it is mounted.
#[derive(Debug)]
pub struct Workspace {
    view: Arc<View>,
    options: mount::Options,
    primary: Arc<Root>,
}

impl Workspace {
    /// Takes a view that is open.
    ///
    /// # Errors
    ///
    /// The primary is not open.
    pub fn new(view: Arc<View>, options: mount::Options) -> io::Result<Workspace> {
        let primary = view.primary().root()?;
        Ok(Workspace {
            view,
            options,
            primary,
        })
    }
}

impl Service for Workspace {
    fn serve(&self, fuse: OwnedFd, ready: &dyn Fn()) -> io::Result<()> {
        mount::serve(self.view.clone(), self.options.clone(), fuse, ready)
    }

    fn status(&self) -> serde_json::Value {
        let locations = self.view.locations().iter();
        let answers: Vec<LocationStatus> = locations.map(|location| location.status()).collect();
        serde_json::json!({ "locations": answers, "counts": self.options.census.take() })
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
