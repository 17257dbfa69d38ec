//! Releases the jobs that are named, or those that a rule selects, least recently used first.

use std::collections::BinaryHeap;
use std::ffi::OsStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::job::release::{self, Processes, Refusal, ReleasePlan, Released, Releases};
use super::job::usage;
use super::{pins, places};
use crate::archive::env::Env;
use crate::archive::error::{JobError, Result};
use crate::settings::Release;
use crate::sys::at;
use crate::transfer::Time;
use crate::view::View;
use crate::view::jobs::names;
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

/// How many of the least recently used jobs are found by one search: this bounds memory.
const FOUND_MAX: usize = 4096;

/// How often renamed jobs are looked at while another job is verified.
const SETTLE_POLL: Duration = Duration::from_millis(20);

/// What happened to one job.
#[derive(Debug)]
pub enum ReleaseEvent {
    /// It would be released; its copy was not verified.
    Would(Released),
    /// It was released.
    Released(Released),
    /// It is not released.
    Refused(Refusal),
    /// It could not be looked at, or an error prevented its release.
    Failed(JobError),
    /// It was skipped ([`ReleaseSearch::skips`]).
    Skipped,
}

/// Called with each job's event.
pub type ReleaseCallback<'a> = dyn FnMut(&JobId, ReleaseEvent) + 'a;

/// Releases these jobs, least recently used first; without `act`, only reports which would be.
pub fn release_jobs(env: &Env<'_>, jobs: &[JobId], act: bool, report: &mut ReleaseCallback<'_>) {
    let mut pass = Pass::new(env, act, report);
    let used = jobs.iter().map(|job| (last_used(env, job), job));
    let mut jobs: Vec<(Time, &JobId)> = used.collect();
    jobs.sort();
    for (_, job) in jobs {
        if env.progress.is_cancelled() {
            break;
        }
        pass.release(job);
    }
    pass.end();
}

/// How jobs are released by a rule.
#[derive(Clone, Copy)]
pub struct ReleaseSearch<'a> {
    /// The rule.
    pub rule: Release,
    /// Called after each job that is looked at.
    pub pause: &'a dyn Fn(),
    /// Whether a job that the rule selects is skipped.
    pub skips: &'a dyn Fn(&JobId) -> bool,
}

impl ReleaseSearch<'_> {
    /// A search without pauses for all jobs of a rule.
    #[must_use]
    pub fn of(rule: Release) -> Self {
        ReleaseSearch {
            rule,
            pause: &|| (),
            skips: &|_| false,
        }
    }
}

/// Releases jobs by a rule: those that were not used for `older_than`, and others until `keep_free` is free. Returns whether there is
/// enough free space then.
///
/// # Errors
///
/// Fails if the jobs of the primary cannot be listed, or its space cannot be queried.
pub fn release_by_rule(
    env: &Env<'_>,
    search: ReleaseSearch<'_>,
    act: bool,
    report: &mut ReleaseCallback<'_>,
) -> rustix::io::Result<bool> {
    let mut pass = Pass::new(env, act, report);
    let released = pass.release_by_rule(search);
    // After an error, too: renamed jobs are removed or put back.
    pass.end();
    released?;
    pass.is_short(search.rule).map(|short| !short)
}

/// The free space that a rule asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// The bytes that are to be free.
    pub wanted: u64,
    /// The bytes that are free.
    pub free: u64,
}

impl Space {
    /// The bytes that must become free.
    #[must_use]
    pub fn lacking(self) -> u64 {
        self.wanted.saturating_sub(self.free)
    }

    /// The bytes that may be used.
    #[must_use]
    pub fn usable(self) -> u64 {
        self.free.saturating_sub(self.wanted)
    }
}

/// Queries the free space of the primary, if a rule asks for some.
///
/// # Errors
///
/// Fails if the space of the primary's file system cannot be queried.
pub fn space_by_rule(view: &View, rule: Release) -> rustix::io::Result<Option<Space>> {
    let Some(keep_free) = rule.keep_free else {
        return Ok(None);
    };
    let space = rustix::fs::fstatvfs(view.primary().root()?.fd())?;
    let total = space.f_blocks.saturating_mul(space.f_frsize);
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let wanted = keep_free.of(total);
    Ok(Some(Space { wanted, free }))
}

/// One run over several jobs.
struct Pass<'a, 'b> {
    env: &'a Env<'a>,
    act: bool,
    report: &'a mut ReleaseCallback<'b>,
    releases: Releases,
    processes: Processes,
    /// The bytes that the jobs so far would free, if nothing is done.
    would_free: u64,
}

impl<'a, 'b> Pass<'a, 'b> {
    fn new(env: &'a Env<'a>, act: bool, report: &'a mut ReleaseCallback<'b>) -> Pass<'a, 'b> {
        Pass {
            env,
            act,
            report,
            releases: Releases::default(),
            processes: Processes::default(),
            would_free: 0,
        }
    }

    /// Whether less is free than the rule wants, counting what is about to be freed.
    fn is_short(&self, rule: Release) -> rustix::io::Result<bool> {
        let soon = self.would_free.saturating_add(self.releases.pending());
        let space = space_by_rule(self.env.view, rule)?;
        Ok(space.is_some_and(|space| space.lacking() > soon))
    }

