//! Records what is removed from archived jobs through the mount: it must not be taken for a purge, which a folder's copy makes good.
//!
//! The record comes first: it must be there when another node sees that the file is gone. If it cannot be written, the call fails, since
//! the file would come back from the copy:
//!
//! 1. Before the change, if that frees no space (a rename), or if space is not what is lacking.
//! 2. After it, if a file was removed from a full disk and the space that this freed did not suffice for the record either. Otherwise
//!    no user could make space on a full disk with `rm`. The view shows what the error says: the file is there, from the copy.

use std::ffi::OsStr;
use std::path::PathBuf;

use rustix::fs::Statx;
use rustix::io::{Errno, Result};

use crate::mount::Mount;
use crate::mount::ops::remove::Removable;
use crate::mount::tables::nodes::NodeRole;
use crate::sys::at;
use crate::sys::name::Name;
use crate::view::PRIMARY;
use crate::workspace::internal::is_rewritten;
use crate::workspace::jobs::JobId;

/// A removal that could not be recorded, since the disk is full.
#[derive(Debug)]
pub(super) struct Unrecorded {
    job: JobId,
    path: PathBuf,
    /// The attributes of the job's directory, if they were found a moment ago.
    dir: Option<Statx>,
}

impl Mount {
    /// Records that an entry is about to be removed, or renamed, if it belongs to an archived job of the primary. Empty directories and
    /// bookkeeping do not matter.
    ///
    /// # Errors
    ///
    /// The record cannot be written, and must be.
    pub(super) fn note_removal(&self, parent: u64, name: &OsStr, from: &Removable) -> Result<()> {
        match self.recorded_in(parent, name, from) {
            Some(removal) => self.record(&removal),
            None => Ok(()),
        }
    }

    /// As [`Mount::note_removal`], for an entry whose removal may free space. If the disk is full, returns what is to be recorded after it.
    ///
    /// # Errors
    ///
    /// As [`Mount::note_removal`].
    pub(super) fn note_unlink(
        &self,
        parent: u64,
        name: &OsStr,
        from: &Removable,
    ) -> Result<Option<Unrecorded>> {
        let Some(removal) = self.recorded_in(parent, name, from) else {
            return Ok(None);
        };
        match self
            .view
            .record_removal(&removal.job, &removal.path, removal.dir.as_ref())
        {
            Err(Errno::NOSPC | Errno::DQUOT) => Ok(Some(Unrecorded {
                // The removal changes the directory.
                dir: None,
                ..removal
            })),
            recorded => self.explain(&removal, recorded).map(|()| None),
        }
    }

    /// Records a removal that has been made.
    ///
    /// # Errors
    ///
    /// The record cannot be written: the job's copy shows the entry again.
    pub(super) fn record_after(
        &self,
        parent: u64,
        name: &OsStr,
        removal: &Unrecorded,
    ) -> Result<()> {
        let recorded = self.record(removal);
        if recorded.is_err() {
            self.view.forget_finding(&removal.job);
            // The kernel keeps a name whose removal failed.
            self.invalidate.name(parent, &Name::from(name));
        }
        recorded
    }

    fn record(&self, removal: &Unrecorded) -> Result<()> {
        let recorded = self
            .view
            .record_removal(&removal.job, &removal.path, removal.dir.as_ref());
        self.explain(removal, recorded)
    }

    /// Logs why a removal cannot be recorded.
    fn explain(&self, removal: &Unrecorded, recorded: Result<()>) -> Result<()> {
        recorded.map_err(|error| {
            let Unrecorded { job, path, .. } = removal;
            tracing::warn!(
                "{job}: cannot record that {} is removed on purpose, without which a copy of the job shows it again: {error}",
                path.display()
            );
            match error {
                Errno::NOSPC | Errno::DQUOT | Errno::ACCESS | Errno::PERM | Errno::ROFS => error,
                // Others would be taken for errors of the file's own path.
                _ => Errno::IO,
            }
        })
    }

    /// What must be recorded of the removal of an entry, if anything.
    fn recorded_in(&self, parent: u64, name: &OsStr, from: &Removable) -> Option<Unrecorded> {
        if from.location != PRIMARY {
            return None;
        }
        let (job, directory) = self.nodes.path_in_job_of_primary(parent)?;
        let (is_dir, size) = (at::is_dir(&from.stat), from.stat.stx_size);
        let path = directory.join(name);
        (!is_rewritten(&directory, name, job.name(), is_dir, size)).then_some(Unrecorded {
            job,
            path,
            dir: from.job,
        })
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
