//! Runs the thread that schedules all work of the engine. It waits for no folder.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::disks::Disks;
use super::journal::JournalWriter;
use super::queue::folder_queue::InProgress;
use super::route::Route;
use super::shared::{EngineState, Event, FolderScans, Shared};
use super::survey::scanner::ScanResult;
use super::worker::{ScanRequest, StoreRequest};
use crate::archive::job::store::Due;
use crate::transfer::{Progress, Size};
use crate::workspace::JobId;

/// The most jobs that are sent to a folder's thread, or looked at, at a time.
const REQUEST_JOBS_MAX: usize = 256;

/// Scans find no more jobs while this many are queued: this bounds memory, also where a million jobs wait to be
/// archived.
const QUEUE_MAX: usize = 10_000;

/// The most events that are handled before work is dispatched again.
const EVENTS_MAX: usize = 10_000;

/// The longest wait for an event: afterwards the clock is read again, in case it misbehaves.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// The coordinator.
pub(super) struct Coordinator {
    pub(super) shared: Arc<Shared>,
    pub(super) disks: Arc<dyn Disks>,
    pub(super) route: Arc<Route>,
    pub(super) interval: Duration,
    pub(super) events: Receiver<Event>,
    pub(super) looks: Sender<Vec<Arc<JobId>>>,
    pub(super) channels: Vec<FolderChannels>,
    pub(super) journal: JournalWriter,
    /// When the journals of other processes are next looked for.
    pub(super) adoption: Instant,
}

/// The channels to a folder's threads.
pub(super) struct FolderChannels {
    pub(super) folder: u8,
    pub(super) batches: Sender<StoreRequest>,
    pub(super) scans: Sender<ScanRequest>,
    /// Wakes the thread that compares markers, to compare those of all jobs if `wanted` has grown.
    pub(super) wakes: Sender<()>,
    /// Wakes the thread that archives runs and partials, if the folder has one.
    pub(super) experiments: Option<Sender<()>>,
    /// Wakes the thread that copies moved jobs to the folder, if it has one.
    pub(super) moved: Option<Sender<()>>,
}

impl Coordinator {
    /// Runs until the engine stops.
    pub(super) fn run(mut self) {
        loop {
            self.adopt();
            self.look_for_folders();
            let next = self.dispatch();
            self.keep();
            let first = match self.events.recv_deadline(next) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            self.look_for_folders();
            // Takes all pending events, so that the journal is written once for all of them.
            let more = self.events.try_iter().take(EVENTS_MAX);
            let events: Vec<Event> = first.into_iter().chain(more).collect();
            for event in events {
                self.handle(event);
            }
            if self.shared.is_stopping() {
                break;
            }
        }
        self.keep();
        let idle = self.shared.state.lock().queue.jobs.is_empty();
        self.journal.close(idle);
    }

    fn handle(&mut self, event: Event) {
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        match event {
            Event::Touched(job) => {
                state.queue.touch(job, now);
                self.shared.unheard.fetch_sub(1, Ordering::SeqCst);
            }
            Event::Looked(job, result) => {
                let route = self.route.of(&job);
                state.queue.looked(&job, result, &route, now);
            }
            Event::Stored { folder, results } => {
                state.queue.stored(folder, results, now);
            }
            Event::Scanned { folder, found } => self.scanned(&mut state, folder, found, now),
            Event::Routine(jobs) => {
                for job in jobs {
                    state.queue.found(job, true, now);
                }
            }
            Event::Again(jobs) => {
                for job in jobs {
                    state.queue.found(job, false, now);
                }
                self.shared.unheard.fetch_sub(1, Ordering::SeqCst);
            }
            Event::Compared { folder, wanted } => {
                if let Some(scan) = state.scan(folder) {
                    scan.compared = wanted;
                }
            }
            Event::Retry => {
                state.queue.retry(now);
                self.adoption = now;
                for channel in &self.channels {
                    // A full channel is fine: a thread that is already woken reads the current `wanted`.
                    let _ = channel.wakes.try_send(());
                    for woken in [&channel.experiments, &channel.moved].into_iter().flatten() {
                        let _ = woken.try_send(());
                    }
                }
                self.shared.unheard.fetch_sub(1, Ordering::SeqCst);
            }
            Event::Stop => {}
        }
    }

    fn scanned(&self, state: &mut EngineState, folder: u8, mut found: ScanResult, now: Instant) {
        for job in std::mem::take(&mut found.jobs) {
            state.queue.found(job, false, now);
        }
        let Some(scan) = state.scan(folder) else {
            return;
        };
        if let Some(trouble) = &found.trouble
            && scan.trouble.as_ref() != Some(trouble)
        {
            tracing::warn!("not every finished job may be found: {trouble}");
        }
        scan.ended(found, now, self.interval);
    }

