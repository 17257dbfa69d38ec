//! Serves a view to the kernel: receives FUSE requests and answers them from the view.
//!
//! A request comes in at the top of this list, and calls downwards:
//!
//! - [`fuse`]: implements fuser's trait, and does nothing else; [`capabilities`]: what is agreed with the kernel
//! - [`replies`]: sends results to the kernel
//! - [`deferred`]: replies that come later; [`timeouts`]: how long requests wait for a folder; [`load`]: how many take
//!   long; [`open_limit`]: opens that wait for other files to be closed
//! - [`ops`]: the operations, one file per group
//! - [`copy_up`]: where a change to an archived job is made, and whether it is permitted
//! - [`locate`]: from a node to the directory and the name where it lies; [`renamed_dirs`]: directories that other
//!   processes rename
//! - [`caller`]: umask, ownership and rights of the calling process
//! - [`ttl`]: how long the kernel may cache names and attributes; [`attributes`]: from `statx` to what the kernel expects
//! - [`tables`]: what is kept in memory
//!
//! Beside the requests:
//!
//! - [`handle`]: what others may ask of a mount and report to it; [`moved_jobs`]: jobs that other processes move
//! - [`activity`]: reports of altered jobs to the archiver
//! - [`mapped_files`]: open files that other processes change
//! - [`readahead`]: reads jobs before they are requested
//!
//! `daemon` calls this room; this room calls `view`, `archive` (which receives reports) and the rooms below it.
//!
//! # Invariants
//!
//! - A node is the identity of its file: device, inode and time of birth. Hard links are one node, a job that is served
//!   from another place gets new nodes by itself, and an inode number that the disk reuses is distinguished by its
//!   generation.
//! - A node knows its parent and its name and holds no descriptor. Its place is found by opening its directory (from a
//!   bounded cache) and looking the name up; the file found there is compared with the identity. If they differ, the
//!   request fails with `ESTALE`, and the kernel looks the path up again. No concurrent renaming by other processes can
//!   lead out of a location.
//! - No lock is held over a system call that can block on a disk.

mod activity;
mod attributes;
mod caller;
mod capabilities;
mod copy_up;
mod deferred;
mod fuse;
mod handle;
mod load;
mod locate;
mod mapped_files;
mod moved_jobs;
mod open_limit;
mod ops;
mod readahead;
mod renamed_dirs;
mod replies;
mod tables;
mod timeouts;
mod ttl;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use handle::{Activity, Counts, Handle};

use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::view::View;

/// How a view is mounted.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Other users may use the mount: the kernel checks rights against the attributes, and new files belong to the user
    /// who made them.
    pub allow_other: bool,
    /// The kernel checks rights (`default_permissions`): opening a directory needs no request.
    pub default_permissions: bool,
    /// Reading leaves access times unchanged (`noatime`); the kernel then reads and writes no file by itself.
    pub noatime: bool,
    /// The primary is mounted in place, and no other mount of this machine serves it.
    pub alone: bool,
}

/// How many requests are processed at the same time.
const LOOP_THREADS: usize = 8;

/// A view that is served to the kernel.
#[derive(Debug)]
pub struct Mount {
    view: Arc<View>,
    options: Options,
    nodes: Arc<tables::nodes::Nodes>,
    devices: Arc<tables::numbers::Devices>,
    dir_cache: Arc<tables::dir_cache::DirCache>,
    handles: Arc<tables::handles::Handles>,
    open_limit: Arc<open_limit::OpenLimit>,
    passthrough: Arc<tables::passthrough::Passthrough>,
    contended: tables::contended::Contended,
    retries: tables::retries::Retries,
    renamed: renamed_dirs::Renamed,
    timeouts: Arc<timeouts::Timeouts>,
    deferred: deferred::Deferred,
    listings: Arc<tables::listings::Listings>,
    readahead: readahead::Readahead,
    locks: ops::locks::Waiter,
    lock_names: Arc<tables::lock_names::LockNames>,
    invalidate: Arc<tables::invalidate::Invalidator>,
    touched: activity::Touched,
    /// Whether only this mount changes the primary.
    exclusive: Arc<AtomicBool>,
    load: Arc<load::Load>,
}

