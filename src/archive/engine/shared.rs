//! What the threads of the engine share: the state, and the events that they send to the coordinator.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use super::disks::{Disks, Failure, Look, StoreResult};
use super::experiments::state::FolderExperiments;
use super::moved::state::FolderMoved;
use super::queue::Queue;
use super::release::ReleaseState;
use super::survey::scanner::ScanResult;
use crate::transfer::Progress;
use crate::workspace::JobId;

/// An event for the coordinator.
#[derive(Debug)]
pub(super) enum Event {
    /// A job changed through the mount.
    Touched(JobId),
    /// A job was looked at.
    Looked(Arc<JobId>, Result<Look, Failure>),
    /// All jobs of one batch for a folder were stored, or failed.
    Stored {
        folder: u8,
        results: Vec<(Arc<JobId>, StoreResult)>,
    },
    /// The primary was compared with a folder.
    Scanned { folder: u8, found: ScanResult },
    /// Jobs to check again by routine; no change of them was seen.
    Routine(Vec<JobId>),
    /// Jobs whose copy is outdated (they have been run again, or the folder has them without their marker), or whose move a
    /// crash has interrupted. It is counted in `unheard`.
    Again(Vec<JobId>),
    /// The markers of all jobs were compared with a folder's, for the full survey number `wanted`. The jobs found
    /// were sent before.
    Compared { folder: u8, wanted: u64 },
    /// Retry all waiting jobs at once.
    Retry,
    /// Stop.
    Stop,
}

/// A scan that takes longer than this is no longer waited for: its folder hangs.
const SCAN_MAX: Duration = Duration::from_secs(60);

/// The state that all threads of the engine share. No lock is held over a system call that can wait.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<EngineState>,
    /// Events that were sent and that the state does not show yet.
    pub(super) unheard: AtomicUsize,
    /// How many full surveys (a scan and a comparison of all markers) were requested; the start requests the first.
    pub(super) wanted: AtomicU64,
    /// The state of the runs and partials of each `backup` folder.
    pub(super) experiments: Mutex<Vec<FolderExperiments>>,
    /// The moved jobs that each `backup` folder lacks.
    pub(super) moved: Mutex<Vec<Arc<FolderMoved>>>,
    stopping: AtomicBool,
    /// Cancels looks at jobs.
    pub(super) looks: Progress,
    /// The state of automatic releases.
    pub(super) release: ReleaseState,
}

/// The engine's state.
#[derive(Debug)]
pub(super) struct EngineState {
    pub(super) queue: Queue,
    pub(super) scans: Vec<FolderScans>,
    /// Why there is no journal.
    pub(super) journal: Option<String>,
}

/// The state of a folder's scans.
#[derive(Debug)]
pub(super) struct FolderScans {
    pub(super) folder: u8,
    /// When the running scan began.
    pub(super) since: Option<Instant>,
    /// The number of the last requested scan that was started.
    pub(super) asked: u64,
    /// The number of the last requested scan that has ended.
    pub(super) answered: u64,
    /// When the next scan is due, unless one is running.
    pub(super) next: Instant,
    /// Whether the folder came back while a scan was running, which may have missed it.
    missed: bool,
    /// Whether the last scan left out jobs for lack of room.
    pub(super) more: bool,
    /// When the last scan ended.
    pub(super) last: Option<SystemTime>,
    /// How many jobs the folder lacks.
    pub(super) candidates: usize,
    /// The number of the last full survey for which all markers were compared. Until this reaches `wanted`, it is unknown
    /// whether all jobs are archived.
    pub(super) compared: u64,
    /// What could not be read.
    pub(super) trouble: Option<String>,
}

impl FolderScans {
    /// A folder that has never been scanned: its first scan is due.
    pub(super) fn new(folder: u8, now: Instant) -> FolderScans {
        FolderScans {
            folder,
            since: None,
            asked: 0,
            answered: 0,
            next: now,
            missed: false,
            more: false,
            last: None,
            candidates: 0,
            compared: 0,
            trouble: None,
        }
    }

    /// The folder is there again, after it was missing.
    pub(super) fn folder_is_back(&mut self, now: Instant) {
        self.next = now;
        self.missed = self.since.is_some();
    }

    /// A scan has ended; the next is due after `interval`.
    pub(super) fn ended(&mut self, found: ScanResult, now: Instant, interval: Duration) {
        self.since = None;
        self.more = found.more;
        self.candidates = found.candidates;
        self.trouble = found.trouble;
        if self.more {
            return;
        }
        let missed = std::mem::take(&mut self.missed);
        self.answered = self.asked;
        self.next = if missed { now } else { now + interval };
        self.last = Some(SystemTime::now());
    }
}

impl Shared {
    pub(super) fn new(queue: Queue, now: Instant) -> Shared {
        let folders = queue.folder_queues.iter().map(|queue| queue.folder);
        let scans = folders.map(|folder| FolderScans::new(folder, now));
        let scans = scans.collect();
        Shared {
            state: Mutex::new(EngineState {
                queue,
                scans,
                journal: None,
            }),
            unheard: AtomicUsize::new(0),
            wanted: AtomicU64::new(1),
            experiments: Mutex::default(),
            moved: Mutex::default(),
            stopping: AtomicBool::new(false),
            looks: Progress::new(),
            release: ReleaseState::default(),
        }
    }

    /// Whether the engine is stopping.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Queues a look at the moved jobs that were put back.
    pub(super) fn report_put_back(&self, disks: &dyn Disks, events: &Sender<Event>) {
        disks.report_put_back(&mut |job| {
            self.unheard.fetch_add(1, Ordering::SeqCst);
            if events.send(Event::Touched(job)).is_err() {
                self.unheard.fetch_sub(1, Ordering::SeqCst);
            }
        });
    }

    /// Makes all threads stop.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.looks.cancel();
        self.release.progress.cancel();
        // Work that is dispatched from now on comes from a thread that has seen `stopping`.
        for folder_queue in &self.state.lock().queue.folder_queues {
            if let Some(in_progress) = &folder_queue.in_progress {
                in_progress.progress.cancel();
            }
        }
        for folder in &*self.experiments.lock() {
            folder.progress.cancel();
        }
        for folder in &*self.moved.lock() {
            folder.progress.cancel();
        }
    }
}

impl FolderScans {
    /// Whether the scan takes so long that callers should not wait for it.
    pub(super) fn hangs(&self, now: Instant) -> bool {
        let long = |since| now.saturating_duration_since(since) > SCAN_MAX;
        self.since.is_some_and(long)
    }
}
