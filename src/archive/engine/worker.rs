//! The threads that wait for disks: one looks at jobs; for each folder, one stores jobs and one scans. `survey` has the others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::disks::{Disks, Failure, StoreResult};
use super::shared::{Event, Shared};
use super::survey::scanner::Scanner;
use crate::archive::error::Scope;
use crate::archive::job::store::Due;
use crate::transfer::Progress;
use crate::workspace::JobId;

/// Jobs for a folder.
#[derive(Debug)]
pub(super) struct StoreRequest {
    pub(super) jobs: Vec<Arc<JobId>>,
    /// The same jobs, with their cached state.
    pub(super) due: Vec<Due>,
    pub(super) progress: Arc<Progress>,
}

/// Looks at jobs until the request channel closes.
pub(super) fn look(
    disks: &dyn Disks,
    shared: &Shared,
    requests: &Receiver<Vec<Arc<JobId>>>,
    events: &Sender<Event>,
) {
    for jobs in requests {
        for job in jobs {
            let result = match shared.is_stopping() {
                true => Err(cancelled()),
                false => caught(|| disks.look(&job, &shared.looks)).unwrap_or_else(Err),
            };
            // An error means that the coordinator has ended; this thread then ends too.
            let _ = events.send(Event::Looked(job, result));
        }
    }
}

/// Stores jobs in a folder until the request channel closes.
pub(super) fn store(
    disks: &dyn Disks,
    folder: u8,
    shared: &Shared,
    requests: &Receiver<StoreRequest>,
    events: &Sender<Event>,
) {
    let mut untidy = None;
    loop {
        let request = match untidy {
            None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => requests.recv_deadline(due),
        };
        match request {
            Ok(StoreRequest {
                jobs,
                due,
                progress,
            }) => {
                let outcomes = caught(|| disks.store(folder, &due, &progress));
                let results = pair(jobs, outcomes);
                let _ = events.send(Event::Stored { folder, results });
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        untidy = disks.tidy(false);
        shared.report_put_back(disks, events);
    }
    disks.tidy(true);
}

/// A request to scan once.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScanRequest {
    /// The most jobs that the scan may return.
    pub(super) room: usize,
    /// Whether the scan also checks jobs that earlier scans found unfinished.
    pub(super) forgive: bool,
}

/// Scans on request, and cleans up after processes that died, until the request channel closes.
pub(super) fn scan(
    mut scanner: Scanner,
    folder: u8,
    disks: &dyn Disks,
    requests: &Receiver<ScanRequest>,
    events: &Sender<Event>,
    shared: &Shared,
) {
    let stopping = || shared.is_stopping();
    for request in requests {
        if request.forgive {
            scanner.forgive();
        }
        let found = scanner.scan(request.room, &stopping);
        for task in &found.staging {
            if !stopping() {
                disks.clear(task);
            }
        }
        shared.report_put_back(disks, events);
        if stopping() || events.send(Event::Scanned { folder, found }).is_err() {
            return;
        }
    }
}

/// Pairs each job with its outcome.
fn pair(
    jobs: Vec<Arc<JobId>>,
    outcomes: Result<Vec<StoreResult>, Failure>,
) -> Vec<(Arc<JobId>, StoreResult)> {
    let (mut outcomes, missing) = match outcomes {
        Ok(outcomes) => (outcomes.into_iter(), failed("the outcome is missing")),
        Err(failure) => (Vec::new().into_iter(), failure),
    };
    jobs.into_iter()
        .map(|job| (job, outcomes.next().unwrap_or(Err(missing.clone()))))
        .collect()
}

/// Calls a function, and returns a panic in it as a failure, so that a bug does not end all archiving.
fn caught<T>(call: impl FnOnce() -> T) -> Result<T, Failure> {
    // The state that it shares with other threads is behind locks that a panic does not poison.
    catch_unwind(AssertUnwindSafe(call))
        .map_err(|_| failed("this is a bug in xpmfs: the log has details"))
}

fn failed(why: &str) -> Failure {
    Failure {
        scope: Scope::Job,
        why: why.to_owned(),
    }
}

fn cancelled() -> Failure {
    Failure {
        scope: Scope::Cancelled,
        why: "cancelled".to_owned(),
    }
}
