//! The life of the process that serves a mount, or archives without one. Called by `cli`; calls `mount` and the rooms below it.
//!
//! A mount starts in these steps (`xpmfs mount`; in the foreground, without the second):
//!
//! 1. `cli::mount` reads the settings and makes the plan: [`plan`], what is served, where and how
//! 2. [`background`] starts another process with the same arguments, and waits until its mount replies
//! 3. [`supervisor::start`] divides that process into supervisor and worker
//! 4. In the worker, [`plan::Plan::serve`] opens the locations as a [`service`], and [`run::run`] attaches the mount, starts archiving and the
//!    control socket, and serves until the end (`mount::serve` has the loop)
//!
//! - [`run`]: serves one mount, from attaching to the end
//! - [`service`]: the view of a workspace as a service
//! - [`archiving`]: archives beside a mount, or without one, and recovers jobs for programs that use the mount; [`archiver`]: a process that does nothing else
//! - [`supervisor`]: replaces the process that serves a mount when it dies
//! - [`signals`]: ends on SIGTERM and SIGINT
//! - [`service_manager`]: notifies systemd
//! - [`limits`]: raises the limit of descriptors, and refuses to mount with too few of them or too little memory
//! - [`log`]: the destination of the log
//! - [`unmount`]: unmounts from another process; [`busy_processes`]: the processes that use a mount
//! - [`inventory`]: lists the mounts and their health
//! - [`mounts`]: the table of mounts, and those of xpmfs in it
//! - [`health`]: checks whether a process serves a mount
//! - [`uncovered`]: the directory beneath a mount, also of another user
//! - [`private_mount`]: ends a mount with the last process that sees it
//! - [`sharing`]: a mount that several programs share
//! - [`attach`]: mounts `/dev/fuse` on a mount point, and unmounts it
//! - [`control`]: the socket between commands and a daemon
//! - [`options`]: the options of `-o`
//! - [`peers`]: the other daemons of a workspace that a daemon or a command archives
//! - [`descriptors`]: closes what a process was started with
//! - [`drain`]: waits until all is archived

pub mod archiver;
pub mod archiving;
pub mod attach;
pub mod background;
pub mod busy_processes;
pub mod control;
pub mod descriptors;
pub mod drain;
pub mod health;
pub mod inventory;
pub mod limits;
pub mod log;
pub mod mounts;
pub mod options;
pub mod peers;
pub mod plan;
pub mod private_mount;
pub mod run;
pub mod service;
pub mod service_manager;
pub mod sharing;
pub mod signals;
pub mod supervisor;
pub mod uncovered;
pub mod unmount;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::archive::engine::Archiver;
use crate::mount::{Connection, Inheritance, Keeper};
use crate::workspace::jobs::JobId;

/// How long a mount, its daemon or a directory may take to reply to a command before it counts as silent.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// The connection of a mount, and what outlives the process that serves the mount.
pub struct Kept {
    /// The connection to the kernel.
    pub connection: Connection,
    /// Keeps what the next process needs.
    pub keeper: Option<Arc<dyn Keeper>>,
    /// What the previous process has left.
    pub inheritance: Option<Inheritance>,
}

/// A file system that the daemon can serve.
pub trait Service: StatusSource {
    /// Answers the kernel's requests until the file system is unmounted everywhere. Calls `ready` once, after the
    /// handshake with the kernel, when requests are answered.
    ///
    /// # Errors
    ///
    /// The handshake failed, or the loop ended with an error.
    fn serve(&self, kept: Kept, ready: &dyn Fn()) -> io::Result<()>;

    /// Ends the threads beside serving. Called after the unmount, when no process can ask for it; another mount may have its
    /// place then.
    fn stop(&self) {}
}

/// Replies to what commands ask over a control socket.
pub trait StatusSource: Send + Sync + 'static {
    /// Its state, for `status`. Must not wait for a disk.
    fn status(&self) -> serde_json::Value;

    /// Whether a file of a job of the primary is open for writing, or a program waits for the recovery of the job.
    fn is_written(&self, _job: &JobId) -> bool {
        false
    }

    /// As [`StatusSource::is_written`], but programs that wait for the recovery of the job do not count.
    fn has_writers(&self, _job: &JobId) -> bool {
        false
    }

    /// Called when the name of a job in the primary has another directory, or a symlink, from now on.
    fn moved(&self, _job: &JobId) {}

    /// The archiver, if anything is archived.
    fn archive(&self) -> Option<Arc<Archiver>> {
        None
    }

    /// The primary's root directory, opened before anything was mounted on it.
    fn primary(&self) -> BorrowedFd<'_>;
}
