//! Holds the state that the threads of the engine share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use super::core::Core;
use super::events::Event;
use super::queue::Queue;
use crate::transfer::Progress;

/// The state that all threads of the engine share. No lock is held over a system call that can wait.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Events that were sent and that the state does not show yet.
    pub(super) unheard: AtomicUsize,
    /// How many full looks, scans and comparisons of all markers, have been asked for; the first one by the start.
    pub(super) wanted: AtomicU64,
    stopping: AtomicBool,
    /// By which looks at jobs are ended.
    pub(super) looks: Progress,
}

/// The engine's state.
#[derive(Debug)]
pub(super) struct State {
    pub(super) queue: Queue,
    pub(super) scans: Vec<Scan>,
    /// Why there is no journal.
    pub(super) journal: Option<String>,
}

/// The state of a folder's scans.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) folder: u8,
    /// Since when it is being scanned.
    pub(super) since: Option<Instant>,
    /// Which of the scans that were asked for is the one that runs, or ran last.
    pub(super) asked: u64,
    /// Which of the scans that were asked for has ended.
    pub(super) answered: u64,
    /// When it is scanned next.
    pub(super) next: Instant,
    /// Whether the last scan left out jobs for lack of room.
    pub(super) more: bool,
    /// When the last one ended.
    pub(super) last: Option<SystemTime>,
    /// How many jobs are missing from the folder.
    pub(super) candidates: usize,
    /// The number of the last full look for which the markers of all jobs were compared with the folder's. Until this
    /// reaches `wanted`, it is unknown whether all jobs are archived.
    pub(super) compared: u64,
    /// What could not be read.
    pub(super) trouble: Option<String>,
}

impl Shared {
    pub(super) fn new(queue: Queue, now: Instant) -> Shared {
        let scans = queue.lanes.iter().map(|lane| Scan {
            folder: lane.folder,
            since: None,
            asked: 0,
            answered: 0,
            next: now,
            more: false,
            last: None,
            candidates: 0,
            compared: 0,
            trouble: None,
        });
        let scans = scans.collect();
        Shared {
            state: Mutex::new(State {
                queue,
                scans,
                journal: None,
            }),
            unheard: AtomicUsize::new(0),
            wanted: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            looks: Progress::new(),
        }
    }

    /// Whether the engine is stopping.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Queues a look at the jobs that came back from a `move` folder.
    pub(super) fn tell_back(&self, core: &dyn Core, events: &Sender<Event>) {
        core.tell_back(&mut |job| {
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
        // Work that is dispatched from now on comes from a thread that has seen `stopping`.
        for lane in &self.state.lock().queue.lanes {
            if let Some(flight) = &lane.flight {
                flight.progress.cancel();
            }
        }
    }
}
