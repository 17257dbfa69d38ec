//! Copies to one `backup` folder the jobs that a `move` folder has and the `backup` folder lacks.
//!
//! xpmfs moves a job after it has made the backups. But experimaestro's own archiving may move a job first, and a `backup` folder may be new
//! or have lost a copy. The primary then has no directory of the job, so no other survey finds it.
//!
//! Each `backup` folder has a thread for this: the copies read from another folder, which may hang, and must not delay other jobs. A pass
//! costs a `statx` for each task while nothing changes ([`Scanner`]).
//!
//! [`state`] keeps what is left to copy, and [`report`] adds that to what `status` shows.

pub(super) mod report;
pub(super) mod state;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use self::state::FolderMoved;
use super::disks::{Disks, Done, StoreResult};
use super::queue::backoff::{Backoff, Pace};
use super::survey::scanner::Scanner;
use super::survey::walk::{Stopped, Walk};
use crate::archive::error::Scope;
use crate::workspace::JobId;

/// The most jobs that are copied before the state is updated.
const BATCH_JOBS_MAX: usize = 256;

/// Copies moved jobs to one folder, pass after pass.
pub(super) struct MovedJobs {
    walk: Walk,
    folder: u8,
    /// For each `move` folder, the scanner that finds its jobs that `folder` lacks.
    sources: Vec<Scanner>,
    disks: Arc<dyn Disks>,
    wakes: Receiver<()>,
    interval: Duration,
    tick: Duration,
    backoff: Backoff,
    /// How many passes in a row the folder has refused.
    refusals: u32,
    shown: Arc<FolderMoved>,
}

impl MovedJobs {
    /// For a folder; its state is in `walk.shared` from now on.
    pub(super) fn new(
        walk: Walk,
        folder: u8,
        sources: Vec<Scanner>,
        disks: Arc<dyn Disks>,
        wakes: Receiver<()>,
    ) -> MovedJobs {
        let shown = Arc::new(FolderMoved::new(folder));
        walk.shared.moved.lock().push(shown.clone());
        let pace = Pace::default();
        MovedJobs {
            walk,
            folder,
            sources,
            disks,
            wakes,
            interval: Duration::ZERO,
            tick: pace.tick,
            backoff: pace.folder,
            refusals: 0,
            shown,
        }
    }

    /// Sets the time between two passes, and the waits.
    pub(super) fn every(self, interval: Duration, pace: Pace) -> MovedJobs {
        MovedJobs {
            interval,
            tick: pace.tick,
            backoff: pace.folder,
            ..self
        }
    }

    /// Copies until the engine stops.
    pub(super) fn run(mut self) {
        loop {
            let pause = match self.disks.is_there(self.folder) {
                true => self.pass(),
                // This accesses no disk.
                false => Ok(self.tick),
            };
            let ended = pause.and_then(|pause| self.walk.pause_unless(&self.wakes, pause));
            if ended.is_err() {
                return;
            }
        }
    }

    /// Makes one pass, and returns how long to wait for the next.
    fn pass(&mut self) -> Result<Duration, Stopped> {
        let wanted = self.walk.shared.wanted.load(Ordering::SeqCst);
        let now = Instant::now();
        // A caller asks whether all is archived: jobs that were left out before are looked at again.
        let is_wanted = {
            let mut state = self.shown.state.lock();
            state.since = Some(now);
            state.answered < wanted
        };
        let mut sources = std::mem::take(&mut self.sources);
        let (mut trouble, mut is_refused) = (None, false);
        for scanner in &mut sources {
            if is_wanted {
                scanner.forgive();
            }
            let (unread, refuses) = self.copy_from(scanner)?;
            trouble = trouble.or(unread);
            is_refused |= refuses;
        }
        self.forget_others(&sources);
        self.sources = sources;
        self.refusals = match is_refused {
            true => self.refusals.saturating_add(1),
            false => 0,
        };
        let mut state = self.shown.state.lock();
        (state.since, state.answered, state.trouble) = (None, wanted, trouble);
        Ok(match is_refused {
            true => self.backoff.after(self.refusals),
            false => self.interval,
        })
    }

    /// Copies the jobs that one `move` folder has. Returns what could not be read, and whether the `backup` folder accepts no job.
    fn copy_from(&self, scanner: &mut Scanner) -> Result<(Option<String>, bool), Stopped> {
        let stopping = || self.walk.shared.is_stopping();
        loop {
            let found = scanner.scan(BATCH_JOBS_MAX, &stopping);
            let results = match found.jobs.is_empty() {
                true => Vec::new(),
                false => self.copy(scanner.source(), &found.jobs),
            };
            if stopping() {
                return Err(Stopped);
            }
            let is_refused = self.record(scanner, &found.jobs, results);
            if is_refused || !found.more {
                return Ok((found.trouble, is_refused));
            }
        }
    }

    fn copy(&self, source: u8, jobs: &[JobId]) -> Vec<StoreResult> {
        self.shown.state.lock().is_copying = true;
        let due = &mut |job: &JobId| self.shown.state.lock().begin(job);
        let (disks, progress) = (&self.disks, &self.shown.progress);
        let copied = disks.back_up_moved(source, self.folder, jobs, progress, due);
        self.shown.state.lock().is_copying = false;
        copied
    }

    /// Records the results of jobs; returns whether the folder accepts no job.
    fn record(&self, scanner: &mut Scanner, jobs: &[JobId], results: Vec<StoreResult>) -> bool {
        let mut is_refused = false;
        let mut again = Vec::new();
        for (job, result) in jobs.iter().zip(results) {
            let failure = match result {
                Ok(done) => {
                    self.count(done);
                    self.shown.state.lock().lacking.remove(job);
                    continue;
                }
                Err(failure) => failure,
            };
            is_refused |= failure.scope == Scope::Folder;
            if failure.scope != Scope::Job {
                again.push(job.clone());
            }
            let is_first = self.shown.state.lock().fail(job, &failure);
            if is_first && failure.scope == Scope::Job {
                let why = failure.why;
                tracing::warn!("cannot back up {job}, and tries again later: {why}");
            }
        }
        scanner.look_again_soon(&again);
        is_refused
    }

    /// Counts a job that was copied to the folder.
    fn count(&self, done: Done) {
        let queue = &mut self.walk.shared.state.lock().queue;
        if let Some(folder_queue) = queue.folder_queue(self.folder) {
            folder_queue.counts.add(done);
        }
    }

    /// Drops the jobs that the folder has by now, or that left the `move` folder; and notes when the others are tried again.
    fn forget_others(&self, sources: &[Scanner]) {
        if self.shown.state.lock().lacking.is_empty() {
            return;
        }
        let waits = sources.iter().flat_map(Scanner::waits);
        let waits: HashMap<JobId, Duration> = waits.collect();
        let now = Instant::now();
        self.shown.state.lock().lacking.retain(|job, lacking| {
            let wait = waits.get(job);
            lacking.next = now + wait.copied().unwrap_or_default();
            wait.is_some()
        });
    }
}
