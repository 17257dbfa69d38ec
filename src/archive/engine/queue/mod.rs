//! Keeps which jobs wait for a look, and which wait to be stored in which folders.
//!
//! Plain state and no threads; the caller passes the time, so that tests need not wait.
//!
//! - A job is queued from the report that it may be finished until every folder that wants it has a copy, or a look
//!   at it finds nothing to do.
//! - It is looked at first, then copied to all `backup` folders, and after that to the `move` folder.
//! - A job that is touched while it is queued starts again with a look.
//!
//! `job`: a queued job; [`mod@folder_queue`]: the jobs that wait for one folder; `results`: what a look or a copy changes;
//! [`backoff`]: when a failure is tried again

pub(super) mod backoff;
pub(super) mod folder_queue;
mod job;
mod results;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::backoff::Pace;
use self::folder_queue::FolderQueue;
use self::job::Then;
use super::disks::Failure;
use crate::archive::error::Scope;
use crate::workspace::JobId;

pub(super) use self::job::{At, DueJobs, FailedAttempts, QueueChange, QueuedJob, Step, Turn};

/// All queued jobs.
#[derive(Debug)]
pub(super) struct Queue {
    pace: Pace,
    settle: Duration,
    pub(super) jobs: HashMap<Arc<JobId>, QueuedJob>,
    looks: DueJobs,
    /// Jobs that are being looked at.
    looking: usize,
    pub(super) folder_queues: Vec<FolderQueue>,
    changes: Vec<QueueChange>,
}

impl Queue {
    pub(super) fn new(pace: Pace, settle: Duration, folder_queues: Vec<FolderQueue>) -> Queue {
        Queue {
            pace,
            settle,
            jobs: HashMap::new(),
            looks: DueJobs::default(),
            looking: 0,
            folder_queues,
            changes: Vec::new(),
        }
    }

    /// Returns the changes since the last call.
    pub(super) fn changes(&mut self) -> Vec<QueueChange> {
        std::mem::take(&mut self.changes)
    }

    pub(super) fn folder_queue(&mut self, folder: u8) -> Option<&mut FolderQueue> {
        self.folder_queues
            .iter_mut()
            .find(|folder_queue| folder_queue.folder == folder)
    }