impl Mount {
    /// Makes a mount of a view, which is served later. The process's limit of descriptors must not change any more: it
    /// bounds the mount's caches and open files.
    ///
    /// # Errors
    ///
    /// The primary is not open, or cannot be examined.
    pub fn new(view: Arc<View>, options: Options) -> io::Result<Mount> {
        let root = view.primary().root()?;
        let stat = at::stat_fd(root.fd())?;
        let identity = FileId::of(&stat);
        let exclusive = options.alone && ttl::is_local(root.fd());
        Ok(Mount {
            touched: activity::Touched::default(),
            exclusive: Arc::new(exclusive.into()),
            view,
            options,
            nodes: Arc::new(tables::nodes::Nodes::new(identity)),
            devices: Arc::new(tables::numbers::Devices::new(identity)),
            dir_cache: Arc::default(),
            handles: Arc::default(),
            open_limit: Arc::default(),
            passthrough: Arc::default(),
            contended: tables::contended::Contended::default(),
            retries: tables::retries::Retries::default(),
            renamed: renamed_dirs::Renamed::default(),
            timeouts: Arc::default(),
            deferred: deferred::Deferred::default(),
            listings: Arc::default(),
            readahead: readahead::Readahead::default(),
            locks: ops::locks::Waiter::default(),
            lock_names: Arc::default(),
            invalidate: Arc::default(),
            load: Arc::new(load::Load::new()),
        })
    }
}

impl Mount {
    /// The cached state of jobs, to be dropped when a job is moved.
    fn job_caches(&self) -> moved_jobs::JobCaches {
        moved_jobs::JobCaches {
            view: self.view.clone(),
            devices: self.devices.clone(),
            nodes: self.nodes.clone(),
            dir_cache: self.dir_cache.clone(),
            listings: self.listings.clone(),
            invalidate: self.invalidate.clone(),
        }
    }

    /// Serves the mount on an open `/dev/fuse` that has been mounted, until it is unmounted. Reports to `activity` which
    /// jobs of the primary are altered. Calls `ready` after the handshake with the kernel, just before the first request
    /// is answered.
    ///
    /// # Errors
    ///
    /// The error of the handshake with the kernel or of its device.
    pub fn serve(
        mut self,
        fuse: OwnedFd,
        activity: Option<Arc<dyn Activity>>,
        ready: &dyn Fn(),
    ) -> io::Result<()> {
        let mut config = fuser::Config::default();
        config.n_threads = Some(LOOP_THREADS);
        config.clone_fd = true;
        self.readahead.start(&self.view)?;
        self.timeouts.start(&self.view)?;
        if let Some(activity) = activity {
            self.touched = activity::Touched::start(activity, &self.nodes)?;
        }
        self.view.on_change(self.folder_closer());
        self.view.is_crowded_by({
            let load = self.load.clone();
            move || load.is_high()
        });
        let invalidate = self.invalidate.clone();
        let watch = mapped_files::Watch {
            handles: Arc::downgrade(&self.handles),
            nodes: self.nodes.clone(),
            passthrough: self.passthrough.clone(),
            invalidate: invalidate.clone(),
        };
        // The kernel itself keeps other users out unless `allow_other` is set.
        let acl = fuser::SessionACL::All;
        let session = fuser::Session::from_fd(fuse::Fuse::new(self), fuse, acl, config)?;
        invalidate.start(session.notifier())?;
        watch.start()?;
        ready();
        session.run()
    }

    /// Closes the descriptors kept for a folder, whose file system could not be unmounted otherwise, and makes the
    /// kernel look its jobs up anew.
    fn folder_closer(&self) -> impl Fn(u8) + Send + Sync + 'static {
        let (nodes, directories) = (self.nodes.clone(), self.dir_cache.clone());
        let (listings, invalidate) = (self.listings.clone(), self.invalidate.clone());
        let close_readahead = self.readahead.folder_closer();
        move |folder| {
            close_readahead();
            let mut kept = Vec::new();
            nodes.each(|id, node| {
                if node.role == tables::nodes::Role::Job && node.place == folder {
                    // With the job, the kernel forgets all nodes below it.
                    invalidate.node(id, node);
                }
                // Unions are kept open in every location, not only in their own.
                let union = matches!(
                    node.role,
                    tables::nodes::Role::Jobs | tables::nodes::Role::Task
                );
                if node.directory && (node.place == folder || union) {
                    kept.push(id);
                }
            });
            for id in kept {
                directories.close(id);
                listings.close(id);
            }
        }
    }
}
