//! The daemons that serve a workspace which another process archives: they know what is open, and want to know what has moved.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::REPLY_TIMEOUT;
use super::control::{Client, ClientError, Identity, VERSION};
use super::mounts::{self, Device, MountInfo};
use crate::archive::env::{Hooks, Writing};
use crate::sys::deadline::{all_within, within};
use crate::workspace::jobs::JobId;

/// How long a read table of mounts is used. Less than the old directory of a moved job is kept, so that a new mount is
/// asked before the directory is removed.
const MOUNT_TABLE_TTL: Duration = Duration::from_secs(1);

/// When a daemon that has not reported what it serves is asked again.
const UNIDENTIFIED_RETRY: Duration = Duration::from_secs(30);

/// When a daemon that did not reply is asked again: otherwise, each job would wait for it.
const SILENT_RETRY: Duration = Duration::from_secs(10);

/// The mounts of one workspace on this machine, but for this process's own. They may come and go.
#[derive(Debug)]
pub struct Peers {
    primary: PathBuf,
    /// The primary's path without symlinks, if it can be found.
    resolved: Option<PathBuf>,
    /// Held while the table is looked at and new mounts are asked, which may take [`REPLY_TIMEOUT`].
    looking: Mutex<()>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// When the table of mounts was looked at.
    looked: Option<Instant>,
    peers: Vec<Arc<Peer>>,
    /// Mounts that are not peers, and when each is checked again; `None`: never.
    others: HashMap<Key, Option<Instant>>,
    /// Mounts whose daemon has never replied, that may be of this workspace, and when each is asked again.
    silent: HashMap<Key, (MountInfo, Instant)>,
}

/// Distinguishes a mount from all others that exist at the same time.
type Key = (u64, Device);

fn key(mount: &MountInfo) -> Key {
    (mount.id, mount.device)
}

impl Peers {
    /// Of the workspace with this directory, on this machine.
    ///
    /// # Errors
    ///
    /// The table of mounts cannot be read.
    pub fn of(primary: &Path) -> io::Result<Peers> {
        let path = primary.to_owned();
        let resolved = within(REPLY_TIMEOUT, move || path.canonicalize());
        let peers = Peers {
            primary: primary.to_owned(),
            resolved: resolved.and_then(Result::ok),
            looking: Mutex::default(),
            known: Mutex::default(),
        };
        peers.look()?;
        Ok(peers)
    }

    /// The peers that have said that they serve the workspace.
    fn all(&self) -> Vec<Arc<Peer>> {
        let looking = self.looking.lock();
        let looked = self.known.lock().looked;
        let believed = looked.is_some_and(|at| at.elapsed() < MOUNT_TABLE_TTL);
        if !believed && let Err(error) = self.look() {
            tracing::warn!("cannot see who else serves the workspace: {error}");
        }
        drop(looking);
        self.known.lock().peers.clone()
    }

    /// A mount that has never replied and may be of this workspace.
    fn silent(&self) -> Option<PathBuf> {
        let known = self.known.lock();
        let mut silent = known.silent.values();
        silent.next().map(|(mount, _)| mount.mountpoint.clone())
    }

    /// Looks which mounts exist now, and asks those that have not replied yet, all at once.
    fn look(&self) -> io::Result<()> {
        let mounts = mounts::xpmfs()?;
        let due = self.known.lock().due(mounts);
        let questions = due.iter().map(|mount| {
            let (mount, primary) = (mount.clone(), self.primary.clone());
            move || Peer::of(&mount, &primary)
        });
        // Each question has its own limit, shorter than this one.
        let replies = all_within(REPLY_TIMEOUT * 3, questions);
        // If no thread can be started, this thread asks.
        let replies: Vec<Found> = due
            .iter()
            .zip(replies)
            .map(|(mount, reply)| reply.unwrap_or_else(|| Peer::of(mount, &self.primary)))
            .collect();
        let mut known = self.known.lock();
        for (mount, reply) in due.into_iter().zip(replies) {
            self.note(&mut known, mount, reply);
        }
        known.looked = Some(Instant::now());
        Ok(())
    }

