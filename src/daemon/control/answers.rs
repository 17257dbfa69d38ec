//! What the daemon answers to each request.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::VERSION;
use crate::archive::engine::Idle;
use crate::daemon::Service;
use crate::workspace::jobs::JobId;

/// What a mount is, as its daemon tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The daemon's process id, in its own namespace.
    pub pid: u32,
    /// Where it is mounted.
    #[serde(with = "lossy")]
    pub mountpoint: PathBuf,
    /// The workspace's id, if it has one.
    pub workspace: Option<String>,
    /// The workspace's own directory.
    #[serde(with = "lossy")]
    pub primary: PathBuf,
    /// When it was mounted, in seconds since 1970.
    pub since: i64,
    /// No writing through the mount.
    pub read_only: bool,
    /// Where the daemon's log is, for a person.
    pub log: String,
    /// The daemon's version of xpmfs.
    pub version: String,
}

/// Paths in JSON: with replacement characters where they are not UTF-8.
mod lossy {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&path.to_string_lossy())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        String::deserialize(from).map(PathBuf::from)
    }
}

/// Answers the requests about one mount.
pub struct Answers {
    /// What is served.
    pub service: Arc<dyn Service>,
    /// What the mount is.
    pub identity: Identity,
}

/// A reply: a line, and perhaps a descriptor that travels with it.
pub(super) struct Reply {
    pub(super) body: Value,
    pub(super) descriptor: Option<OwnedFd>,
}

impl Answers {
    /// Answers one line.
    pub(super) fn answer(&self, line: &[u8]) -> Reply {
        let (body, descriptor) = match self.answer_request(line) {
            Ok((reply, descriptor)) => (json!({"version": VERSION, "reply": reply}), descriptor),
            Err(error) => (json!({"version": VERSION, "error": error}), None),
        };
        Reply { body, descriptor }
    }

    fn answer_request(&self, line: &[u8]) -> Result<(Value, Option<OwnedFd>), String> {
        let request: Request = serde_json::from_slice(line)
            .map_err(|error| format!("a request is one JSON object a line: {error}"))?;
        if request.version > VERSION {
            return Err(format!(
                "this daemon speaks version {VERSION} of the protocol and not {}: mount anew with the newer xpmfs",
                request.version
            ));
        }
        match request.request.as_str() {
            "identity" => Ok((self.identity()?, None)),
            "status" => Ok((self.status()?, None)),
            "primary" => Ok((json!({}), Some(self.primary().map_err(|e| e.to_string())?))),
            "written" => {
                let written = self.service.is_written(&request.job()?);
                Ok((json!({ "written": written }), None))
            }
            "moved" => {
                self.service.moved(&request.job()?);
                Ok((json!({}), None))
            }
            "drain" => {
                if let Some(archiver) = self.service.archive() {
                    archiver.retry_now();
                }
                Ok((json!({}), None))
            }
            "idle" => {
                let archiver = self.service.archive();
                let idle = archiver.map_or(Idle::Yes, |archiver| archiver.is_idle());
                Ok((
                    serde_json::to_value(idle).map_err(|error| error.to_string())?,
                    None,
                ))
            }
            unknown => Err(format!(
                "unknown request {unknown:?}; known are identity, status, primary, written, moved, drain, idle"
            )),
        }
    }

    fn identity(&self) -> Result<Value, String> {
        serde_json::to_value(&self.identity).map_err(|error| error.to_string())
    }

    fn status(&self) -> Result<Value, String> {
        let mut status = self.identity()?;
        if let Some(members) = status.as_object_mut() {
            members.insert("service".into(), self.service.status());
        }
        Ok(status)
    }

    fn primary(&self) -> io::Result<OwnedFd> {
        self.service.primary().as_fd().try_clone_to_owned()
    }
}

#[derive(Deserialize)]
struct Request {
    #[serde(default = "current")]
    version: u64,
    request: String,
    job: Option<JobId>,
}

impl Request {
    fn job(self) -> Result<JobId, String> {
        self.job.ok_or_else(|| "the request lacks a job".to_owned())
    }
}

fn current() -> u64 {
    VERSION
}
