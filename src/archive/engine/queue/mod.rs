//! Keeps which jobs wait for a look, and which wait to be stored in which folders.
//!
//! Plain state and no threads; the caller passes the time, so that tests need not wait.
//!
//! - A job is queued from the report that it may be finished until every folder that wants it has a copy, or a look
//!   at it finds nothing to do.
//! - It is looked at first, then copied to all `backup` folders, and after that to the `move` folder.
//! - A job that is touched while it is queued starts again with a look.

mod job;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff::Pace;
use super::core::{Done, Failure, Look, Outcome, Whom};
use super::lane::Lane;
use super::route::Stop;
use crate::workspace::JobId;

use self::job::Then;
pub(super) use self::job::{At, Change, Job, Refusal, Step, Turn, Waiting, Want};

/// All queued jobs.
#[derive(Debug)]
pub(super) struct Queue {
    pace: Pace,
    settle: Duration,
    pub(super) jobs: HashMap<Arc<JobId>, Job>,
    looks: Waiting,
    /// Jobs that are being looked at.
    looking: usize,
    pub(super) lanes: Vec<Lane>,
    changes: Vec<Change>,
}

impl Queue {
    pub(super) fn new(pace: Pace, settle: Duration, lanes: Vec<Lane>) -> Queue {
        Queue {
            pace,
            settle,
            jobs: HashMap::new(),
            looks: Waiting::default(),
            looking: 0,
            lanes,
            changes: Vec::new(),
        }
    }

