//! What `mount --shared` and `umount` ask the daemon of a mount.

use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::holder::Holder;
use super::register::{Hold, UnmountAnswer};
use super::terms::Terms;
use crate::daemon::REPLY_TIMEOUT;
use crate::daemon::control::{Client, ClientError, VERSION};
use crate::daemon::health::{self, MountHealth};
use crate::daemon::mounts::MountInfo;

/// How long a mount may be without a daemon: a worker that was killed is replaced within a moment.
const REPLACEMENT_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// Asks to hold a mount. `None` if no process serves it.
///
/// # Errors
///
/// The daemon does not reply, or does not know the request.
pub fn hold(
    mount: &MountInfo,
    holder: &Holder,
    terms: &Terms,
) -> Result<Option<Hold>, ClientError> {
    let request = json!({
        "version": VERSION, "request": "hold", "holder": holder, "description": holder.description(),
        "terms": terms, "pid_namespace": pid_namespace(),
    });
    Ok(ask(mount, &request)?.map(|(reply, _)| reply))
}

/// Asks to unmount, and ends one hold of a holder. With [`UnmountAnswer::Unmount`], the client must stay connected until the mount has gone.
/// `None` if no process serves the mount, or its daemon registers no holders.
///
/// # Errors
///
/// The daemon does not reply.
pub fn release(
    mount: &MountInfo,
    holder: Option<&Holder>,
) -> Result<Option<(UnmountAnswer, Client)>, ClientError> {
    let request = json!({
        "version": VERSION, "request": "release", "holder": holder, "pid_namespace": pid_namespace(),
    });
    match ask(mount, &request) {
        // An older version, or a daemon without a control socket.
        Err(ClientError::Refused(_) | ClientError::NoDaemon) => Ok(None),
        asked => asked,
    }
}

/// The reply to a request, and the connection. Waits for a worker that is being replaced.
fn ask<R: DeserializeOwned>(
    mount: &MountInfo,
    request: &Value,
) -> Result<Option<(R, Client)>, ClientError> {
    let deadline = Instant::now() + REPLACEMENT_TIMEOUT;
    loop {
        let asked = Client::connect(mount.device, mount.owner()).and_then(|mut client| {
            let (reply, _) = client.exchange(request, REPLY_TIMEOUT)?;
            let reply = serde_json::from_value(reply).map_err(|_| ClientError::Nonsense)?;
            Ok((reply, client))
        });
        match asked {
            Err(ClientError::NoDaemon | ClientError::Silent) if Instant::now() < deadline => {
                if health::of(mount) == MountHealth::Dead {
                    return Ok(None);
                }
                std::thread::sleep(PAUSE);
            }
            asked => return asked.map(Some),
        }
    }
}

/// The pid namespace of this process; pids of another one mean other processes.
#[must_use]
pub fn pid_namespace() -> Option<u64> {
    let metadata = std::fs::metadata("/proc/self/ns/pid").ok()?;
    Some(std::os::unix::fs::MetadataExt::ino(&metadata))
}
