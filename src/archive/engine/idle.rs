//! Decides whether anything is left to archive, for callers that wait for the end.

use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::queue::{At, QueuedJob, Step};
use super::report::why_absent;
use super::shared::{EngineState, FolderScans, Shared};
use super::survey::walk::MANY;
use crate::archive::experiments::damage;
use crate::archive::{places, state_dir};
use crate::view::View;

/// Whether there is anything left to archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Idle {
    /// Nothing.
    Yes,
    /// Jobs are queued, or a scan is looking for some.
    Busy {
        /// Jobs that are queued.
        left: usize,
    },
    /// All jobs that are left have failed, or their folders accept no job; or it is unknown whether any job is left,
    /// since some folders or directories cannot be read.
    Stuck {
        /// Jobs that are queued.
        failed: usize,
    },
}

impl Idle {
    /// The state of two parts of the work.
    fn and(self, other: Idle) -> Idle {
        match (self, other) {
            (Idle::Yes, state) | (state, Idle::Yes) => state,
            (Idle::Busy { left }, Idle::Busy { left: more })
            | (Idle::Busy { left }, Idle::Stuck { failed: more })
            | (Idle::Stuck { failed: more }, Idle::Busy { left }) => {
                Idle::Busy { left: left + more }
            }
            (Idle::Stuck { failed }, Idle::Stuck { failed: more }) => Idle::Stuck {
                failed: failed + more,
            },
        }
    }
}

/// Returns whether anything is left to do. A damaged or missing copy counts as stuck until it is replaced.
pub(super) fn idle(shared: &Shared, view: &View, now: Instant) -> Idle {
    let jobs = idle_queue(shared, view, now).and(idle_moved(shared, view, now));
    match jobs.and(idle_experiments(shared, view, now)) {
        Idle::Yes if is_any_damaged(view) => Idle::Stuck { failed: 0 },
        idle => idle,
    }
}

fn is_any_damaged(view: &View) -> bool {
    let primary = view.primary();
    places::archives(view).any(|folder| {
        state_dir::damaged(primary, folder, 0).is_ok_and(|damaged| damaged.count > 0)
            || damage::list(primary, folder, 0).is_ok_and(|damaged| damaged.count > 0)
    })
}

/// As `idle`, by the queue and the scans only. Jobs that are only rechecked by routine do not count.
fn idle_queue(shared: &Shared, view: &View, now: Instant) -> Idle {
    let state = &*shared.state.lock();
    let is_there = |folder| why_absent(view, folder).is_none();
    let jobs = state.queue.jobs.values().filter(|job| !job.routine);
    let left = jobs.clone().count();
    let wanted = shared.wanted.load(Ordering::SeqCst);
    let scanning = state.scans.iter().any(|scan| {
        let hangs = scan.hangs(now);
        // A scan that stopped for lack of room goes on when jobs have been archived, if any can be.
        let full = scan.more && scan.since.is_none() && scan.asked == wanted;
        let known = scan.answered >= wanted || hangs || full;
        !known && is_there(scan.folder)
    });
    let comparing = state.scans.iter();
    let comparing = comparing
        .filter(|scan| scan.compared < wanted)
        .any(|scan| is_there(scan.folder));
    if scanning || shared.unheard.load(Ordering::SeqCst) > 0 {
        return Idle::Busy { left };
    }
    if comparing {
        // Jobs that are found wait for room, and for ever if none of the queued jobs can be archived.
        let mut all = state.queue.jobs.values();
        let stuck = state.queue.jobs.len() > MANY && all.all(|job| is_stuck(job, state, view, now));
        return match stuck {
            true => Idle::Stuck { failed: left },
            false => Idle::Busy { left },
        };
    }
    let mut stuck = jobs.map(|job| is_stuck(job, state, view, now));
    let unseen =
        |scan: &FolderScans| !is_there(scan.folder) || scan.hangs(now) || scan.trouble.is_some();
    let unseen = state.scans.iter().any(unseen);
    match (left, stuck.all(|stuck| stuck)) {
        (0, _) if unseen => Idle::Stuck { failed: 0 },
        (0, _) => Idle::Yes,
        (failed, true) => Idle::Stuck { failed },
        (left, false) => Idle::Busy { left },
    }
}

/// Whether nothing can be done for a job now.
fn is_stuck(job: &QueuedJob, state: &EngineState, view: &View, now: Instant) -> bool {
    let wants = match &job.step {
        Step::Look(turn) => return turn.has_failed(now),
        Step::Store(wants) => wants,
    };
    wants.iter().all(|want| {
        let folder_queues = &state.queue.folder_queues;
        let folder_queue = folder_queues
            .iter()
            .find(|folder_queue| folder_queue.folder == want.destination.folder);
        match want.turn.at {
            // The folder's thread waits for a reply of its disk.
            At::Now => why_absent(view, want.destination.folder).is_some(),
            At::Later => true,
            At::Due(_) => {
                want.turn.has_failed(now)
                    || folder_queue.is_none_or(|folder_queue| folder_queue.refuses(view, now))
            }
        }
    })
}

/// Whether any moved job is left that a `backup` folder lacks.
fn idle_moved(shared: &Shared, view: &View, now: Instant) -> Idle {
    let wanted = shared.wanted.load(Ordering::SeqCst);
    let (mut left, mut failed, mut busy, mut stuck) = (0, 0, false, false);
    for folder in &*shared.moved.lock() {
        if why_absent(view, folder.folder).is_some() {
            continue;
        }
        let state = folder.state.lock();
        let hangs = state.hangs(now);
        let failures = state.lacking.values().filter(|job| job.has_failed());
        let failures = failures.count();
        failed += failures;
        left += state.lacking.len() - failures;
        busy |= !hangs && (state.answered < wanted || state.lacking.len() > failures);
        stuck |= hangs || state.trouble.is_some();
    }
    match (busy, failed > 0 || stuck) {
        (true, _) => Idle::Busy {
            left: left + failed,
        },
        (false, true) => Idle::Stuck {
            failed: left + failed,
        },
        (false, false) => Idle::Yes,
    }
}

/// Whether any run or partial is left to archive. Those that a job uses do not count: their run or their job is not at its end.
fn idle_experiments(shared: &Shared, view: &View, now: Instant) -> Idle {
    let wanted = shared.wanted.load(Ordering::SeqCst);
    let folders = shared.experiments.lock();
    let (mut left, mut failed, mut busy, mut stuck) = (0, 0, false, false);
    for state in folders.iter() {
        if why_absent(view, state.folder).is_some() {
            continue;
        }
        let hangs = state.hangs(now);
        left += state.last.settling;
        failed += state.last.failures;
        busy |= !hangs && (state.answered < wanted || state.last.settling > 0);
        stuck |= hangs || state.last.refuses.is_some() || state.last.trouble.is_some();
    }
    match (busy, failed > 0 || stuck) {
        (true, _) => Idle::Busy {
            left: left + failed,
        },
        (false, true) => Idle::Stuck { failed },
        (false, false) => Idle::Yes,
    }
}