    /// Returns the changes since the last call.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    pub(super) fn lane(&mut self, folder: u8) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.folder == folder)
    }

    /// A job changed: it is looked at once it has not changed for the settle time.
    pub(super) fn touch(&mut self, id: JobId, now: Instant) {
        let due = now + self.settle;
        let Some((id, mut job)) = self.jobs.remove_entry(&id) else {
            return self.insert(Arc::new(id), false, due);
        };
        self.rouse(&id, &mut job);
        if job.is_worked_on() {
            job.then = Then::LookAgain;
            self.leave_lanes(&id, &mut job);
        } else {
            self.look_at(&id, &mut job, due);
        }
        self.jobs.insert(id, job);
    }

    /// Queues a job that may be finished; `routine`: no change of it was seen.
    pub(super) fn found(&mut self, id: JobId, routine: bool, now: Instant) {
        match self.jobs.remove_entry(&id) {
            None => self.insert(Arc::new(id), routine, now),
            Some((id, mut job)) => {
                if !routine {
                    self.rouse(&id, &mut job);
                }
                self.jobs.insert(id, job);
            }
        }
    }

    /// Queues a job from the journal of a process that is gone, with the refusals noted there.
    pub(super) fn restore(
        &mut self,
        id: JobId,
        refused: &[(u8, u32, Duration, String)],
        now: Instant,
    ) {
        let Some(id) = self.found_again(id, now) else {
            return;
        };
        let longest = self.pace.job.most;
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        for (folder, tries, wait, why) in refused {
            let due = now + (*wait).min(longest);
            let (whom, tries) = (Whom::Job, *tries);
            let failure = Failure {
                whom,
                why: why.clone(),
            };
            job.refused
                .insert(*folder, (Refusal { failure, tries }, due));
            let change = Change::Refused(id.clone(), *folder, tries, due, why.clone());
            self.changes.push(change);
        }
    }

    /// As `found`; returns the job if it was not queued before.
    fn found_again(&mut self, id: JobId, now: Instant) -> Option<Arc<JobId>> {
        if self.jobs.contains_key(&id) {
            return None;
        }
        let id = Arc::new(id);
        self.insert(id.clone(), false, now);
        Some(id)
    }

    fn insert(&mut self, id: Arc<JobId>, routine: bool, due: Instant) {
        if !routine {
            self.changes.push(Change::Queued(id.clone()));
        }
        self.looks.insert(due, &id);
        let job = Job {
            routine,
            then: Then::GoOn,
            size: None,
            step: Step::Look(Turn::due(due)),
            refused: BTreeMap::new(),
        };
        self.jobs.insert(id, job);
    }

    /// Marks a routine job as changed, which also queues it in the journal.
    fn rouse(&mut self, id: &Arc<JobId>, job: &mut Job) {
        if std::mem::take(&mut job.routine) {
            self.changes.push(Change::Queued(id.clone()));
        }
    }

    /// Queues a look at a job that no thread works on.
    fn look_at(&mut self, id: &Arc<JobId>, job: &mut Job, due: Instant) {
        self.leave_lanes(id, job);
        let refusal = match &mut job.step {
            Step::Look(turn) => {
                if let At::Due(before) = turn.at {
                    self.looks.remove(before, id);
                }
                turn.refusal.take()
            }
            Step::Store(_) => None,
        };
        job.then = Then::GoOn;
        job.step = Step::Look(Turn {
            at: At::Due(due),
            refusal,
        });
        self.looks.insert(due, id);
    }

    /// Removes a job from the queues of the folders whose threads do not work on it.
    fn leave_lanes(&mut self, id: &Arc<JobId>, job: &mut Job) {
        let Step::Store(wants) = &mut job.step else {
            return;
        };
        for want in wants {
            if let At::Due(due) = want.turn.at {
                if let Some(lane) = lane(&mut self.lanes, want.stop.folder) {
                    lane.waiting.remove(due, id);
                }
                want.turn.at = At::Later;
            }
        }
    }

    /// Returns at most `most` jobs to look at now, if none are being looked at.
    pub(super) fn take_looks(&mut self, most: usize, now: Instant) -> Vec<Arc<JobId>> {
        let mut taken = Vec::new();
        while self.looking == 0
            && taken.len() < most
            && let Some(id) = self.looks.take(now)
        {
            if let Some(Job {
                step: Step::Look(turn),
                ..
            }) = self.jobs.get_mut(&id)
            {
                turn.at = At::Now;
                taken.push(id);
            }
        }
        self.looking += taken.len();
        taken
    }

    /// Handles the result of a look at a job; `route` are the folders that want it.
    pub(super) fn looked(
        &mut self,
        id: &Arc<JobId>,
        result: Result<Look, Failure>,
        route: &[Stop],
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
                let whom = Whom::Passing;
                now + turn.refuse(Failure { whom, why }, self.pace.look).0
            }
            Err(failure) => {
                let backoff = match failure.whom {
                    Whom::Passing | Whom::Again | Whom::Cancelled => self.pace.look,
                    Whom::Job | Whom::Folder => self.pace.job,
                };
                let whom = match failure.whom {
                    Whom::Folder => Whom::Job,
                    whom => whom,
                };
                now + turn.refuse(Failure { whom, ..failure }, backoff).0
            }
        };
        turn.at = At::Due(due);
        self.looks.insert(due, id);
        self.jobs.insert(id.clone(), job);
    }

    /// Sends a job that is ready to its folders.
    fn send(&mut self, id: &Arc<JobId>, mut job: Job, route: &[Stop], now: Instant) {
        if route.is_empty() {
            return self.finish(id, &job);
        }
        let wants = route.iter().map(|stop| Want {
            stop: *stop,
            turn: Turn {
                at: At::Later,
                refusal: None,
            },
        });
        job.step = Step::Store(wants.collect());
        self.enter_lanes(id, &mut job, now);
        self.jobs.insert(id.clone(), job);
    }

    /// Puts a job into the queues of the folders whose turn it is now.
    fn enter_lanes(&mut self, id: &Arc<JobId>, job: &mut Job, now: Instant) {
        let Step::Store(wants) = &mut job.step else {
            return;
        };
        let backups = wants.iter().any(|want| want.stop.backup);
        for want in wants.iter_mut().filter(|want| want.stop.backup == backups) {
            if want.turn.at != At::Later {
                continue;
            }
            let mut due = now;
            if let Some((refusal, again)) = job.refused.remove(&want.stop.folder) {
                due = due.max(again);
                want.turn.refusal = Some(refusal);
            }
            want.turn.at = At::Due(due);
            if let Some(lane) = lane(&mut self.lanes, want.stop.folder) {
                lane.waiting.insert(due, id);
            }
        }
    }

    fn finish(&mut self, id: &Arc<JobId>, job: &Job) {
        if !job.routine {
            self.changes.push(Change::Done(id.clone()));
        }
    }

    /// Jobs to store in a folder now, if it is free to take any: at most so many.
    pub(super) fn take_batch(&mut self, folder: u8, most: usize, now: Instant) -> Vec<Arc<JobId>> {
        let mut taken = Vec::new();
        let Some(lane) = lane(&mut self.lanes, folder) else {
            return taken;
        };
        // After a failure, the folder is tried with one job first.
        let most = if lane.has_failed() { 1 } else { most };
        while lane.is_free(now)
            && taken.len() < most
            && let Some(id) = lane.waiting.take(now)
        {
            if let Some(want) = self.jobs.get_mut(&id).and_then(|job| job.want(folder)) {
                want.turn.at = At::Now;
                taken.push(id);
            }
        }
        taken
    }

    /// Handles the results of storing one batch of jobs in a folder.
    pub(super) fn stored(&mut self, folder: u8, results: Vec<(Arc<JobId>, Outcome)>, now: Instant) {
        if let Some(lane) = lane(&mut self.lanes, folder) {
            lane.landed(results.iter().map(|(_, result)| result), &self.pace, now);
        }
        for (id, result) in results {
            self.stored_one(folder, &id, result, now);
        }
    }

    fn stored_one(&mut self, folder: u8, id: &Arc<JobId>, result: Outcome, now: Instant) {
        let Some(mut job) = self.jobs.remove(id) else {
            return;
        };
        match result {
            Ok(done) => {
                if let Step::Store(wants) = &mut job.step {
                    wants.retain(|want| want.stop.folder != folder);
                }
                if done == Done::Left && job.then == Then::GoOn {
                    job.then = Then::Leave;
                    self.leave_lanes(id, &mut job);
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
            Then::Leave if !worked_on => return self.finish(id, &job),
            Then::GoOn if empty => return self.finish(id, &job),
            Then::GoOn => self.enter_lanes(id, &mut job, now),
            Then::LookAgain | Then::Leave => {}
        }
        self.jobs.insert(id.clone(), job);
    }

    /// Handles a folder's refusal of a job.
    fn refused(
        &mut self,
        folder: u8,
        id: &Arc<JobId>,
        job: &mut Job,
        failure: Failure,
        now: Instant,
    ) {
        if failure.whom == Whom::Again {
            if let Some(want) = job.want(folder) {
                want.turn.at = At::Later;
            }
            if job.then == Then::GoOn {
                job.then = Then::LookAgain;
                self.leave_lanes(id, job);
            }
            return;
        }
        let (go_on, whom, why) = (job.then == Then::GoOn, failure.whom, failure.why.clone());
        let Some(want) = job.want(folder) else {
            return;
        };
        let (wait, tries) = match whom {
            // The folder waits as a whole.
            Whom::Folder => (Duration::ZERO, 0),
            Whom::Cancelled => (self.pace.busy.first, 0),
            Whom::Passing | Whom::Again => want.turn.refuse(failure, self.pace.busy),
            Whom::Job => want.turn.refuse(failure, self.pace.job),
        };
        let due = now + wait;
        want.turn.at = At::Later;
        if go_on {
            want.turn.at = At::Due(due);
            if let Some(lane) = lane(&mut self.lanes, folder) {
                lane.waiting.insert(due, id);
            }
        }
        if whom == Whom::Job {
            if tries == 1 {
                tracing::warn!("cannot archive {id}, and tries again later: {why}");
            }
            self.rouse(id, job);
            let change = Change::Refused(id.clone(), folder, tries, due, why);
            self.changes.push(change);
        }
    }

    /// Ends all waits but that for a job to settle.
    pub(super) fn retry(&mut self, now: Instant) {
        for lane in &mut self.lanes {
            lane.forgive();
        }
        for (id, job) in &mut self.jobs {
            job.refused.clear();
            match &mut job.step {
                Step::Look(turn) => turn.hasten(id, &mut self.looks, now),
                Step::Store(wants) => {
                    for want in wants {
                        if let Some(lane) = lane(&mut self.lanes, want.stop.folder) {
                            want.turn.hasten(id, &mut lane.waiting, now);
                        }
                    }
                }
            }
        }
    }

    /// When something is to be done next, if nothing happens before.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let looks = self.looks.first().filter(|_| self.looking == 0);
        let lanes = self
            .lanes
            .iter()
            .filter_map(|lane| lane.next(self.pace.tick, now));
        lanes.chain(looks).min()
    }
}

fn lane(lanes: &mut [Lane], folder: u8) -> Option<&mut Lane> {
    lanes.iter_mut().find(|lane| lane.folder == folder)
}

#[cfg(test)]
mod tests;