    fn note(&self, known: &mut Known, mount: MountInfo, found: Found) {
        let now = Instant::now();
        let was_silent = known.silent.remove(&key(&mount)).is_some();
        match found {
            Found::Peer(peer) => known.peers.push(Arc::new(*peer)),
            Found::Other => drop(known.others.insert(key(&mount), None)),
            // One that no daemon serves yet may be served in a moment.
            Found::Failed(ClientError::NoDaemon) => {}
            Found::Failed(error) => {
                tracing::debug!("{}: {error}", mount.mountpoint.display());
                known
                    .others
                    .insert(key(&mount), Some(now + UNIDENTIFIED_RETRY));
            }
            Found::Silent(pid) if !self.may_serve(&mount, pid) => {
                known
                    .others
                    .insert(key(&mount), Some(now + UNIDENTIFIED_RETRY));
            }
            Found::Silent(_) => {
                if !was_silent {
                    warn_silent(&mount);
                }
                known
                    .silent
                    .insert(key(&mount), (mount, now + SILENT_RETRY));
            }
        }
    }

    /// Whether a daemon that does not reply may serve the workspace. A daemon keeps its primary open; where its descriptors may
    /// not be seen, as those of another user, it may.
    fn may_serve(&self, mount: &MountInfo, pid: Option<i32>) -> bool {
        let (Some(pid), Some(resolved)) = (pid, &self.resolved) else {
            return true;
        };
        let in_place = [&self.primary, resolved].contains(&&mount.mountpoint);
        let open = std::fs::read_dir(format!("/proc/{pid}/fd"));
        in_place
            || open.map_or(true, |mut open| {
                // The symlink is read, and not followed.
                open.any(|entry| {
                    entry.is_ok_and(|entry| {
                        std::fs::read_link(entry.path()).is_ok_and(|path| path == *resolved)
                    })
                })
            })
    }
}

impl Known {
    /// Forgets the mounts that are gone, and gives those that are to be asked now.
    fn due(&mut self, mounts: Vec<MountInfo>) -> Vec<MountInfo> {
        let there: HashSet<Key> = mounts.iter().map(key).collect();
        let now = Instant::now();
        self.peers.retain(|peer| there.contains(&key(&peer.mount)));
        self.silent.retain(|mount, _| there.contains(mount));
        self.others
            .retain(|mount, until| there.contains(mount) && until.is_none_or(|until| until > now));
        let mut due = mounts;
        due.retain(|mount| {
            let mount = key(mount);
            let waits = self
                .silent
                .get(&mount)
                .is_some_and(|(_, until)| *until > now);
            let is_peer = |peer: &Arc<Peer>| key(&peer.mount) == mount;
            !waits && !self.others.contains_key(&mount) && !self.peers.iter().any(is_peer)
        });
        due
    }
}

/// What a mount is to the workspace.
enum Found {
    /// A mount of it.
    Peer(Box<Peer>),
    /// Of another workspace, or this process's own.
    Other,
    /// Its daemon, of this process id, did not reply in time.
    Silent(Option<i32>),
    /// It cannot be asked.
    Failed(ClientError),
}

fn warn_silent(mount: &MountInfo) {
    tracing::warn!(
        "the daemon of the mount at {} does not answer: no job is moved until it does, since it may have files open for writing",
        mount.mountpoint.display()
    );
}

/// The daemon of a mount.
#[derive(Debug)]
struct Peer {
    mount: MountInfo,
    /// The daemon disconnects idle clients.
    client: Mutex<Option<Client>>,
    /// Until when a daemon that did not reply is not asked again: a stopped one would hold up every job.
    silent_until: Mutex<Option<Instant>>,
}