    /// A job changed: it is looked at once it has not changed for the settle time.
    pub(super) fn touch(&mut self, id: JobId, now: Instant) {
        let due = now + self.settle;
        let Some((id, mut job)) = self.jobs.remove_entry(&id) else {
            return self.insert(Arc::new(id), false, due);
        };
        self.mark_changed(&id, &mut job);
        if job.is_worked_on() {
            job.then = Then::LookAgain;
            self.remove_from_folder_queues(&id, &mut job);
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
                    self.mark_changed(&id, &mut job);
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
        let Some(id) = self.queue_if_new(id, now) else {
            return;
        };
        let longest = self.pace.job.most;
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        for (folder, tries, wait, why) in refused {
            let due = now + (*wait).min(longest);
            let (scope, tries) = (Scope::Job, *tries);
            let failure = Failure {
                scope,
                why: why.clone(),
            };
            job.refused
                .insert(*folder, (FailedAttempts { failure, tries }, due));
            let change = QueueChange::Refused(id.clone(), *folder, tries, due, why.clone());
            self.changes.push(change);
        }
    }

    /// As `found`; returns the job if it was not queued before.
    fn queue_if_new(&mut self, id: JobId, now: Instant) -> Option<Arc<JobId>> {
        if self.jobs.contains_key(&id) {
            return None;
        }
        let id = Arc::new(id);
        self.insert(id.clone(), false, now);
        Some(id)
    }

    fn insert(&mut self, id: Arc<JobId>, routine: bool, due: Instant) {
        if !routine {
            self.changes.push(QueueChange::Queued(id.clone()));
        }
        self.looks.insert(due, &id);
        let job = QueuedJob {
            routine,
            then: Then::GoOn,
            size: None,
            step: Step::Look(Turn::due(due)),
            refused: BTreeMap::new(),
        };
        self.jobs.insert(id, job);
    }

    /// Marks a routine job as changed, which also queues it in the journal.
    fn mark_changed(&mut self, id: &Arc<JobId>, job: &mut QueuedJob) {
        if std::mem::take(&mut job.routine) {
            self.changes.push(QueueChange::Queued(id.clone()));
        }
    }

    /// Queues a look at a job that no thread works on.
    fn look_at(&mut self, id: &Arc<JobId>, job: &mut QueuedJob, due: Instant) {
        self.remove_from_folder_queues(id, job);
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
    fn remove_from_folder_queues(&mut self, id: &Arc<JobId>, job: &mut QueuedJob) {
        let Step::Store(wants) = &mut job.step else {
            return;
        };
        for want in wants {
            if let At::Due(due) = want.turn.at {
                if let Some(folder_queue) =
                    folder_queue(&mut self.folder_queues, want.destination.folder)
                {
                    folder_queue.waiting.remove(due, id);
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
            if let Some(QueuedJob {
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

    /// Puts a job into the queues of the folders whose turn it is now.
    fn add_to_folder_queues(&mut self, id: &Arc<JobId>, job: &mut QueuedJob, now: Instant) {
        let Step::Store(wants) = &mut job.step else {
            return;
        };
        let backups = wants.iter().any(|want| want.destination.backup);
        for want in wants
            .iter_mut()
            .filter(|want| want.destination.backup == backups)
        {
            if want.turn.at != At::Later {
                continue;
            }
            let mut due = now;
            if let Some((refusal, again)) = job.refused.remove(&want.destination.folder) {
                due = due.max(again);
                want.turn.refusal = Some(refusal);
            }
            want.turn.at = At::Due(due);
            if let Some(folder_queue) =
                folder_queue(&mut self.folder_queues, want.destination.folder)
            {
                folder_queue.waiting.insert(due, id);
            }
        }
    }

    fn finish(&mut self, id: &Arc<JobId>, job: &QueuedJob) {
        if !job.routine {
            self.changes.push(QueueChange::Done(id.clone()));
        }
    }

    /// Jobs to store in a folder now, if it is free to take any: at most so many.
    pub(super) fn take_batch(&mut self, folder: u8, most: usize, now: Instant) -> Vec<Arc<JobId>> {
        let mut taken = Vec::new();
        let Some(folder_queue) = folder_queue(&mut self.folder_queues, folder) else {
            return taken;
        };
        // After a failure, the folder is tried with one job first.
        let most = if folder_queue.has_failed() { 1 } else { most };
        while folder_queue.is_free(now)
            && taken.len() < most
            && let Some(id) = folder_queue.waiting.take(now)
        {
            if let Some(want) = self.jobs.get_mut(&id).and_then(|job| job.want(folder)) {
                want.turn.at = At::Now;
                taken.push(id);
            }
        }
        taken
    }

    /// Ends all waits but that for a job to settle.
    pub(super) fn retry(&mut self, now: Instant) {
        for folder_queue in &mut self.folder_queues {
            folder_queue.forgive();
        }
        for (id, job) in &mut self.jobs {
            job.refused.clear();
            match &mut job.step {
                Step::Look(turn) => turn.end_wait(id, &mut self.looks, now),
                Step::Store(wants) => {
                    for want in wants {
                        if let Some(folder_queue) =
                            folder_queue(&mut self.folder_queues, want.destination.folder)
                        {
                            want.turn.end_wait(id, &mut folder_queue.waiting, now);
                        }
                    }
                }
            }
        }
    }

    /// When the next step is due, if no event comes before.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let looks = self.looks.first().filter(|_| self.looking == 0);
        let folder_queues = self
            .folder_queues
            .iter()
            .filter_map(|folder_queue| folder_queue.next(self.pace.tick, now));
        folder_queues.chain(looks).min()
    }
}

fn folder_queue(folder_queues: &mut [FolderQueue], folder: u8) -> Option<&mut FolderQueue> {
    folder_queues
        .iter_mut()
        .find(|folder_queue| folder_queue.folder == folder)
}

#[cfg(test)]
mod tests;
