//! Records what is removed from archived jobs through the mount: it must not be taken for a purge, which a folder's copy makes good.

use std::ffi::OsStr;
use std::path::PathBuf;

use crate::mount::Mount;
use crate::mount::ops::remove::Removable;
use crate::mount::tables::nodes::NodeRole;
use crate::sys::at;
use crate::view::PRIMARY;
use crate::workspace::internal::is_rewritten;
use crate::workspace::jobs::JobId;

impl Mount {
    /// Records that an entry is about to be removed, or renamed, if it belongs to an archived job of the primary. Empty directories and
    /// bookkeeping do not matter.
    pub(super) fn note_removal(&self, parent: u64, name: &OsStr, from: &Removable) {
        if from.place != PRIMARY {
            return;
        }
        let Some((job, directory)) = self.path_in_job(parent) else {
            return;
        };
        let (is_dir, size) = (at::is_dir(&from.stat), from.stat.stx_size);
        if !is_rewritten(&directory, name, job.name(), is_dir, size) {
            self.view
                .is_about_to_be_removed(&job, &directory.join(name));
        }
    }

    /// Removes the records about a job whose directory was removed or renamed: a folder serves the job now, if it has it.
    pub(super) fn forget_removed_job(&self, parent: u64, name: &OsStr) {
        if let Some(task) = self.nodes.get(parent)
            && task.role == NodeRole::Task
            && !self.view.folders().is_empty()
            && let Ok(job) = JobId::new(&*task.name, name)
        {
            self.view.forget_standing(&job);
        }
    }

    /// Returns the job of a node in the primary, and the node's path in it; `None` for a node that is in no job of the primary.
    pub(in crate::mount) fn path_in_job(&self, id: u64) -> Option<(JobId, PathBuf)> {
        let mut names = Vec::new();
        let mut node = self.nodes.get(id)?;
        if node.place != PRIMARY {
            return None;
        }
        while node.role == NodeRole::Inside {
            let parent = node.parent;
            names.push(node.name);
            node = self.nodes.get(parent)?;
        }
        if node.role != NodeRole::Job || node.place != PRIMARY {
            return None;
        }
        let task = self.nodes.get(node.parent)?;
        let job = JobId::new(&*task.name, &*node.name).ok()?;
        Some((job, names.iter().rev().map(|name| &**name).collect()))
    }
}
