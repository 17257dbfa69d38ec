//! Handles the results of looks at jobs and of storing them: the next step of each job, and how long it waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::{At, QueueChange, QueuedJob, Step, Then, Turn, Want};
use super::{Queue, folder_queue};
use crate::archive::engine::disks::{Done, Failure, Look, StoreResult};
use crate::archive::engine::route::Destination;
use crate::archive::error::Scope;
use crate::workspace::JobId;

impl Queue {
    /// Handles the result of a look at a job; `route` are the folders that want it.
    pub(in crate::archive::engine) fn looked(
        &mut self,
        id: &Arc<JobId>,
        result: Result<Look, Failure>,
        route: &[Destination],
        now: Instant,
    ) {
        self.looking = self.looking.saturating_sub(1);
        let Some(mut job) = self.jobs.remove(id) else {
            return;
        };
        let Step::Look(turn) = &mut job.step else {
            self.jobs.insert(id.clone(), job);
            return;
        };
        if job.then == Then::LookAgain {
            let due = now + self.settle;
            self.look_at(id, &mut job, due);
            self.jobs.insert(id.clone(), job);
            return;
        }
        let due = match result {
            Ok(Look::Ready(size)) => {
                job.size = Some(size);
                return self.send(id, job, route, now);
            }
            Ok(Look::Nothing) => return self.finish(id, &job),
            // A disk whose clock is ahead has files from the future, which would never be old enough.
            Ok(Look::Settling(wait)) => {
                let least = Duration::from_millis(10);
                now + wait.clamp(least, self.settle.max(self.pace.look.most))
            }
            Ok(Look::Busy(why)) => {
                let scope = Scope::Soon;
                now + turn.refuse(Failure { scope, why }, self.pace.look).0
            }
            Err(failure) => {
                let backoff = match failure.scope {
                    Scope::Soon | Scope::Again | Scope::Cancelled => self.pace.look,
                    Scope::Job | Scope::Folder | Scope::Space => self.pace.job,
                };
                let scope = match failure.scope {
                    Scope::Folder | Scope::Space => Scope::Job,
                    scope => scope,
                };
                now + turn.refuse(Failure { scope, ..failure }, backoff).0
            }
        };
        turn.at = At::Due(due);
        self.looks.insert(due, id);
        self.jobs.insert(id.clone(), job);
    }

    /// Sends a job that is ready to its folders.
    fn send(&mut self, id: &Arc<JobId>, mut job: QueuedJob, route: &[Destination], now: Instant) {
        if route.is_empty() {
            return self.finish(id, &job);
        }
        let wants = route.iter().map(|destination| Want {
            destination: *destination,
            turn: Turn {
                at: At::Later,
                refusal: None,
            },
        });
        job.step = Step::Store(wants.collect());
        self.add_to_folder_queues(id, &mut job, now);
        self.jobs.insert(id.clone(), job);
    }

    /// Handles the results of storing one batch of jobs in a folder.
    pub(in crate::archive::engine) fn stored(
        &mut self,
        folder: u8,
        results: Vec<(Arc<JobId>, StoreResult)>,
        now: Instant,
    ) {
        if let Some(folder_queue) = folder_queue(&mut self.folder_queues, folder) {
            folder_queue.record_results(results.iter().map(|(_, result)| result), &self.pace, now);
        }
        for (id, result) in results {
            self.stored_one(folder, &id, result, now);
        }
    }

    fn stored_one(&mut self, folder: u8, id: &Arc<JobId>, result: StoreResult, now: Instant) {
        let Some(mut job) = self.jobs.remove(id) else {
            return;
        };
        match result {
            Ok(done) => {
                if let Step::Store(wants) = &mut job.step {
                    wants.retain(|want| want.destination.folder != folder);
                }
                if done == Done::Skipped && job.then == Then::GoOn {
                    job.then = Then::Skip;
                    self.remove_from_folder_queues(id, &mut job);
                }
            }
            Err(failure) => self.refused(folder, id, &mut job, failure, now),
        }
        let worked_on = job.is_worked_on();
        let empty = matches!(&job.step, Step::Store(wants) if wants.is_empty());
        match job.then {
            Then::LookAgain if !worked_on => {
                let due = now + self.settle;
                self.look_at(id, &mut job, due);
            }
            Then::Skip if !worked_on => return self.finish(id, &job),
            Then::GoOn if empty => return self.finish(id, &job),
            Then::GoOn => self.add_to_folder_queues(id, &mut job, now),
            Then::LookAgain | Then::Skip => {}
        }
        self.jobs.insert(id.clone(), job);
    }

    /// Handles a folder's refusal of a job.
    fn refused(
        &mut self,
        folder: u8,
        id: &Arc<JobId>,
        job: &mut QueuedJob,
        failure: Failure,
        now: Instant,
    ) {
        if failure.scope == Scope::Again {
            if let Some(want) = job.want(folder) {
                want.turn.at = At::Later;
            }
            if job.then == Then::GoOn {
                job.then = Then::LookAgain;
                self.remove_from_folder_queues(id, job);
            }
            return;
        }
        let (go_on, scope, why) = (job.then == Then::GoOn, failure.scope, failure.why.clone());
        let Some(want) = job.want(folder) else {
            return;
        };
        let (wait, tries) = match scope {
            // The folder waits as a whole.
            Scope::Folder => (Duration::ZERO, 0),
            Scope::Cancelled => (self.pace.busy.first, 0),
            Scope::Soon | Scope::Again => want.turn.refuse(failure, self.pace.busy),
            // It comes after the jobs that were not refused, some of which may fit.
            Scope::Space => want.turn.refuse(failure, self.pace.folder),
            Scope::Job => want.turn.refuse(failure, self.pace.job),
        };
        let due = now + wait;
        want.turn.at = At::Later;
        if go_on {
            want.turn.at = At::Due(due);
            if let Some(folder_queue) = folder_queue(&mut self.folder_queues, folder) {
                folder_queue.waiting.insert(due, id);
            }
        }
        if scope == Scope::Job {
            if tries == 1 {
                tracing::warn!("cannot archive {id}, and tries again later: {why}");
            }
            self.mark_changed(id, job);
            let change = QueueChange::Refused(id.clone(), folder, tries, due, why);
            self.changes.push(change);
        }
    }
}
