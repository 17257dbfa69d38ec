//! Makes staged copies durable, renames them into place, and moves the jobs of a `move` folder.

use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::batch::{Existing, Staged, StagedCopy, StoreBatch};
use super::outcome::{Due, Stored};
use crate::archive::env::Writing;
use crate::archive::error::{Cause, Context, CopyContext, JobError, Result, StagingContext};
use crate::archive::job::ready::{LOCKED, WRITTEN, expect_unwritten, is_locked};
use crate::archive::job::{manifests, preconditions, select};
use crate::archive::parallel::in_parallel;
use crate::archive::{places, state_dir};
use crate::transfer::{Candidate, Kind};
use crate::view::location::Role;
use crate::workspace::jobs::JobId;

impl StoreBatch<'_> {
    /// Makes the staged copies durable and renames them into place; returns the result of each job, in order.
    pub(super) fn complete(
        &self,
        jobs: &[Due],
        staged: Vec<Result<Staged>>,
    ) -> Vec<Result<Stored>> {
        let threads = self.env.threads.min(jobs.len());
        let synced = self.sync(&staged);
        let staged: Vec<_> = jobs
            .iter()
            .zip(staged.into_iter().map(|step| Mutex::new(Some(step))))
            .collect();
        let placed = in_parallel(threads, &staged, |(Due { job, .. }, step)| {
            let step = step.lock().take();
            let step = step.unwrap_or_else(|| Err(JobError::new(job, Cause::Cancelled)))?;
            match step {
                Staged::Done(stored) => Ok(Staged::Done(stored)),
                Staged::Copy(staged) => {
                    if let Some(why) = &synced {
                        return Err(self.unusable(job, why));
                    }
                    self.place(job, *staged)
                }
            }
        });
        // The names and the manifests: these must be durable before the primary's directory is replaced.
        let synced = self.sync(&placed);
        let placed = jobs.iter().zip(placed);
        placed
            .map(|(Due { job, .. }, step)| match (step?, &synced) {
                (Staged::Done(stored), _) => Ok(stored),
                (Staged::Copy(_), Some(why)) => Err(self.unusable(job, why)),
                (Staged::Copy(staged), None) => self.finish(job, *staged),
            })
            .collect()
    }

    /// Makes all written files durable, if there are any; returns why that failed, if so.
    fn sync(&self, steps: &[Result<Staged>]) -> Option<String> {
        let written = steps
            .iter()
            .any(|step| matches!(step, Ok(Staged::Copy(staged)) if !staged.is_there()));
        let error = written.then(|| self.writeback.sync().err()).flatten()?;
        Some(format!("cannot make what was copied durable: {error}"))
    }

    /// Renames a staged copy and its manifest into place, if the source is still what was copied.
    fn place(&self, job: &JobId, mut staged: StagedCopy) -> Result<Staged> {
        let at = places::path(self.folder, job);
        self.expect_unchanged(job, &staged)?;
        if !staged.is_there() {
            preconditions::expect_same_folder(self.folder, &self.root, job)?;
            let placed = match &staged.existing {
                Existing::Nothing | Existing::Same(_) => staged.staging.publish(),
                Existing::Older(archived) => staged.staging.exchange(archived).map(|_| ()),
            };
            placed.beside(job, &at)?;
            let each = !self.writeback.is_whole();
            if each {
                staged.staging.sync().beside(job, &at)?;
            }
            let placed = manifests::place(&self.root, job, each);
            placed.tried(job, "write", &manifests::path(self.folder, job))?;
            if let Some(manifest) = &mut staged.manifest {
                manifest.placed = true;
            }
            // From now on, the folder without `jobs` means that its disk is missing.
            if !self.known.load(Ordering::Relaxed)
                && state_dir::make_known(self.env.view.primary(), self.folder).is_ok()
            {
                self.known.store(true, Ordering::Relaxed);
            }
            self.record_whole(job, &staged);
            let _ = state_dir::set_kept(self.env.view.primary(), job, false);
            let _ = state_dir::set_damaged(self.env.view.primary(), self.folder, job, None);
        }
        Ok(Staged::Copy(Box::new(staged)))
    }

    /// Records that the job is whole in the primary: only then does a difference later mean that it was purged or changed.
    fn record_whole(&self, job: &JobId, staged: &StagedCopy) {
        if self.moves() || self.source.role() != Role::Primary {
            return;
        }
        let manifest = &staged.copied.manifest;
        let entries = manifest.entries().iter().enumerate();
        let directories = entries.filter(|(_, entry)| matches!(entry.kind, Kind::Directory));
        let paths = directories.map(|(index, _)| manifest.path(index));
        self.env.view.record_archived(job, &staged.source, paths);
    }

    /// Checks that the source is still what was read of it, and that no process uses it.
    fn expect_unchanged(&self, job: &JobId, staged: &StagedCopy) -> Result<()> {
        let from = places::path(self.source, job);
        if self.moves() {
            expect_unwritten(self.env, job)?;
        } else if self.env.hooks.writing(job) == Writing::Yes {
            return Err(JobError::new(job, Cause::Busy(WRITTEN.into())));
        }
        if is_locked(&staged.source, job).tried(job, "look at the lock of", &from)? {
            return Err(JobError::new(job, Cause::Busy(LOCKED.into())));
        }
        let select = |candidate: &Candidate<'_>| select::is_copied(job, candidate);
        staged
            .copied
            .unchanged(&staged.source, Some(&select))
            .copying(job, &from)
    }

    /// Ends the staging of a durable copy, and moves the job if the folder is a `move` folder.
    fn finish(&self, job: &JobId, staged: StagedCopy) -> Result<Stored> {
        let (files, bytes) = (
            staged.copied.manifest.files(),
            staged.copied.manifest.bytes(),
        );
        let stored = match staged.existing {
            Existing::Nothing => Stored::Copied { files, bytes },
            Existing::Older(_) => Stored::Replaced { files, bytes },
            Existing::Same(_) => Stored::Already,
        };
        let at = places::path(self.folder, job);
        let StagedCopy {
            staging,
            copied,
            source,
            ..
        } = staged;
        staging.finish(None).beside(job, &at)?;
        if let Some(relocate) = self.relocate {
            relocate(self.folder, job, copied, source)?;
        }
        Ok(stored)
    }
}
