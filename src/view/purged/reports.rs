//! Receives reports about jobs of the primary: that one was archived, that a file of one is removed, that one is gone.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::Statx;
use rustix::io::{Errno, Result};

use super::judge::{CHECK_INTERVAL, UNRECORDED_VALID};
use super::judgements::{JOBS_MAX, PurgedFinding};
use super::record::{self, PurgedRecord, PurgedVerdict, Stamp};
use super::removed;
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::view::View;
use crate::workspace::jobs::JobId;

impl View {
    /// Records that a job in the primary is whole, after it was archived. `job_dir` is its directory, and `dirs` are the paths of all
    /// directories in it.
    pub fn record_archived(
        &self,
        job: &JobId,
        job_dir: impl AsFd,
        dirs: impl Iterator<Item = PathBuf>,
    ) {
        let recorded = (|| {
            let root = self.primary().root()?;
            let began = SystemTime::now();
            let mut seen = Vec::new();
            for path in dirs.filter(|path| !path.as_os_str().is_empty()) {
                let stat = at::stat_below(&job_dir, &path)?;
                seen.push((path, Stamp::of(&stat)));
            }
            let top = Stamp::of(&at::stat_fd(&job_dir)?);
            seen.push((PathBuf::new(), top));
            // A removal that preceded the copy has no effect any more.
            removed::forget(&root, job)?;
            let record = PurgedRecord {
                verdict: PurgedVerdict::Living,
                seen,
            };
            let valid = match record.is_settled(began) && record::write(&root, job, &record).is_ok()
            {
                true => CHECK_INTERVAL,
                false => UNRECORDED_VALID,
            };
            self.judgements.forget(job);
            self.judgements
                .insert(job, top, PurgedFinding::Whole, valid);
            Ok::<_, Errno>(())
        })();
        if let Err(error) = recorded {
            tracing::debug!("cannot record that {job} is whole: {error}");
            self.judgements.forget(job);
        }
    }

    /// Forgets the result about a job that is in memory, which a later comparison has not confirmed.
    pub fn forget_finding(&self, job: &JobId) {
        self.judgements.by_job.lock().remove(job);
    }

    /// Forgets all results about a job, whose directory in the primary is a new one, or gone.
    pub fn forget_standing(&self, job: &JobId) {
        self.judgements.forget(job);
        let forgotten = self.primary().root().and_then(|root| {
            removed::forget(&root, job)?;
            record::forget(&root, job)
        });
        if let Err(error) = forgotten {
            tracing::debug!("cannot remove the records about {job}: {error}");
        }
    }

    /// Records that a file is removed from a job of the primary on purpose, if a folder has a copy of the job. `path` is relative to the
    /// job; `dir` has the attributes of its directory, if the caller has just examined it. Called before the removal, or after it if the
    /// disk was full before.
    ///
    /// # Errors
    ///
    /// The record cannot be written: a copy of the job, which has the file, may show it again.
    pub fn record_removal(&self, job: &JobId, path: &Path, dir: Option<&Statx>) -> Result<()> {
        if self.folders().is_empty() {
            return Ok(());
        }
        let root = self.primary().root()?;
        let there = root.task(job.task_id()).and_then(|task| {
            let stat = match dir {
                Some(stat) => *stat,
                None => at::stat(&*task, job.hash())?,
            };
            Ok((stat, task))
        });
        let Some((stat, task)) = at::absent(there)? else {
            return Ok(());
        };
        let identity = FileId::of(&stat);
        if self.judgements.removals.lock().get(job) == Some(&identity) {
            return Ok(());
        }
        let finding = self.judgements.latest(job).map(|it| it.finding);
        // Another process may have archived it since.
        let archived = record::exists(&root, job)
            || finding.unwrap_or_else(|| self.finding(job, &*task, &stat, CHECK_INTERVAL))
                != PurgedFinding::NoCopy;
        if !archived {
            return Ok(());
        }
        let noted = removed::note(&root, job, path);
        if noted.is_err() && self.no_copy_has(job, path) {
            return Ok(());
        }
        noted?;
        let mut removals = self.judgements.removals.lock();
        if removals.len() >= JOBS_MAX {
            removals.clear();
        }
        removals.insert(job.clone(), identity);
        drop(removals);
        self.judgements.by_job.lock().remove(job);
        Ok(())
    }

    /// Whether every folder has replied, and none has a copy with this entry.
    fn no_copy_has(&self, job: &JobId, path: &Path) -> bool {
        let copies = self.ask_for_copies(job);
        let lacks = |copy| {
            let there = at::stat_below(copy, path);
            matches!(there, Err(Errno::NOENT | Errno::NOTDIR))
        };
        copies.all_answered && copies.found.iter().all(|(_, copy)| lacks(copy))
    }
}
