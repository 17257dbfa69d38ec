//! What other rooms may ask of a mount and report to it. What a mount reports to them is in `activity`.
//!
//! A mount is made before those who use it: `daemon` makes the mount, passes its [`Handle`] to the archiver and to the
//! control socket, and then serves the mount. A handle also works before and after that: no job is being written then.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use serde::Serialize;

use crate::mount::Mount;
use crate::mount::moved_jobs::JobCaches;
use crate::mount::recovery::RunningRecovery;
use crate::mount::tables::handles::{File, Handles};
use crate::mount::tables::nodes::{Node, NodeRole, Nodes};
use crate::mount::tables::ttl::Ttls;
use crate::sys::at;
use crate::view::PRIMARY;
use crate::workspace::internal::{Class, classify, classify_nested};
use crate::workspace::jobs::JobId;
use crate::workspace::layout;

/// The numbers of objects that a mount keeps because the kernel refers to them: to find leaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Files and directories that the kernel has looked up and not forgotten.
    pub nodes: usize,
    /// Open files, counted once per open.
    pub files: usize,
}

/// A mount, as other rooms see it.
#[derive(Debug, Clone)]
pub struct Handle {
    caches: JobCaches,
    files: Arc<Handles>,
    ttls: Arc<Ttls>,
}

impl Mount {
    /// The cached state of jobs, to be dropped when a job is moved.
    pub(super) fn job_caches(&self) -> JobCaches {
        JobCaches {
            view: self.view.clone(),
            devices: self.devices.clone(),
            nodes: self.nodes.clone(),
            dir_cache: self.dir_cache.clone(),
            listings: self.listings.clone(),
            invalidate: self.invalidate.clone(),
            recoveries: self.recoveries.clone(),
            node_changes: self.node_changes.clone(),
            superseded: self.superseded.clone(),
        }
    }

    /// Returns what other rooms may ask of this mount.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            caches: self.job_caches(),
            files: self.handles.clone(),
            ttls: self.ttls.clone(),
        }
    }
}

impl Handle {
    /// Whether a file of a job in the primary is open for writing now, or mapped, or a request waits for the recovery of
    /// the job.
    ///
    /// A file with several names counts for the jobs of all names known to the mount. A file without a name does not
    /// count, nor do files that are not archived, like the job's lock: the caller must check on the disk whether the
    /// lock is held. For a job that has been moved, the files that were opened before the move count. Takes time
    /// proportional to the number of open files.
    #[must_use]
    pub fn is_written(&self, job: &JobId) -> bool {
        self.caches.recoveries.holds(job) || self.has_writers(job)
    }

    /// As [`Handle::is_written`], but requests that wait for the recovery of the job do not count.
    #[must_use]
    pub fn has_writers(&self, job: &JobId) -> bool {
        is_written(&self.files, &self.caches.nodes, job)
    }

    /// Reports that the directory of a job in the primary has become a symlink to a folder, or the other way round. The
    /// caller must do so after the exchange, and before the removal of the previous entry, now called `.tmp.<hash>`:
    /// the mount then finds the job anew at once and keeps no cached descriptor below its old directory open, but those of
    /// listings that were begun. Files that other processes have open stay readable.
    ///
    /// Sends no request to the mount and waits for none. Accesses the primary's disk, and those of folders with a
    /// deadline.
    pub fn moved(&self, job: &JobId) {
        self.caches.moved(job);
    }

    /// Reports that other processes may change the primary from now on: the kernel must no longer cache for long what
    /// it shows.
    pub fn primary_is_shared(&self) {
        if self.ttls.primary_is_shared() {
            let (nodes, invalidate) = (&self.caches.nodes, &self.caches.invalidate);
            nodes.each(|id, node| invalidate.node(id, node));
        }
    }

    /// Returns the recoveries that requests wait for.
    #[must_use]
    pub fn recoveries(&self) -> Vec<RunningRecovery> {
        self.caches.recoveries.running()
    }

    /// Returns the numbers of nodes and open files.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            nodes: self.caches.nodes.count(),
            files: self.files.count(),
        }
    }
}

/// Whether a file of a job in the primary is open for writing.
fn is_written(handles: &Handles, nodes: &Nodes, job: &JobId) -> bool {
    let mut files = handles.writable().into_iter();
    files.any(|file| belongs(nodes, &file, job) && has_a_name(&file))
}

fn belongs(nodes: &Nodes, file: &File, job: &JobId) -> bool {
    let first = nodes.get(file.node).into_iter();
    let mut names = first.chain(nodes.other_names(file.node));
    names.any(|node| is_data_of(nodes, &node, job))
}

/// Whether a file belongs to a job in the primary and is archived with it.
fn is_data_of(nodes: &Nodes, file: &Node, job: &JobId) -> bool {
    if file.location != PRIMARY || file.role != NodeRole::Inside {
        return false;
    }
    // The entry directly in the job on the path to the file, and the entry below that.
    let (mut top, mut second) = (file.clone(), None);
    loop {
        let Some(parent) = nodes.get(top.parent) else {
            return false;
        };
        match parent.role {
            NodeRole::Inside => second = Some(std::mem::replace(&mut top, parent)),
            NodeRole::Job => {
                let is_it = parent.location == PRIMARY
                    && *parent.name == *job.hash()
                    && nodes
                        .get(parent.parent)
                        .is_some_and(|task| *task.name == *job.task_id());
                return is_it && !is_internal(&top, second.as_ref(), job.name());
            }
            _ => return false,
        }
    }
}

/// Whether a file is never archived. A lock that is internal only as long as it is empty may be about to be filled.
fn is_internal(top: &Node, second: Option<&Node>, job_name: &OsStr) -> bool {
    let (name, job_name) = (top.name.as_bytes(), job_name.as_bytes());
    let nested = match second {
        Some(second) if *top.name == *layout::JOB_STATE => {
            classify_nested(second.name.as_bytes(), job_name, second.directory, None)
        }
        _ => Class::Data,
    };
    classify(name, job_name, top.directory, None) == Class::Internal || nested == Class::Internal
}

/// Whether a file still has a name.
fn has_a_name(file: &File) -> bool {
    at::stat_fd(&file.fd).is_ok_and(|stat| stat.stx_nlink > 0)
}
