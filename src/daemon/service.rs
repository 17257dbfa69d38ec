//! The view of a workspace, as the daemon serves it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::Service;
use super::control::{self, ClientError};
use super::inventory;
use crate::mount;
use crate::view::{Location, LocationStatus, Root, View};

/// How long the disks have, all together, to tell their free space.
const PATIENCE: Duration = Duration::from_secs(1);

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
    /// For each location, whether a question is still out that it has not answered.
    asked: Vec<Arc<AtomicBool>>,
}

impl Workspace {
    /// Takes a view that is open.
    ///
    /// # Errors
    ///
    /// The primary is not open.
    pub fn new(view: Arc<View>, options: mount::Options) -> io::Result<Workspace> {
        let primary = view.primary().root()?;
        let asked = view.locations().iter().map(|_| Arc::default()).collect();
        Ok(Workspace {
            asked,
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
        let end = Instant::now() + PATIENCE;
        let locations = self.view.locations();
        let questions: Vec<_> = locations
            .iter()
            .zip(&self.asked)
            .map(|(location, asked)| ask(location, asked))
            .collect();
        let answers: Vec<LocationStatus> = locations
            .iter()
            .zip(questions)
            .map(|(location, question)| {
                let left = end.saturating_duration_since(Instant::now());
                question
                    .and_then(|question| question.recv_timeout(left).ok())
                    .unwrap_or_else(|| silent(location))
            })
            .collect();
        serde_json::json!({ "locations": answers, "counts": self.options.census.take() })
    }

    fn primary(&self) -> std::os::fd::BorrowedFd<'_> {
        // Whoever asks for it is going to change it, or to look at what others change.
        self.options.exclusive.give_up();
        self.primary.fd()
    }
}

/// Asks a location how it does, from a thread of its own; not again while it has not answered, so that no number of
/// questions about a disk that hangs piles threads up.
fn ask(location: &Arc<Location>, asked: &Arc<AtomicBool>) -> Option<Receiver<LocationStatus>> {
    if asked.swap(true, Ordering::AcqRel) {
        return None;
    }
    let (answer, question) = mpsc::sync_channel(1);
    let (location, pending) = (location.clone(), asked.clone());
    let spawned = thread::Builder::new().name("status".into()).spawn(move || {
        let status = location.status();
        pending.store(false, Ordering::Release);
        // Nobody waits for it any more, if it took long.
        let _ = answer.send(status);
    });
    if spawned.is_err() {
        asked.store(false, Ordering::Release);
    }
    spawned.ok().map(|_| question)
}

fn silent(location: &Location) -> LocationStatus {
    LocationStatus {
        mode: location.role().to_string(),
        path: location.path().to_owned(),
        state: "does not answer".to_owned(),
        free: None,
        total: None,
    }
}
