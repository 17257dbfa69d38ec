//! Whether a folder can take a job.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use super::Group;
use crate::archive::error::{Context, InPlace, Result};
use crate::archive::{apart, obstacle, places, space, state_dir};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::transfer;
use crate::workspace::jobs::JobId;

impl Group<'_> {
    /// Makes sure that the folder's directory of a task, `task`, is no other location's under another name: what is there would be
    /// taken for a copy of itself, and a job be moved away to where it lies.
    pub(super) fn expect_apart(&self, job: &JobId, task: &OwnedFd) -> Result<()> {
        if let Some(why) = apart::shared(self.env.view, self.folder) {
            return Err(self.unusable(job, &why));
        }
        let primary = self.env.view.primary();
        let at = primary.path();
        if let Some(theirs) = places::task(primary, job).tried(job, "open", at)?
            && apart::is_one(&theirs, task).tried(job, "look at", at)?
        {
            let why = apart::shares("directory of the task", at);
            return Err(self.unusable(job, &why));
        }
        Ok(())
    }

    /// A folder that was archived to before has its jobs: without them, its disk is not mounted, and another one would be
    /// filled in its place. Where the primary can no longer remember that, nothing is archived.
    pub(super) fn expect_disk(&self, job: &JobId) -> Result<()> {
        let at = self.folder.path();
        let primary = self.env.view.primary();
        let known = state_dir::is_known(primary, self.folder);
        let known = state_dir::checked(primary, job, "look up", known)?;
        let root = self.folder.root().tried(job, "open", at)?;
        match root.jobs() {
            Ok(_) => return Ok(()),
            Err(Errno::NOTDIR) => obstacle::expect_none(self.folder, job)?,
            Err(_) => {}
        }
        match known {
            true => Err(self.unusable(job, places::NO_DISK)),
            false => Ok(()),
        }
    }

    /// The folder's path leads to the directory that it led to when the group began: a disk may have been mounted there meanwhile, or
    /// taken away, and what was copied to the one has no business in the other.
    pub(super) fn expect_same_folder(&self, job: &JobId) -> Result<()> {
        let at = self.folder.path();
        let known = match self.folder.root() {
            Ok(root) => Arc::ptr_eq(&root, &self.root),
            // It hangs, or did a moment ago: what is under way goes on.
            Err(errno) => errno == Errno::TIMEDOUT,
        };
        let begun = at::file_id(self.root.fd()).tried(job, "look at", at)?;
        // It may have happened a moment ago, and nobody watches it for commands.
        if !self.root.has_same_jobs() {
            return Err(self.unusable(
                job,
                "its `jobs` is a symlink that leads elsewhere than when it was opened: mount the workspace again",
            ));
        }
        match at::stat_path(self.folder.path()) {
            Ok(now) if known && FileId::of(&now) == begun => Ok(()),
            _ => Err(self.unusable(job, "its path does not lead to the directory any more that the job was copied to: see whether its disk is mounted")),
        }
    }

    /// Makes sure that there is space for the copy; `taken` is what the job takes where it lies, if that is known.
    pub(super) fn expect_space(
        &self,
        job: &JobId,
        taken: Option<u64>,
        source: &OwnedFd,
        from: &Path,
    ) -> Result<()> {
        space::expect(self.folder, job, || match taken {
            Some(taken) => Ok(taken),
            None => {
                let survey = self.with_options(job, |options| transfer::survey(source, options));
                Ok(survey.copying(job, from)?.taken)
            }
        })
    }
}
