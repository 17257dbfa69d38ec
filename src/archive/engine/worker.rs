//! The threads that wait for disks: one looks at jobs, and one per folder stores them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::core::{Core, Failure, Outcome, Whom};
use super::events::Event;
use super::shared::Shared;
use crate::archive::store::Due;
use crate::transfer::Progress;
use crate::workspace::JobId;

/// Jobs for a folder.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) jobs: Vec<Arc<JobId>>,
    /// The same jobs, with their cached state.
    pub(super) due: Vec<Due>,
    pub(super) progress: Arc<Progress>,
}

/// Looks at jobs until the request channel closes.
pub(super) fn look(
    core: &dyn Core,
    shared: &Shared,
    requests: &Receiver<Vec<Arc<JobId>>>,
    events: &Sender<Event>,
) {
    for jobs in requests {
        for job in jobs {
            let result = match shared.is_stopping() {
                true => Err(cancelled()),
                false => caught(|| core.look(&job, &shared.looks)).unwrap_or_else(Err),
            };
            // An error means that the coordinator has ended; this thread then ends too.
            let _ = events.send(Event::Looked(job, result));
        }
    }
}

/// Stores jobs in a folder until the request channel closes.
pub(super) fn store(
    core: &dyn Core,
    folder: u8,
    shared: &Shared,
    requests: &Receiver<Batch>,
    events: &Sender<Event>,
) {
    let mut untidy = None;
    loop {
        let request = match untidy {
            None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => requests.recv_deadline(due),
        };
        match request {
            Ok(Batch {
                jobs,
                due,
                progress,
            }) => {
                let outcomes = caught(|| core.store(folder, &due, &progress));
                let results = pair(jobs, outcomes);
                let _ = events.send(Event::Stored { folder, results });
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        untidy = core.tidy(false);
        shared.tell_back(core, events);
    }
    core.tidy(true);
}

/// Pairs each job with its outcome.
fn pair(
    jobs: Vec<Arc<JobId>>,
    outcomes: Result<Vec<Outcome>, Failure>,
) -> Vec<(Arc<JobId>, Outcome)> {
    let (mut outcomes, missing) = match outcomes {
        Ok(outcomes) => (outcomes.into_iter(), failed("nothing is known of it")),
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
        .map_err(|_| failed("this is a mistake in xpmfs: the log has more of it"))
}

fn failed(why: &str) -> Failure {
    Failure {
        whom: Whom::Job,
        why: why.to_owned(),
    }
}

fn cancelled() -> Failure {
    Failure {
        whom: Whom::Cancelled,
        why: "cancelled".to_owned(),
    }
}
