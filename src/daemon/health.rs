//! Checks whether a process serves a mount.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::Errno;

use super::REPLY_TIMEOUT;
use super::control::{Client, ClientError};
use super::mounts::MountInfo;
use crate::sys::deadline::within;

/// The health of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountHealth {
    /// It is served.
    Serving {
        /// The process, if known.
        pid: Option<i32>,
    },
    /// No process serves it: "Transport endpoint is not connected".
    Dead,
    /// It does not answer in time.
    Silent {
        /// The process that should, if known.
        pid: Option<i32>,
    },
    /// It is another user's, and only that user may look.
    Foreign,
}

/// The health of `mount`, within [`REPLY_TIMEOUT`].
///
/// The daemon's control socket is asked first, since that does not enter the mount: a process that waits for
/// a daemon that hangs in a request cannot be killed.
#[must_use]
pub fn of(mount: &MountInfo) -> MountHealth {
    if mount.is_xpmfs() {
        match Client::connect(mount.device, mount.owner()) {
            Ok(mut client) => {
                let pid = client.pid();
                match client.request("identity") {
                    Ok(_) | Err(ClientError::Refused(_)) => return MountHealth::Serving { pid },
                    Err(ClientError::Silent) => return MountHealth::Silent { pid },
                    Err(_) => {}
                }
            }
            Err(ClientError::Silent) => return MountHealth::Silent { pid: None },
            Err(_) => {}
        }
    }
    probe(mount)
}

/// Asks the file system itself for its root's attributes, past the kernel's cache.
fn probe(mount: &MountInfo) -> MountHealth {
    let path = mount.mountpoint.clone();
    match within(REPLY_TIMEOUT, move || ask(&path)) {
        None => MountHealth::Silent { pid: None },
        Some(Err(Errno::NOTCONN | Errno::CONNABORTED)) => MountHealth::Dead,
        Some(Err(Errno::ACCESS | Errno::PERM)) => MountHealth::Foreign,
        Some(_) => MountHealth::Serving { pid: None },
    }
}

/// Whether the mount at `path` answers, however long it takes. For a process that does nothing else: while a daemon has
/// taken the request and does not answer it, that process cannot be killed.
#[must_use]
pub fn answers(path: &Path) -> bool {
    ask(path).is_ok()
}

fn ask(path: &Path) -> Result<(), Errno> {
    let flags = AtFlags::STATX_FORCE_SYNC | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(CWD, path, flags, StatxFlags::BASIC_STATS).map(|_| ())
}
