//! The daemons that serve a workspace which a command works on itself: they know what is open, and want to know what has moved.

use std::io;
use std::path::Path;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::control::{Client, ClientError, VERSION};
use super::health::PATIENCE;
use super::inventory;
use crate::archive::Hooks;
use crate::workspace::jobs::JobId;

/// Connections to the daemons that serve one workspace.
#[derive(Debug, Default)]
pub struct Peers {
    clients: Vec<Mutex<Client>>,
}

impl Peers {
    /// Of the workspace with this directory, on this machine.
    ///
    /// # Errors
    ///
    /// The table of mounts cannot be read.
    pub fn of(primary: &Path) -> io::Result<Peers> {
        let mounts = inventory::take()?.into_iter();
        let clients = mounts
            .filter(|mounted| mounted.identity.is_some() && mounted.shows(None, primary))
            .filter_map(|mounted| {
                Client::connect(mounted.mount.device, mounted.mount.owner()).ok()
            });
        Ok(Peers {
            clients: clients.map(Mutex::new).collect(),
        })
    }

    fn ask(&self, request: &str, job: &JobId) -> impl Iterator<Item = Result<Value, ClientError>> {
        let request = json!({ "version": VERSION, "request": request, "job": job });
        self.clients.iter().map(move |client| {
            let reply = client.lock().exchange(&request, PATIENCE);
            reply.map(|(reply, _)| reply)
        })
    }
}

impl Hooks for Peers {
    fn is_written(&self, job: &JobId) -> bool {
        self.ask("written", job).any(|reply| match reply {
            Ok(reply) => reply["written"] == true,
            // It ended, or is of a version that does not know.
            Err(ClientError::Nobody | ClientError::Refused(_)) => false,
            // Who does not answer may be writing.
            Err(_) => true,
        })
    }

    fn moved(&self, job: &JobId) {
        for reply in self.ask("moved", job) {
            if let Err(error) = reply {
                tracing::debug!("{job}: {error}");
            }
        }
    }
}
