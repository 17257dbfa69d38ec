//! Records what is removed from archived jobs through the mount: it must not be taken for a purge, which a folder's copy makes good.

use std::ffi::OsStr;

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
        let Some((job, directory)) = self.nodes.path_in_job_of_primary(parent) else {
            return;
        };
        let (is_dir, size) = (at::is_dir(&from.stat), from.stat.stx_size);
        if !is_rewritten(&directory, name, job.name(), is_dir, size) {
            self.view.record_coming_removal(&job, &directory.join(name));
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
}
