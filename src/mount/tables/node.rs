//! What a node is: its file, where it lies, and its role in the view.

use std::ffi::OsStr;

use serde::{Deserialize, Serialize};

use crate::sys::file_id::FileId;
use crate::sys::name::Name;

/// The number of a location that is not in the view any more. No folder has it.
pub(in crate::mount) const REMOVED: u8 = u8::MAX - 2;

/// The role of a node in the view; decides how its children are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mount) enum NodeRole {
    /// The top of the mount.
    Root,
    /// `jobs/`.
    Jobs,
    /// `jobs/<task_id>/`.
    Task,
    /// `jobs/<task_id>/<hash>/`.
    Job,
    /// Any node inside a job.
    Inside,
    /// Any other node: it lies in the primary, or is shown as it is there.
    Outside,
}

impl NodeRole {
    /// The role of an entry of the primary below a node of this role.
    pub(in crate::mount) fn of_entry(self, name: &OsStr, directory: bool) -> NodeRole {
        match self {
            NodeRole::Root if directory && name == "jobs" => NodeRole::Jobs,
            NodeRole::Jobs if directory => NodeRole::Task,
            NodeRole::Task if directory => NodeRole::Job,
            NodeRole::Job | NodeRole::Inside => NodeRole::Inside,
            _ => NodeRole::Outside,
        }
    }

    /// The role of a directory below a node of this role, or of any entry inside a job. Other entries of `jobs/` and
    /// of a task get their role when they are looked up again.
    pub(in crate::mount) fn of_directory(self) -> NodeRole {
        match self {
            NodeRole::Jobs => NodeRole::Task,
            NodeRole::Task => NodeRole::Job,
            NodeRole::Job | NodeRole::Inside => NodeRole::Inside,
            NodeRole::Root | NodeRole::Outside => NodeRole::Outside,
        }
    }
}

/// A node that the kernel has looked up and not yet forgotten.
#[derive(Debug, Clone)]
pub(in crate::mount) struct Node {
    pub(in crate::mount) identity: FileId,
    pub(in crate::mount) parent: u64,
    pub(in crate::mount) name: Name,
    /// The number of the location in which the node lies, [`INTERNAL`](super::nodes::INTERNAL), or [`REMOVED`].
    pub(in crate::mount) location: u8,
    pub(in crate::mount) role: NodeRole,
    /// Whether it is a directory.
    pub(in crate::mount) directory: bool,
}
