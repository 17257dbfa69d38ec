//! What the daemon answers to each request.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::VERSION;
use crate::archive::engine::Idle;
use crate::daemon::StatusSource;
use crate::daemon::sharing::command::pid_namespace;
use crate::daemon::sharing::holder::Holder;
use crate::daemon::sharing::register::{ClientId, Register, UnmountAnswer};
use crate::daemon::sharing::terms::Terms;
use crate::workspace::jobs::JobId;

/// The identity of a daemon, as it reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The process's id, in its own namespace.
    pub pid: u32,
    /// The process that would start another one if this one died, if there is one.
    #[serde(default)]
    pub supervisor: Option<u32>,
    /// Where it is mounted; none of a process that archives and mounts nothing.
    #[serde(default, with = "lossy::optional")]
    pub mountpoint: Option<PathBuf>,
    /// The workspace's id, if it has one.
    pub workspace: Option<String>,
    /// The workspace's own directory.
    #[serde(with = "lossy")]
    pub primary: PathBuf,
    /// When it was mounted, or archiving began, in seconds since 1970.
    pub since: i64,
    /// Mounted read-only; a remount may have changed it since, which the table of mounts shows.
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

    pub(super) mod optional {
        use super::{Deserialize, Deserializer, Path, PathBuf, Serializer};

        pub(in super::super) fn serialize<S: Serializer>(
            path: &Option<PathBuf>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            match path.as_deref().map(Path::to_string_lossy) {
                Some(path) => to.serialize_some(&path),
                None => to.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<PathBuf>, D::Error> {
            let path = Option::<String>::deserialize(from)?;
            Ok(path.map(PathBuf::from))
        }
    }
}

impl Identity {
    /// Of this process, which begins now, and logs to its standard error.
    #[must_use]
    pub fn of_this_process(
        mountpoint: Option<&Path>,
        workspace: Option<&str>,
        primary: &Path,
    ) -> Identity {
        Identity {
            pid: std::process::id(),
            supervisor: None,
            mountpoint: mountpoint.map(Path::to_owned),
            workspace: workspace.filter(|id| !id.is_empty()).map(str::to_owned),
            primary: primary.to_owned(),
            since: jiff::Timestamp::now().as_second(),
            read_only: false,
            log: "standard error".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Asks the supervisor of a mount to go on with another program, and to answer the command at the other end of a connection.
pub type Reload = Box<dyn Fn(&Path, BorrowedFd<'_>) -> io::Result<()> + Send + Sync>;

/// Answers the requests to one process.
pub struct Answers {
    /// What is asked.
    pub asked: Arc<dyn StatusSource>,
    /// Goes on with another program, if a supervisor can.
    pub reload: Option<Reload>,
    /// What it is.
    pub identity: Identity,
    /// The programs that hold the mount, if it is a mount.
    pub register: Option<Arc<Register>>,
}

/// A reply: a line, and perhaps a descriptor that travels with it.
pub(super) struct Response {
    pub(super) body: Value,
    pub(super) descriptor: Option<OwnedFd>,
}

impl Response {
    /// Whether the client may unmount.
    pub(super) fn permits_unmount(&self) -> bool {
        self.body["reply"] == json!(UnmountAnswer::Unmount)
    }
}

impl Answers {
    /// Answers one line of a client; `None` if another process answers it.
    pub(super) fn answer(
        &self,
        line: &[u8],
        client: ClientId,
        connection: BorrowedFd<'_>,
    ) -> Option<Response> {
        let request = serde_json::from_slice(line)
            .map_err(|error| format!("a request is one JSON object a line: {error}"));
        let answer = match request {
            Ok(request) if Request::is_reload(&request) => {
                match self.start_reload(request, connection) {
                    Ok(()) => return None,
                    Err(error) => Err(error),
                }
            }
            request => request.and_then(|request| self.answer_request(request, client)),
        };
        let (body, descriptor) = match answer {
            Ok((reply, descriptor)) => (json!({"version": VERSION, "reply": reply}), descriptor),
            Err(error) => (json!({"version": VERSION, "error": error}), None),
        };
        Some(Response { body, descriptor })
    }

    /// Called when a client has disconnected.
    pub(super) fn client_ended(&self, client: ClientId) {
        if let Some(register) = &self.register {
            register.client_ended(client);
        }
    }

    fn start_reload(&self, request: Request, connection: BorrowedFd<'_>) -> Result<(), String> {
        let program = request.program.ok_or("the request lacks a program")?;
        if self
            .register
            .as_ref()
            .is_some_and(|register| register.is_unmounting())
        {
            return Err("the mount is being unmounted".to_owned());
        }
        let reload = self.reload.as_ref();
        let reload = reload.ok_or("this process serves no mount")?;
        reload(&program, connection).map_err(|error| {
            if error.raw_os_error() == Some(libc::EMFILE) {
                return "the supervisor of the mount has too many files open".to_owned();
            }
            format!(
                "the mount has no supervisor any more, and only a supervisor can go on with another program: unmount it and mount it again ({error})"
            )
        })
    }

    fn answer_request(
        &self,
        request: Request,
        client: ClientId,
    ) -> Result<(Value, Option<OwnedFd>), String> {
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
                let job = request.job()?;
                let (written, open) = (self.asked.is_written(&job), self.asked.has_writers(&job));
                Ok((json!({ "written": written, "open": open }), None))
            }
            "moved" => {
                self.asked.moved(&request.job()?);
                Ok((json!({}), None))
            }
            "drain" => {
                if let Some(archiver) = self.asked.archive() {
                    archiver.retry_now();
                }
                Ok((json!({}), None))
            }
            "idle" => {
                let archiver = self.asked.archive();
                let idle = archiver.map_or(Idle::Yes, |archiver| archiver.is_idle());
                Ok((
                    serde_json::to_value(idle).map_err(|error| error.to_string())?,
                    None,
                ))
            }
            "hold" => Ok((self.hold(request)?, None)),
            "release" => Ok((self.release(&request, client)?, None)),
            unknown => Err(format!(
                "unknown request {unknown:?}; known are identity, status, primary, written, moved, drain, idle, hold, release, reload"
            )),
        }
    }

    fn identity(&self) -> Result<Value, String> {
        serde_json::to_value(&self.identity).map_err(|error| error.to_string())
    }

    fn status(&self) -> Result<Value, String> {
        let mut status = self.identity()?;
        if let Some(members) = status.as_object_mut() {
            members.insert("service".into(), self.asked.status());
            if let Some(register) = &self.register {
                members.insert("shared".into(), register.is_shared().into());
                members.insert("holders".into(), json!(register.holders()));
            }
        }
        Ok(status)
    }

    fn hold(&self, request: Request) -> Result<Value, String> {
        let register = self.register.as_ref().ok_or("nothing is mounted here")?;
        if request.pid_namespace != pid_namespace() {
            return Err(
                "the command and the daemon are in different pid namespaces, and pids mean other processes there"
                    .to_owned(),
            );
        }
        let holder = request.holder.ok_or("the request lacks a holder")?;
        let description = request.description.unwrap_or_else(|| holder.to_string());
        let terms = request.terms.unwrap_or_default();
        Ok(json!(register.hold(&holder, &description, &terms)))
    }

    fn release(&self, request: &Request, client: ClientId) -> Result<Value, String> {
        let same = request.pid_namespace == pid_namespace();
        let holder = request.holder.as_ref().filter(|_| same);
        let register = self.register.as_ref();
        let reply = register.map_or(UnmountAnswer::Unmount, |register| {
            register.release(holder, client)
        });
        Ok(json!(reply))
    }

    fn primary(&self) -> io::Result<OwnedFd> {
        self.asked.primary().as_fd().try_clone_to_owned()
    }
}

#[derive(Deserialize)]
struct Request {
    #[serde(default = "current")]
    version: u64,
    request: String,
    job: Option<JobId>,
    holder: Option<Holder>,
    description: Option<String>,
    terms: Option<Terms>,
    pid_namespace: Option<u64>,
    program: Option<PathBuf>,
}

impl Request {
    fn is_reload(request: &Request) -> bool {
        request.request == "reload" && request.version <= VERSION
    }

    fn job(self) -> Result<JobId, String> {
        self.job.ok_or_else(|| "the request lacks a job".to_owned())
    }
}

fn current() -> u64 {
    VERSION
}