impl Peer {
    /// Asks the daemon of a mount whether it serves a workspace with this directory and is another process.
    fn of(mount: &MountInfo, primary: &Path) -> Found {
        let mut client = match Client::connect(mount.device, mount.owner()) {
            Ok(client) => client,
            Err(ClientError::Silent | ClientError::Io(_)) => return Found::Silent(None),
            Err(error) => return Found::Failed(error),
        };
        let pid = client.pid();
        if pid == i32::try_from(std::process::id()).ok() {
            return Found::Other;
        }
        let identity = match client.request("identity") {
            Ok(identity) => identity,
            Err(ClientError::Silent | ClientError::Io(_)) => return Found::Silent(pid),
            Err(error) => return Found::Failed(error),
        };
        let Ok(identity) = serde_json::from_value::<Identity>(identity) else {
            return Found::Failed(ClientError::Nonsense);
        };
        if identity.primary.to_string_lossy() != primary.to_string_lossy() {
            return Found::Other;
        }
        Found::Peer(Box::new(Peer {
            mount: mount.clone(),
            client: Mutex::new(Some(client)),
            silent_until: Mutex::default(),
        }))
    }

    fn ask(&self, request: &Value) -> Result<Value, ClientError> {
        // Before it is looked whether it is silent: who waits here for another job's question shares its result.
        let mut kept = self.client.lock();
        let silent = *self.silent_until.lock();
        if silent.is_some_and(|until| until > Instant::now()) {
            return Err(ClientError::Silent);
        }
        let reply = self.exchange(&mut kept, request);
        let mut silent = self.silent_until.lock();
        if let Err(ClientError::Silent) = &reply {
            if silent.is_none() {
                warn_silent(&self.mount);
            }
            *silent = Some(Instant::now() + SILENT_RETRY);
        } else {
            *silent = None;
        }
        reply
    }

    fn exchange(&self, kept: &mut Option<Client>, request: &Value) -> Result<Value, ClientError> {
        // A silent daemon may reply later: another request must not get that reply.
        if let Some(mut client) = kept.take() {
            match client.exchange(request, REPLY_TIMEOUT) {
                Ok((reply, _)) => {
                    *kept = Some(client);
                    return Ok(reply);
                }
                Err(ClientError::NoDaemon) => {}
                Err(error) => return Err(error),
            }
        }
        let mut client = Client::connect(self.mount.device, self.mount.owner())?;
        let (reply, _) = client.exchange(request, REPLY_TIMEOUT)?;
        *kept = Some(client);
        Ok(reply)
    }
}

impl Peers {
    fn ask(
        &self,
        request: &str,
        job: &JobId,
    ) -> impl Iterator<Item = (PathBuf, Result<Value, ClientError>)> {
        let request = json!({ "version": VERSION, "request": request, "job": job });
        self.all()
            .into_iter()
            .map(move |peer| (peer.mount.mountpoint.clone(), peer.ask(&request)))
    }
}

impl Peers {
    /// Asks whether a job is written: `is_it` reads the reply.
    fn ask_written(&self, job: &JobId, is_it: impl Fn(&Value) -> bool) -> Writing {
        let mut unknown = None;
        for (mountpoint, reply) in self.ask("written", job) {
            match reply {
                Ok(reply) if is_it(&reply) => return Writing::Yes,
                Ok(_) => {}
                // It ended, or is of a version that does not know.
                Err(ClientError::NoDaemon | ClientError::Refused(_)) => {}
                Err(_) => unknown = Some(mountpoint),
            }
        }
        unknown
            .or_else(|| self.silent())
            .map_or(Writing::No, Writing::Unknown)
    }
}

impl Hooks for Peers {
    fn writing(&self, job: &JobId) -> Writing {
        self.ask_written(job, |reply| reply["written"] == true)
    }

    fn open_for_writing(&self, job: &JobId) -> Writing {
        // An earlier version has only the other member.
        self.ask_written(job, |reply| {
            reply["open"].as_bool().unwrap_or(reply["written"] == true)
        })
    }

    fn mountpoints(&self) -> Vec<PathBuf> {
        let peers = self.all().into_iter();
        peers.map(|peer| peer.mount.mountpoint.clone()).collect()
    }

    fn moved(&self, job: &JobId) {
        for (_, reply) in self.ask("moved", job) {
            if let Err(error) = reply {
                tracing::debug!("{job}: {error}");
            }
        }
    }
}
