//! A process that archives a workspace which it does not mount, and how it is found and asked.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::StatusSource;
use super::control::{Answers, Client, Identity, Server, SocketName};
use super::service;
use crate::archive::engine::Archiver;
use crate::archive::trash_upkeep::TrashCounts;
use crate::view::{Root, View};

/// The replies of such a process.
struct Alone {
    view: Arc<View>,
    archiver: Arc<Archiver>,
    trash: Arc<TrashCounts>,
    primary: Arc<Root>,
}

impl StatusSource for Alone {
    fn status(&self) -> Value {
        service::status(&self.view, Some(&self.archiver), &self.trash)
    }

    fn archive(&self) -> Option<Arc<Archiver>> {
        Some(self.archiver.clone())
    }

    fn primary(&self) -> BorrowedFd<'_> {
        self.primary.fd()
    }
}

/// Opens the control socket of this process, which archives a workspace. Without a socket it still archives, but commands cannot query it.
#[must_use]
pub fn listen(
    view: &Arc<View>,
    archiver: &Arc<Archiver>,
    trash: Arc<TrashCounts>,
    workspace: &str,
) -> Option<Server> {
    let identity = Identity::of_this_process(None, Some(workspace), view.primary_path());
    let primary = view.primary().root().ok()?;
    let asked = Alone {
        view: view.clone(),
        archiver: archiver.clone(),
        trash,
        primary,
    };
    let answers = Answers {
        asked: Arc::new(asked),
        reload: None,
        identity,
        register: None,
    };
    Server::start(SocketName::Archiver(std::process::id()), answers)
        .inspect_err(|error| {
            tracing::warn!(
                "no control socket, so `xpmfs status` does not list this process: {error}"
            );
        })
        .ok()
}

/// A process that archives a workspace.
#[derive(Debug)]
pub struct Archiving {
    /// What it works on.
    pub identity: Identity,
    /// Its process id here, if this pid namespace has it.
    pub pid: Option<i32>,
    /// The status of its folders and of archiving.
    pub service: Value,
}

impl Archiving {
    /// Whether it archives the workspace with this directory.
    #[must_use]
    pub fn is_of(&self, primary: &Path) -> bool {
        self.identity.primary.to_string_lossy() == primary.to_string_lossy()
    }
}

/// All such processes of this user that answer.
#[must_use]
pub fn take() -> Vec<Archiving> {
    let asked = Client::ask_archivers("status").into_iter();
    let archiving = asked.filter_map(|(client, mut status)| {
        let service = status.get_mut("service").map(Value::take)?;
        Some(Archiving {
            pid: client.pid(),
            service,
            identity: serde_json::from_value(status).ok()?,
        })
    });
    archiving.collect()
}
