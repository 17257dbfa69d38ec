//! Keeps the journal of queued jobs, as long as the primary can be written to.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::file::Journal;
use super::line::{Line, RecordedRefusal};
use super::ownerless::{Ownerless, ownerless};
use crate::archive::engine::queue::{At, QueueChange, QueuedJob, Step};
use crate::archive::engine::shared::Shared;
use crate::archive::error::Scope;
use crate::view::View;
use crate::workspace::JobId;

/// The journal, if there can be one.
pub(in crate::archive::engine) struct JournalWriter {
    view: Arc<View>,
    journal: Option<Journal>,
    trouble: Option<String>,
}

impl JournalWriter {
    pub(in crate::archive::engine) fn new(view: Arc<View>) -> JournalWriter {
        JournalWriter {
            view,
            journal: None,
            trouble: None,
        }
    }

    /// Why no journal is written, if so.
    pub(in crate::archive::engine) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    /// The journals of processes that are gone; none if their jobs cannot be taken over. Makes our own journal if there
    /// is none.
    pub(in crate::archive::engine) fn ownerless(&mut self, shared: &Shared) -> Vec<Ownerless> {
        if self.journal.is_none() {
            match Journal::make(&self.view) {
                Ok(journal) => {
                    self.journal = Some(journal);
                    self.trouble = None;
                    self.rewrite(shared);
                }
                Err(error) => self.fail(&error),
            }
        }
        let Some(journal) = &self.journal else {
            return Vec::new();
        };
        ownerless(journal.directory(), &journal.file_name()).unwrap_or_else(|error| {
            tracing::debug!("cannot look for journals: {error}");
            Vec::new()
        })
    }

    /// Refusals by known folders, and how long these wait. The caller must bound the waits: a clock may have jumped.
    pub(in crate::archive::engine) fn refused(
        &self,
        refused: &[RecordedRefusal],
    ) -> Vec<(u8, u32, Duration, String)> {
        let now = SystemTime::now();
        let known = refused.iter().filter_map(|one| {
            let mut folders = self.view.folders().iter();
            let folder = folders.find(|folder| folder.path() == Path::new(&one.folder))?;
            let wait = one.next.duration_since(now).unwrap_or_default();
            Some((folder.index(), one.tries, wait, one.why.clone()))
        });
        known.collect()
    }

    /// Adds changes to the journal.
    pub(in crate::archive::engine) fn record(&mut self, changes: Vec<QueueChange>) {
        let lines: Vec<Line> = changes
            .into_iter()
            .filter_map(|change| self.line(change))
            .collect();
        if let Some(journal) = &mut self.journal
            && !lines.is_empty()
            && let Err(error) = journal.append(&lines)
        {
            self.fail(&error);
        }
    }

    /// Whether the journal is too long for the number of queued jobs.
    pub(in crate::archive::engine) fn is_long(&self, shared: &Shared) -> bool {
        let long = |journal: &Journal| journal.is_long(shared.state.lock().queue.jobs.len());
        self.journal.as_ref().is_some_and(long)
    }

    /// Rewrites the journal with the jobs that are queued now.
    pub(in crate::archive::engine) fn rewrite(&mut self, shared: &Shared) {
        let live: Vec<QueueChange> = {
            let queue = &shared.state.lock().queue;
            let jobs = queue.jobs.iter().filter(|(_, job)| !job.routine);
            jobs.flat_map(|(id, job)| live(id, job)).collect()
        };
        let lines: Vec<Line> = live
            .into_iter()
            .filter_map(|change| self.line(change))
            .collect();
        if let Some(journal) = &mut self.journal
            && let Err(error) = journal.rewrite(&lines)
        {
            self.fail(&error);
        }
    }

    /// Closes the journal: one without jobs is removed, one with jobs is kept for the next process.
    pub(in crate::archive::engine) fn close(self, idle: bool) {
        if let Some(journal) = self.journal
            && idle
        {
            journal.remove();
        }
    }

    /// Goes on without a journal; the next scan tries to make one again.
    fn fail(&mut self, error: &std::io::Error) {
        let trouble = format!(
            "cannot keep a journal in {}: {error}",
            self.view.primary_path().join(".xpmfs/archive").display()
        );
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::warn!(
                "{trouble}; jobs are archived nevertheless, and found again by scans after a restart"
            );
        }
        self.trouble = Some(trouble);
        self.journal = None;
    }

    fn line(&self, change: QueueChange) -> Option<Line> {
        Some(match change {
            QueueChange::Queued(job) => Line::Queued(JobId::clone(&job)),
            QueueChange::Done(job) => Line::Done(JobId::clone(&job)),
            QueueChange::Refused(job, folder, tries, due, why) => {
                let wait = due.saturating_duration_since(Instant::now());
                let refused = RecordedRefusal {
                    folder: self.view.location(folder)?.path().as_os_str().to_owned(),
                    tries,
                    next: SystemTime::now().checked_add(wait)?,
                    why,
                };
                Line::Failed(JobId::clone(&job), refused)
            }
        })
    }
}

/// The changes that record that a job is queued, and which folders have refused it.
fn live(id: &Arc<JobId>, job: &QueuedJob) -> Vec<QueueChange> {
    let mut changes = vec![QueueChange::Queued(id.clone())];
    if let Step::Store(wants) = &job.step {
        let refused = wants.iter().filter_map(|want| {
            let refusal = want.turn.refusal.as_ref()?;
            let At::Due(due) = want.turn.at else {
                return None;
            };
            (refusal.failure.scope == Scope::Job).then(|| {
                let (folder, why) = (want.destination.folder, refusal.failure.why.clone());
                QueueChange::Refused(id.clone(), folder, refusal.tries, due, why)
            })
        });
        changes.extend(refused);
    }
    changes
}