    /// Notes which folders are there.
    fn look_for_folders(&self) {
        let now = Instant::now();
        let state = &mut *self.shared.state.lock();
        for folder_queue in &mut state.queue.folder_queues {
            let back = folder_queue.set_there(self.disks.is_there(folder_queue.folder));
            if back && let Some(scan) = find(&mut state.scans, folder_queue.folder) {
                scan.folder_is_back(now);
            }
        }
    }

    /// Dispatches the work that is due, and returns when more is due.
    fn dispatch(&self) -> Instant {
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        if self.shared.is_stopping() {
            return now;
        }
        let looks = state.queue.take_looks(REQUEST_JOBS_MAX, now);
        if !looks.is_empty() {
            // The thread ends after this one.
            let _ = self.looks.send(looks);
        }
        let mut next = now + WAIT_MAX;
        for channel in &self.channels {
            let jobs = state
                .queue
                .take_batch(channel.folder, REQUEST_JOBS_MAX, now);
            if !jobs.is_empty() {
                channel.give(&mut state, jobs, now);
            }
            if let Some(due) = self.scan(channel, &mut state, now) {
                next = next.min(due);
            }
        }
        next = next.min(self.adoption);
        state.queue.next(now).map_or(next, |due| next.min(due))
    }

    /// Starts a scan of a folder if it is due; returns when it is due otherwise.
    fn scan(
        &self,
        channel: &FolderChannels,
        state: &mut EngineState,
        now: Instant,
    ) -> Option<Instant> {
        let length = state.queue.jobs.len();
        let wanted = self.shared.wanted.load(Ordering::SeqCst);
        let scan = state.scan(channel.folder)?;
        if scan.since.is_some() {
            return None;
        }
        if scan.more && length > QUEUE_MAX / 2 {
            // The coordinator comes here again after each event that removes a job from the queue.
            return None;
        }
        if !scan.more && scan.answered >= wanted && scan.next > now {
            return Some(scan.next);
        }
        let request = ScanRequest {
            room: QUEUE_MAX.saturating_sub(length),
            forgive: scan.asked < wanted,
        };
        scan.asked = wanted;
        scan.since = Some(now);
        let _ = channel.scans.send(request);
        None
    }

    /// Takes over the jobs in journals of processes that are gone.
    fn adopt(&mut self) {
        let now = Instant::now();
        if self.adoption > now {
            return;
        }
        self.adoption = now + self.interval;
        self.keep();
        let found = self.journal.ownerless(&self.shared);
        for journal in &found {
            for (job, refused) in journal.jobs() {
                let refused = self.journal.refused(&refused);
                let queue = &mut self.shared.state.lock().queue;
                queue.restore(job, &refused, now);
            }
        }
        if self.keep() {
            found.into_iter().for_each(|journal| journal.remove());
        }
    }

    /// Writes changes into the journal; returns whether they are written.
    fn keep(&mut self) -> bool {
        let mut state = self.shared.state.lock();
        let changes = state.queue.changes();
        drop(state);
        self.journal.record(changes);
        if self.journal.is_long(&self.shared) {
            self.journal.rewrite(&self.shared);
        }
        self.shared.state.lock().journal = self.journal.trouble();
        self.journal.trouble().is_none()
    }
}

impl FolderChannels {
    /// Sends jobs to a folder's thread, which waits for them.
    fn give(&self, state: &mut EngineState, jobs: Vec<Arc<JobId>>, now: Instant) {
        let progress = Arc::new(Progress::new());
        let due = jobs.iter().map(|id| Due {
            size: state.queue.jobs.get(id).and_then(|job| job.size),
            ..Due::from(JobId::clone(id))
        });
        let due: Vec<Due> = due.collect();
        let sizes: Option<Vec<Size>> = due.iter().map(|due| due.size).collect();
        if let Some(sizes) = sizes {
            progress.expect(sizes.into_iter().sum());
        }
        if let Some(folder_queue) = state.queue.folder_queue(self.folder) {
            folder_queue.in_progress = Some(InProgress {
                jobs: jobs.clone(),
                progress: progress.clone(),
                since: now,
            });
        }
        // The thread ends after this one.
        let _ = self.batches.send(StoreRequest {
            jobs,
            due,
            progress,
        });
    }
}

impl EngineState {
    fn scan(&mut self, folder: u8) -> Option<&mut FolderScans> {
        find(&mut self.scans, folder)
    }
}

fn find(scans: &mut [FolderScans], folder: u8) -> Option<&mut FolderScans> {
    scans.iter_mut().find(|scan| scan.folder == folder)
}
