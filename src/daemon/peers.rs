//! The daemons that serve a workspace which another process archives: they know what is open, and want to know what has moved.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::control::{Client, ClientError, Identity, VERSION};
use super::health::PATIENCE;
use super::mounts::{self, Device, Mount};
use crate::archive::Hooks;
use crate::workspace::jobs::JobId;

/// How long the table of mounts is believed. Less than the old directory of a moved job is kept: a mount that has come
/// meanwhile is asked before that is removed.
const BELIEVED: Duration = Duration::from_secs(1);

/// When a daemon is asked again who has not said what it serves.
const AGAIN: Duration = Duration::from_secs(30);

/// How long a daemon that did not reply is not asked again.
const SILENT_FOR: Duration = Duration::from_secs(10);

/// The mounts of one workspace on this machine, but for this process's own. They may come and go.
#[derive(Debug)]
pub struct Peers {
    primary: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// When the table of mounts was looked at.
    looked: Option<Instant>,
    peers: Vec<Arc<Peer>>,
    /// Mounts that are none of them, and until when that is believed, if not for good.
    others: HashMap<Key, Option<Instant>>,
}

/// What tells a mount from all others that are there at the same time.
type Key = (u64, Device);

fn key(mount: &Mount) -> Key {
    (mount.id, mount.device)
}

impl Peers {
    /// Of the workspace with this directory, on this machine.
    ///
    /// # Errors
    ///
    /// The table of mounts cannot be read.
    pub fn of(primary: &Path) -> io::Result<Peers> {
        let peers = Peers {
            primary: primary.to_owned(),
            known: Mutex::default(),
        };
        peers.known.lock().look(&peers.primary)?;
        Ok(peers)
    }

    fn all(&self) -> Vec<Arc<Peer>> {
        let mut known = self.known.lock();
        let believed = known.looked.is_some_and(|at| at.elapsed() < BELIEVED);
        if !believed && let Err(error) = known.look(&self.primary) {
            tracing::warn!("cannot see who else serves the workspace: {error}");
        }
        known.peers.clone()
    }
}

impl Known {
    /// Looks who is there now.
    fn look(&mut self, primary: &Path) -> io::Result<()> {
        let mounts = mounts::xpmfs()?;
        let there = |wanted: &Key| mounts.iter().any(|mount| key(mount) == *wanted);
        self.peers.retain(|peer| there(&key(&peer.mount)));
        let now = Instant::now();
        self.others
            .retain(|mount, until| there(mount) && until.is_none_or(|until| until > now));
        for mount in &mounts {
            let is_peer = |peer: &Arc<Peer>| key(&peer.mount) == key(mount);
            if self.others.contains_key(&key(mount)) || self.peers.iter().any(is_peer) {
                continue;
            }
            match Peer::of(mount, primary) {
                Ok(Some(peer)) => self.peers.push(Arc::new(peer)),
                Ok(None) => drop(self.others.insert(key(mount), None)),
                Err(error) => {
                    tracing::debug!("{}: {error}", mount.mountpoint.display());
                    // One that nobody serves yet may be served in a moment.
                    if !matches!(error, ClientError::Nobody) {
                        self.others.insert(key(mount), Some(now + AGAIN));
                    }
                }
            }
        }
        self.looked = Some(Instant::now());
        Ok(())
    }
}

/// The daemon of a mount.
#[derive(Debug)]
struct Peer {
    mount: Mount,
    /// It hangs up on who says nothing for a while.
    client: Mutex<Option<Client>>,
    /// Until when a daemon that did not reply is not asked again: a stopped one would hold up every job.
    silent_until: Mutex<Option<Instant>>,
}

impl Peer {
    /// The daemon of a mount, if it serves a workspace with this directory and is another process.
    fn of(mount: &Mount, primary: &Path) -> Result<Option<Peer>, ClientError> {
        let mut client = Client::connect(mount.device, mount.owner())?;
        if client.pid() == i32::try_from(std::process::id()).ok() {
            return Ok(None);
        }
        let identity = client.request("identity")?;
        let identity: Identity =
            serde_json::from_value(identity).map_err(|_| ClientError::Nonsense)?;
        let serves = identity.primary.to_string_lossy() == primary.to_string_lossy();
        Ok(serves.then(|| Peer {
            mount: mount.clone(),
            client: Mutex::new(Some(client)),
            silent_until: Mutex::default(),
        }))
    }

    fn ask(&self, request: &Value) -> Result<Value, ClientError> {
        let silent = *self.silent_until.lock();
        if silent.is_some_and(|until| until > Instant::now()) {
            return Err(ClientError::Silent);
        }
        let reply = self.exchange(request);
        if let Err(ClientError::Silent) = &reply {
            tracing::warn!(
                "the daemon of the mount at {} does not answer: jobs count as open for writing there until it does",
                self.mount.mountpoint.display()
            );
            *self.silent_until.lock() = Some(Instant::now() + SILENT_FOR);
        }
        reply
    }

    fn exchange(&self, request: &Value) -> Result<Value, ClientError> {
        let mut kept = self.client.lock();
        // Whoever is silent may answer later: no other question is to get that answer.
        if let Some(mut client) = kept.take() {
            match client.exchange(request, PATIENCE) {
                Ok((reply, _)) => {
                    *kept = Some(client);
                    return Ok(reply);
                }
                Err(ClientError::Nobody) => {}
                Err(error) => return Err(error),
            }
        }
        let mut client = Client::connect(self.mount.device, self.mount.owner())?;
        let (reply, _) = client.exchange(request, PATIENCE)?;
        *kept = Some(client);
        Ok(reply)
    }
}

impl Peers {
    fn ask(&self, request: &str, job: &JobId) -> impl Iterator<Item = Result<Value, ClientError>> {
        let request = json!({ "version": VERSION, "request": request, "job": job });
        self.all().into_iter().map(move |peer| peer.ask(&request))
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
