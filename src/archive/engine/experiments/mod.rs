//! Archives the runs of experiments and the partials of their jobs in one `backup` folder, pass after pass.
//!
//! Each `backup` folder has a thread for this, so that a large partial delays no job. A pass over runs that are archived costs a few
//! `statx` for each ([`FolderPasses`]); what fails or waits is tried again in the next pass. [`state`] has what `status` shows of it.

pub(super) mod state;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use self::state::{FailedItem, Findings, FolderExperiments, WaitingItem};
use super::disks::{Disks, Failure};
use super::queue::backoff::{Backoff, Pace};
use super::survey::walk::Walk;
use crate::archive::experiments::Item;
use crate::archive::experiments::pass::{FolderPasses, ItemOutcome, PassObserver};
use crate::archive::job::store::Stored;
use crate::transfer::Progress;

/// The most items of each kind that are listed by name.
const NAMES_MAX: usize = 100;

/// The pause after a pass in which something waits, as for the settle time.
const WAITING_PAUSE: Duration = Duration::from_secs(1);

/// The thread that archives the runs and partials of one folder.
pub(super) struct ExperimentArchiver {
    walk: Walk,
    folder: u8,
    disks: Arc<dyn Disks>,
    wakes: Receiver<()>,
    interval: Duration,
    tick: Duration,
    backoff: Backoff,
    progress: Arc<Progress>,
}

impl ExperimentArchiver {
    /// The archiver for a folder, whose state is in `walk.shared` from now on.
    pub(super) fn new(
        walk: Walk,
        folder: u8,
        disks: Arc<dyn Disks>,
        wakes: Receiver<()>,
    ) -> ExperimentArchiver {
        let progress = Arc::new(Progress::new());
        let state = FolderExperiments::new(folder, progress.clone());
        walk.shared.experiments.lock().push(state);
        let pace = Pace::default();
        ExperimentArchiver {
            walk,
            folder,
            disks,
            wakes,
            interval: Duration::ZERO,
            tick: pace.tick,
            backoff: pace.folder,
            progress,
        }
    }

    /// Sets the time between two passes, and the waits.
    pub(super) fn every(self, interval: Duration, pace: Pace) -> ExperimentArchiver {
        ExperimentArchiver {
            interval,
            tick: pace.tick,
            backoff: pace.folder,
            ..self
        }
    }

    /// Archives until the engine stops.
    pub(super) fn run(self) {
        let mut passes = FolderPasses::new(self.folder);
        loop {
            let pause = match self.disks.is_there(self.folder) {
                true => self.pass(&mut passes),
                // This accesses no disk.
                false => self.tick,
            };
            if self.walk.shared.is_stopping() || self.walk.pause_unless(&self.wakes, pause).is_err()
            {
                return;
            }
        }
    }

    /// Makes one pass, and returns how long to wait for the next.
    fn pass(&self, passes: &mut FolderPasses) -> Duration {
        let wanted = self.walk.shared.wanted.load(Ordering::SeqCst);
        let now = Instant::now();
        let is_wanted = self.change(|state| {
            state.since = Some(now);
            state.answered < wanted
        });
        // A caller asks whether all is archived: what is remembered is checked again.
        if is_wanted.unwrap_or(false) {
            passes.forget();
        }
        let mut recorder = Recorder {
            archiver: self,
            found: Findings::default(),
        };
        let passed = self
            .disks
            .experiments(passes, &self.progress, &mut recorder);
        let mut found = recorder.found;
        if let Err(Failure { why, .. }) = &passed {
            tracing::debug!("experiments are not archived in a folder now: {why}");
            found.refuses = Some(why.clone());
        }
        let has_failed = found.failures > 0 || found.refuses.is_some();
        let pause = self.change(|state| {
            state.tries = match has_failed {
                true => state.tries.saturating_add(1),
                false => 0,
            };
            let pause = match (has_failed, found.settling > 0) {
                (true, _) => self.backoff.after(state.tries),
                (false, true) => WAITING_PAUSE.min(self.interval),
                (false, false) => self.interval,
            };
            (state.since, state.under_way) = (None, None);
            state.answered = wanted;
            state.last = found;
            state.next = has_failed.then(|| Instant::now() + pause);
            pause
        });
        pause.unwrap_or(self.interval)
    }

    /// Changes the state of the folder.
    fn change<T>(&self, call: impl FnOnce(&mut FolderExperiments) -> T) -> Option<T> {
        let mut folders = self.walk.shared.experiments.lock();
        let state = folders.iter_mut().find(|state| state.folder == self.folder);
        state.map(call)
    }
}

/// Records what a pass does.
struct Recorder<'a> {
    archiver: &'a ExperimentArchiver,
    found: Findings,
}

impl PassObserver for Recorder<'_> {
    fn begin(&mut self, item: &Item) {
        let bytes = self.archiver.progress.bytes();
        let under_way = (item.to_string(), Instant::now(), bytes);
        self.archiver
            .change(|state| state.under_way = Some(under_way));
    }

    fn end(&mut self, item: &Item, outcome: ItemOutcome) {
        self.archiver.change(|state| state.under_way = None);
        let (item, is_run) = (item.to_string(), matches!(item, Item::Run(_)));
        let mut wait = |why, in_use| {
            if self.found.waiting.len() < NAMES_MAX {
                let item = item.clone();
                self.found.waiting.push(WaitingItem { item, why, in_use });
            }
        };
        match outcome {
            ItemOutcome::Stored(
                Stored::Copied { files, bytes } | Stored::Replaced { files, bytes },
            ) => {
                tracing::info!("archived {item}: {files} files, {bytes} bytes");
                self.archiver.change(|state| {
                    let counts = &mut state.counts;
                    counts.runs += u64::from(is_run);
                    counts.partials += u64::from(!is_run);
                    counts.files += files;
                    counts.bytes += bytes;
                });
            }
            ItemOutcome::Stored(Stored::Already | Stored::Skipped(_)) => {}
            ItemOutcome::Waiting(why) => {
                wait(why, false);
                self.found.settling += 1;
            }
            ItemOutcome::InUse(why) => wait(why, true),
            ItemOutcome::Failed(cause) => {
                let Failure { why, .. } = Failure::from(cause);
                tracing::debug!("{item} is not archived yet: {why}");
                self.found.failures += 1;
                if self.found.failed.len() < NAMES_MAX {
                    self.found.failed.push(FailedItem { item, why });
                }
            }
        }
    }

    fn trouble(&mut self, why: String) {
        self.found.trouble.get_or_insert(why);
    }
}
