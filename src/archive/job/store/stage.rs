//! Compares jobs with a folder's copies, and copies those that are due to staging.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::batch::{Existing, Staged, StagedCopy, StoreBatch};
use super::outcome::{Due, Skipped, Stored};
use crate::archive::error::{Cause, Context, CopyContext, JobError, Result, StagingContext};
use crate::archive::job::compare::Comparison;
use crate::archive::job::ready::{WRITTEN, expect_unwritten};
use crate::archive::job::verify::manifest_remedy;
use crate::archive::job::{backups, manifests, preconditions, select, trash};
use crate::archive::parallel::in_parallel_while;
use crate::archive::space::Claim;
use crate::archive::{folder_alias, places};
use crate::transfer::staging::{Staging, sweep_with};
use crate::transfer::{self, Copied, Difference, Options, Originals, writers};
use crate::view::location::Role;
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

impl StoreBatch<'_> {
    /// Copies jobs to staging, from the beginning of `jobs` until `limit` bytes are reached, and at least one. Returns the results of these
    /// jobs.
    pub(super) fn stage_all(&self, jobs: &[Due], limit: u64) -> Vec<Result<Staged>> {
        let threads = self.env.threads.min(jobs.len());
        let room = || self.bytes.load(Ordering::Relaxed) < limit;
        in_parallel_while(threads, jobs, room, |due| self.stage(due))
    }

    /// Copies a job to staging if it is due; otherwise subtracts its size from the expected total.
    fn stage(&self, due: &Due) -> Result<Staged> {
        let step = self.stage_if_due(due);
        if let (false, Some(size)) = (matches!(step, Ok(Staged::Copy(_))), due.size) {
            self.env.progress.forgo(size);
        }
        step
    }

    fn stage_if_due(&self, due: &Due) -> Result<Staged> {
        let Due { job, .. } = due;
        let progress = self.env.progress;
        if progress.is_cancelled() {
            return Err(JobError::new(job, Cause::Cancelled));
        }
        let from = places::path(self.source, job);
        let Some(source) = places::job(self.source, job).tried(job, "open", &from)? else {
            return Ok(Staged::Done(Stored::Skipped(Skipped::Gone)));
        };
        if !markers::is_done(&source, job.name()).tried(job, "look into", &from)? {
            return Ok(Staged::Done(Stored::Skipped(Skipped::Unfinished)));
        }
        if self.moves() {
            // Checked again before the job is moved; here, to avoid a useless copy.
            expect_unwritten(self.env, job)?;
            backups::expect(self.env, job, &source, None)?;
        }
        let at = places::path(self.folder, job);
        preconditions::expect_disk(self.env, self.folder, job)?;
        let task = preconditions::make_task(self.folder, job, self.source)?;
        preconditions::expect_distinct(self.env, self.folder, job, &task)?;
        self.sweep(job, &task);
        let taken = Staging::take(&*task, job.hash()).beside(job, &at);
        if let Err(error) = &taken
            && error.is_denied_writing()
            && self.is_up_to_date(job, &source, &task)
        {
            return Ok(Staged::Done(Stored::Already));
        }
        let Some(mut staging) = taken? else {
            return Err(JobError::new(
                job,
                Cause::Busy("another process copies it to the same folder".into()),
            ));
        };
        trash::folder::make_way(self.env, self.folder, job)?;
        let existing = match self.existing(job, &source, &task)? {
            Ok(existing) => existing,
            Err(skipped) => return Ok(Staged::Done(Stored::Skipped(skipped))),
        };
        let copied = match &existing {
            Existing::Same(_) if !self.moves() => return Ok(Staged::Done(Stored::Already)),
            Existing::Same(_) if self.is_kept(job)? => {
                return Ok(Staged::Done(Stored::Skipped(Skipped::Kept)));
            }
            // Reads the original before it is removed; but not with each attempt while a process writes to it.
            Existing::Same(compared) => {
                let written = writers::being_written(&source, &compared.0).copying(job, &from)?;
                if written.is_some() {
                    return Err(JobError::new(job, Cause::Busy(WRITTEN.into())));
                }
                let copied = self
                    .with_options(job, |options| transfer::read(&source, options))
                    .copying(job, &from)?;
                compared.expect(job, &copied.manifest)?;
                copied
            }
            Existing::Nothing | Existing::Older(_) => {
                let _claim = self.claim_space(due, &source, &from)?;
                let to = staging.make().beside(job, &at)?;
                self.copy(job, (&source, &from), (&to, &at))?
            }
        };
        for loss in &copied.losses {
            tracing::warn!("{job} in {}: {loss}", self.folder.path().display());
        }
        let manifest = match &existing {
            Existing::Same(_) => None,
            // One `syncfs` makes it durable together with the copy.
            Existing::Nothing | Existing::Older(_) => {
                Some(self.stage_manifest(job, &copied.manifest)?)
            }
        };
        let bytes = copied.manifest.bytes();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(Staged::Copy(Box::new(StagedCopy {
            manifest,
            staging,
            copied,
            source,
            existing,
        })))
    }

    /// Returns the folder's copy of a job, or why the job is skipped.
    fn existing(
        &self,
        job: &JobId,
        source: &OwnedFd,
        task: &OwnedFd,
    ) -> Result<std::result::Result<Existing, Skipped>> {
        let at = places::path(self.folder, job);
        let Some(archived) = preconditions::open(self.folder, task, job)? else {
            // Otherwise what is left of a job that another folder has whole would become a copy of the job.
            return Ok(match self.is_purged(job, source)? {
                true => Err(Skipped::Purged),
                false => Ok(Existing::Nothing),
            });
        };
        if folder_alias::is_same(source, &archived).tried(job, "look at", &at)? {
            return Err(self.unusable(job, "the workspace's own job is there under another name"));
        }
        let (comparison, compared) = self.compare(job, source, &archived)?;
        let force = self.env.force;
        Ok(Ok(match comparison {
            // With --force, always copies: damage may show in nothing else.
            Comparison::Same if force => Existing::Older(archived),
            // The original, which is removed, must not be the only copy with these attributes.
            Comparison::Same
                if self.moves() && self.lacks_attributes(job, source, &archived)? =>
            {
                Existing::Older(archived)
            }
            Comparison::Same => Existing::Same(compared),
            Comparison::Newer => Existing::Older(archived),
            Comparison::Older | Comparison::Mixed { .. } if force => Existing::Older(archived),
            Comparison::Older => {
                // No other folder is asked: it may hang.
                let folder = Some(self.folder.index());
                let purged = self.env.view.purged_from(job, source, folder);
                return Ok(Err(match purged.tried(job, "compare", &at)? {
                    Some(_) => Skipped::Purged,
                    None => Skipped::Older,
                }));
            }
            Comparison::Mixed { example } => {
                let why = format!(
                    "conflict: the primary has newer files, but the copy in {} also has {}, which the primary lacks or has in an older \
                     state; to keep the primary's: `xpmfs jobs archive --force {job}`",
                    self.folder.path().display(),
                    example.display(),
                );
                return Err(JobError::new(job, Cause::Unsafe(why)));
            }
        }))
    }

    /// Whether the source is what a purge has left of the job, or a program that moved the job and was killed.
    fn is_purged(&self, job: &JobId, source: &OwnedFd) -> Result<bool> {
        if self.source.role() != Role::Primary {
            return Ok(false);
        }
        let purged = self.env.view.purged_from_any(job, source);
        let at = places::path(self.source, job);
        Ok(purged.tried(job, "compare", &at)?.is_some())
    }

    /// Copies a job to staging. A job that was moved must match the manifest of its copy in the `move` folder.
    fn copy(
        &self,
        job: &JobId,
        (source, from): (&OwnedFd, &Path),
        (to, at): (&OwnedFd, &Path),
    ) -> Result<Copied> {
        if self.source.role() == Role::Primary {
            let copied = self.with_options(job, |options| transfer::copy(source, to, options));
            return copied.copying_between(job, from, at);
        }
        let refused = |why: String| {
            let why = format!("{} is not copied: {why}", from.display());
            JobError::new(job, Cause::Unsafe(why))
        };
        let manifest =
            manifests::read(self.source, job).map_err(|error| refused(error.to_string()))?;
        let Some(manifest) = manifest else {
            let remedy = manifest_remedy(self.env.view, job);
            let why = "it has no manifest, so it is unknown whether it is intact";
            return Err(refused(format!("{why}: {remedy}")));
        };
        let originals = Originals::of(&manifest);
        let copied = self.with_options(job, |options| {
            let options = Options {
                originals: Some(&originals),
                ..*options
            };
            transfer::copy(source, to, &options)
        });
        let copied = copied.copying_between(job, from, at)?;
        let differences = manifest.differences(&copied.manifest);
        match differences.iter().find(|it| select::is_of_content(it)) {
            Some(Difference { path, what }) => {
                let path = path.display();
                Err(refused(format!("it is damaged: {path} {what}")))
            }
            None => Ok(copied),
        }
    }

    /// Whether the folder, which is not writable, has an identical copy of a job.
    fn is_up_to_date(&self, job: &JobId, source: &OwnedFd, task: &OwnedFd) -> bool {
        if self.moves() || self.env.force {
            return false;
        }
        match places::open(task, job.hash()) {
            Ok(Some(archived)) => self.has_same(job, source, &archived).unwrap_or(false),
            _ => false,
        }
    }

    /// Claims the folder's space for the copy.
    fn claim_space(&self, due: &Due, source: &OwnedFd, from: &Path) -> Result<Option<Claim>> {
        let job = &due.job;
        preconditions::claim_space(self.env, self.folder, job, due.taken, || {
            let measured = self.with_options(job, |options| transfer::measure(source, options));
            Ok(measured.copying(job, from)?.taken)
        })
    }

    /// Removes the unfinished copies of crashed processes, once for each task.
    fn sweep(&self, job: &JobId, task: &Arc<OwnedFd>) {
        // The other threads wait for the sweep: it would take a lock file that one of them has created and not locked yet.
        let mut swept = self.swept.lock();
        if !swept.insert(job.task_id().to_owned()) {
            return;
        }
        let manifest = &mut |hash: &OsStr| manifests::discard(&self.root, job.task_id(), hash);
        match sweep_with(&**task, &|_| false, manifest) {
            Ok(0) => {}
            Ok(count) => tracing::info!(
                "removed {count} copies of {} in {} that were never completed",
                job.task_id().display(),
                self.folder.path().display()
            ),
            Err(error) => tracing::warn!(
                "cannot clear {} in {}: {error}",
                job.task_id().display(),
                self.folder.path().display()
            ),
        }
    }
}
