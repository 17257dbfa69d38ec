//! The view of a workspace, as the daemon serves it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Service;
use crate::mount;
use crate::view::{LocationStatus, Root, View};

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
        let folders: Vec<LocationStatus> =
            self.view.locations().iter().map(|l| l.status()).collect();
        serde_json::json!({ "locations": folders })
    }

    fn primary(&self) -> std::os::fd::BorrowedFd<'_> {
        self.primary.fd()
    }
}
