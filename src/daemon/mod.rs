//! The life of the process that serves a mount. Called by `cli`; calls `mount`.
//!
//! - [`run`]: serving one mount, from attaching to the end
//! - [`service`]: a workspace's view, as it is served
//! - [`archiving`]: archiving beside a mount, or without one; [`alone`]: a process that does nothing else
//! - [`background`]: a process that starts its daemon and waits until the mount answers
//! - [`signals`]: ending on SIGTERM and SIGINT
//! - [`service_manager`]: telling systemd
//! - [`limits`]: refusing to mount with too few descriptors or too little memory
//! - [`log`]: where the log goes
//! - [`unmount`]: unmounting from another process, and who is in the way ([`holders`])
//! - [`inventory`]: what is mounted, and how it does
//! - [`mounts`]: the table of mounts, and ours in it
//! - [`health`]: whether anybody serves a mount
//! - [`attach`]: putting `/dev/fuse` on a mount point, and taking it away
//! - [`control`]: the socket over which commands talk to a daemon
//! - [`options`]: the options of `-o`
//! - [`peers`]: the other daemons of a workspace that a daemon or a command archives
//! - [`drain`]: waiting until all is archived

pub mod alone;
pub mod archiving;
pub mod attach;
pub mod background;
pub mod control;
pub mod descriptors;
pub mod drain;
pub mod health;
pub mod holders;
pub mod inventory;
pub mod limits;
pub mod log;
pub mod mounts;
pub mod options;
pub mod peers;
pub mod run;
pub mod service;
pub mod service_manager;
pub mod signals;
pub mod unmount;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::archive::engine::Archiver;
use crate::workspace::jobs::JobId;

/// A file system that the daemon can serve.
pub trait Service: Asked {
    /// Answers the kernel's requests from `fuse` until the file system is unmounted everywhere. Calls
    /// `ready` once, when the kernel has been greeted and requests are being answered.
    ///
    /// # Errors
    ///
    /// The greeting failed, or the loop broke.
    fn serve(&self, fuse: OwnedFd, ready: &dyn Fn()) -> io::Result<()>;

    /// Ends what goes on beside serving. Called once it is no longer mounted, when nobody can ask for it any more: others may
    /// mount in its place meanwhile.
    fn stop(&self) {}
}

/// What commands ask over a control socket.
pub trait Asked: Send + Sync + 'static {
    /// What it tells of itself, for `status`. Must not wait for a disk that does not answer.
    fn status(&self) -> serde_json::Value;

    /// Whether a file of a job of the primary is open for writing.
    fn is_written(&self, _job: &JobId) -> bool {
        false
    }

    /// What leads to a job in the primary is another directory, or a symlink, from now on.
    fn moved(&self, _job: &JobId) {}

    /// How archiving does, if anything is archived.
    fn archive(&self) -> Option<Arc<Archiver>> {
        None
    }

    /// The primary's root directory, opened before anything was mounted on it.
    fn primary(&self) -> BorrowedFd<'_>;
}
