//! The state of archiving runs and partials in one folder, and its report for `status`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::archive::experiments::pass::has_place;
use crate::transfer::Progress;
use crate::view::View;

/// A pass that takes longer than this without copying is no longer waited for: a disk hangs.
const PASS_MAX: Duration = Duration::from_secs(60);

/// The runs and partials of one folder, for `status`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ExperimentsReport {
    /// The folder.
    pub folder: PathBuf,
    /// Whether the folder has a place for them: not if its path names a `jobs` directory.
    pub has_place: bool,
    /// Runs that were copied to it since the start.
    pub runs: u64,
    /// Partials that were copied to it since the start.
    pub partials: u64,
    /// Files of these.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// What is being copied.
    pub under_way: Option<ItemInProgress>,
    /// Those that wait, as for the settle time or for a job that uses them: the first few.
    pub waiting: Vec<WaitingItem>,
    /// Those that failed: the first few.
    pub failed: Vec<FailedItem>,
    /// How many have failed in all.
    pub failures: usize,
    /// Why the folder accepts none, if so.
    pub refuses: Option<String>,
    /// When what has failed is tried again, in seconds from now.
    pub next_try: Option<f64>,
    /// What could not be read.
    pub trouble: Option<String>,
}

impl ExperimentsReport {
    /// How many runs and partials could not be archived; at least one if the folder accepts none.
    #[must_use]
    pub fn not_archived(&self) -> usize {
        self.failures.max(usize::from(self.refuses.is_some()))
    }

    /// Why something is not archived, if so.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        let failed = self.failed.first();
        let failed = failed.map(|failed| format!("{}: {}", failed.item, failed.why));
        let why = failed.or_else(|| self.refuses.clone());
        why.or_else(|| self.trouble.clone())
    }
}

/// A run or partial that is being copied.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ItemInProgress {
    /// `experiment/run`, or `partials/task_id/partial/identifier`.
    pub item: String,
    /// Bytes that are done.
    pub bytes: u64,
    /// The time since the copy began, in seconds.
    pub seconds: f64,
}

/// A run or partial that waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitingItem {
    /// `experiment/run`, or `partials/task_id/partial/identifier`.
    pub item: String,
    /// Why it waits, in a few words.
    pub why: String,
    /// Whether it waits for a job, which may go on for long.
    pub in_use: bool,
}

/// A run or partial that could not be archived.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailedItem {
    /// `experiment/run`, or `partials/task_id/partial/identifier`.
    pub item: String,
    /// Why.
    pub why: String,
}

/// The state of one folder.
#[derive(Debug)]
pub(in crate::archive::engine) struct FolderExperiments {
    pub(in crate::archive::engine) folder: u8,
    pub(in crate::archive::engine) progress: Arc<Progress>,
    /// The number of the last requested survey that has ended.
    pub(in crate::archive::engine) answered: u64,
    /// When the pass in progress began.
    pub(in crate::archive::engine) since: Option<Instant>,
    /// What is being copied, since when, and the bytes that were done before.
    pub(in crate::archive::engine) under_way: Option<(String, Instant, u64)>,
    pub(in crate::archive::engine) counts: ExperimentCounts,
    pub(in crate::archive::engine) last: Findings,
    pub(in crate::archive::engine) tries: u32,
    pub(in crate::archive::engine) next: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy)]
pub(in crate::archive::engine) struct ExperimentCounts {
    pub(in crate::archive::engine) runs: u64,
    pub(in crate::archive::engine) partials: u64,
    pub(in crate::archive::engine) files: u64,
    pub(in crate::archive::engine) bytes: u64,
}

/// What a pass has found.
#[derive(Debug, Default, Clone)]
pub(in crate::archive::engine) struct Findings {
    pub(in crate::archive::engine) waiting: Vec<WaitingItem>,
    /// How many wait for a moment only.
    pub(in crate::archive::engine) settling: usize,
    pub(in crate::archive::engine) failed: Vec<FailedItem>,
    pub(in crate::archive::engine) failures: usize,
    pub(in crate::archive::engine) refuses: Option<String>,
    pub(in crate::archive::engine) trouble: Option<String>,
}

impl FolderExperiments {
    /// The state of a folder before the first pass.
    pub(in crate::archive::engine) fn new(
        folder: u8,
        progress: Arc<Progress>,
    ) -> FolderExperiments {
        FolderExperiments {
            folder,
            progress,
            answered: 0,
            since: None,
            under_way: None,
            counts: ExperimentCounts::default(),
            last: Findings::default(),
            tries: 0,
            next: None,
        }
    }

    /// Whether a disk does not reply.
    pub(in crate::archive::engine) fn hangs(&self, now: Instant) -> bool {
        let long = |since| now.saturating_duration_since(since) > PASS_MAX;
        self.under_way.is_none() && self.since.is_some_and(long)
    }

    /// The state, for `status`.
    pub(in crate::archive::engine) fn report(
        &self,
        view: &View,
        now: Instant,
    ) -> Option<ExperimentsReport> {
        let location = view.location(self.folder)?;
        let last = self.last.clone();
        let under_way = self
            .under_way
            .as_ref()
            .map(|(item, since, before)| ItemInProgress {
                item: item.clone(),
                bytes: self.progress.bytes().saturating_sub(*before),
                seconds: now.saturating_duration_since(*since).as_secs_f64(),
            });
        let next_try = self.next.map(|next| next.saturating_duration_since(now));
        Some(ExperimentsReport {
            folder: location.path().to_owned(),
            has_place: location.root().is_err() || has_place(location),
            runs: self.counts.runs,
            partials: self.counts.partials,
            files: self.counts.files,
            bytes: self.counts.bytes,
            under_way,
            waiting: last.waiting,
            failed: last.failed,
            failures: last.failures,
            refuses: last.refuses,
            next_try: next_try.map(|next| next.as_secs_f64()),
            trouble: last.trouble,
        })
    }
}
