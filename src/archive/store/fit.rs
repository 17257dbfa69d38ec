//! Checks whether a folder can accept a job.

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
    /// Checks that the folder's directory of a task, `task`, is not that of another location under another name.
    ///
    /// Otherwise a job would count as a copy of itself, and would be moved to the directory that it is already in.
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

    /// Checks that a folder that was archived to before still has its `jobs`.
    ///
    /// Without `jobs`, its disk is not mounted, and the copy would fill another disk. Fails as well if the primary's
    /// record of the folder cannot be read.
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

    /// Checks that the folder's path leads to the same directory as when the group began.
    ///
    /// A disk may have been mounted or unmounted there since, and the copy must not continue on another disk.
    pub(super) fn expect_same_folder(&self, job: &JobId) -> Result<()> {
        let at = self.folder.path();
        let known = match self.folder.root() {
            Ok(root) => Arc::ptr_eq(&root, &self.root),
            // The folder hangs, or did a moment ago: the copy in progress continues.
            Err(errno) => errno == Errno::TIMEDOUT,
        };
        let begun = at::file_id(self.root.fd()).tried(job, "look at", at)?;
        // The symlink may have changed a moment ago, and commands run without a watcher.
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

    /// Checks that the folder has space for the copy.
    ///
    /// `taken` is the space that the job occupies at its source, if known.
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