    /// Releases what the rule selects, until there is enough space, or no job is left.
    fn release_by_rule(&mut self, search: ReleaseSearch<'_>) -> rustix::io::Result<()> {
        let ReleaseSearch { rule, pause, .. } = search;
        let mut after = None;
        if rule.older_than.is_none() && !self.is_short(rule)? {
            return Ok(());
        }
        loop {
            let found = least_recently_used(self.env, after.as_ref(), pause)?;
            let is_last = found.len() < FOUND_MAX;
            for (used, job) in &found {
                if self.env.progress.is_cancelled() {
                    return Ok(());
                }
                let is_old = rule.older_than.is_some_and(|age| is_older(*used, age));
                if !is_old && !self.is_short(rule)? {
                    // All that follow were used later.
                    return Ok(());
                }
                match (search.skips)(job) {
                    true => (self.report)(job, ReleaseEvent::Skipped),
                    false => self.release(job),
                }
            }
            // The next search takes time.
            self.end();
            after = found.into_iter().next_back();
            if is_last || self.env.progress.is_cancelled() {
                return Ok(());
            }
        }
    }

    fn release(&mut self, job: &JobId) {
        match self.try_release(job) {
            Ok(None) => {}
            Ok(Some(event)) => (self.report)(job, event),
            Err(error) => (self.report)(job, ReleaseEvent::Failed(error)),
        }
        self.settle(false);
    }

    /// Returns the event, unless the job waits for its removal now.
    fn try_release(&mut self, job: &JobId) -> Result<Option<ReleaseEvent>> {
        let plan = match release::assess(self.env, &mut self.processes, job)? {
            Ok(plan) => plan,
            Err(refusal) => return Ok(Some(ReleaseEvent::Refused(refusal))),
        };
        if !self.act {
            self.would_free = self.would_free.saturating_add(plan.usage.freed);
            return Ok(Some(ReleaseEvent::Would(released(&plan))));
        }
        self.env.progress.expect_more(plan.to_read());
        if let Some(refusal) = self.verify(&plan)? {
            return Ok(Some(ReleaseEvent::Refused(refusal)));
        }
        let processes = &mut self.processes;
        let refusal = self.releases.begin(self.env, processes, plan)?;
        Ok(refusal.map(ReleaseEvent::Refused))
    }

    /// Verifies the copy of a job. Meanwhile, renamed jobs are removed or put back when they are due: a program that changes such a
    /// job waits until then, and must not wait for a large copy of another job to be read.
    fn verify(&mut self, plan: &ReleasePlan) -> Result<Option<Refusal>> {
        let env = self.env;
        std::thread::scope(|scope| {
            if self.releases.is_empty() {
                return plan.verify(env);
            }
            let verifying = scope.spawn(|| plan.verify(env));
            while !verifying.is_finished() && !self.releases.is_empty() {
                std::thread::sleep(SETTLE_POLL);
                self.settle(false);
            }
            match verifying.join() {
                Ok(verified) => verified,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn settle(&mut self, wait: bool) {
        let report = &mut *self.report;
        let processes = &mut self.processes;
        self.releases
            .end(self.env, processes, wait, &mut |job, outcome| {
                let event = match outcome {
                    Ok(Ok(released)) => ReleaseEvent::Released(released),
                    Ok(Err(refusal)) => ReleaseEvent::Refused(refusal),
                    Err(error) => ReleaseEvent::Failed(error),
                };
                report(&job, event);
            });
    }

    /// Waits until all renamed jobs are removed or put back.
    fn end(&mut self) {
        self.settle(true);
    }
}

fn released(plan: &ReleasePlan) -> Released {
    Released {
        folder: plan.folder(),
        usage: plan.usage,
    }
}

/// When a job was last used; the beginning of time if that is unknown: its release then reports why.
fn last_used(env: &Env<'_>, job: &JobId) -> Time {
    let directory = places::job(env.view.primary(), job).ok().flatten();
    let used = directory.and_then(|directory| usage::of(job, &directory).ok());
    used.map(|usage| usage.last_used).unwrap_or_default()
}

fn is_older(used: Time, age: Duration) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let used = u64::try_from(used.seconds).map_or(Duration::ZERO, |seconds| {
        Duration::new(seconds, used.nanoseconds)
    });
    now.checked_sub(used).is_some_and(|since| since >= age)
}

/// The finished, unpinned jobs of the primary that were used least recently, in this order: at most [`FOUND_MAX`], and those that come
/// after `after`.
fn least_recently_used(
    env: &Env<'_>,
    after: Option<&(Time, JobId)>,
    pause: &dyn Fn(),
) -> rustix::io::Result<Vec<(Time, JobId)>> {
    let primary = env.view.primary();
    let root = primary.root()?;
    let mut oldest = BinaryHeap::new();
    let Some(tasks) = at::absent(root.jobs())? else {
        return Ok(Vec::new());
    };
    for task in names(&*tasks)? {
        // A symlink in its place, a file, or a directory that this user may not list.
        let hashes = root.task(&task).and_then(|task| names(&*task));
        for hash in hashes.unwrap_or_default() {
            if env.progress.is_cancelled() {
                return Ok(Vec::new());
            }
            if let Some(found) = candidate(env, &task, &hash)
                && after.is_none_or(|after| found > *after)
            {
                oldest.push(found);
                if oldest.len() > FOUND_MAX {
                    oldest.pop();
                }
            }
            pause();
        }
    }
    Ok(oldest.into_sorted_vec())
}

fn candidate(env: &Env<'_>, task: &OsStr, hash: &OsStr) -> Option<(Time, JobId)> {
    let job = JobId::new(task, hash).ok()?;
    let directory = places::job(env.view.primary(), &job).ok()??;
    let is_done = markers::is_done(&directory, job.name()).unwrap_or(false);
    if !is_done || pins::is_pinned(env.view.primary(), &job).unwrap_or(true) {
        return None;
    }
    let usage = usage::of(&job, &directory).ok()?;
    Some((usage.last_used, job))
}
