//! Reads jobs ahead of a walk, before the walk requests them.
//!
//! A process that walks a tree lists one job after the other, in the order of the task's listing, and waits for the
//! disk at each. Once the mount detects such a walk, a few threads read the directories of the next jobs, so that the
//! disk works on several at a time. The threads do not keep the data: the data is in the page cache when the walk gets
//! there, and every request is processed as usual then.
//!
//! The same threads look ahead into jobs of `use` folders when their task is listed: such a job is shown only if it is
//! finished.
//!
//! `walk`: detects a walk; `names`: the names that follow in a listing; `job`: reads one job

mod job;
mod names;
mod walk;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::io::Result;

use job::{Check, Job};
use names::{Names, Next};
use walk::{Followed, Phase, WINDOW_MAX, Walk, Work};

use crate::sys::name::Name;
use crate::view::View;

/// Threads that read ahead. They wait for the disk and do little else.
const READERS: usize = 4;
/// Limit of jobs that wait to be read.
const WAITING_MAX: usize = 4 * WINDOW_MAX;
/// Limit of walks that are followed at the same time.
const WALKS_MAX: usize = 16;
/// A read that takes no longer than this has not waited for a disk.
const CACHED_READ_MAX: Duration = Duration::from_micros(100);
/// After so many jobs in a row that were already cached, only one in [`PROBE`] is read.
const CACHED_IN_A_ROW_MAX: usize = 64;
const PROBE: usize = 16;
/// How many jobs a thread checks as one unit of work.
const CHECKED_AT_ONCE: usize = 8;

/// The walks that are under way.
#[derive(Debug, Default)]
pub(super) struct Readahead {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    walks: Mutex<VecDeque<Walk>>,
    waiting: Mutex<Waiting>,
    more: Condvar,
    /// How many jobs in a row were already cached.
    cached: AtomicUsize,
}

/// The work that waits for the threads.
#[derive(Debug, Default)]
struct Waiting {
    work: VecDeque<Work>,
    /// Whether the mount has ended.
    over: bool,
}

impl Readahead {
    /// Starts the threads; they end with the mount.
    pub(super) fn start(&self, view: &Arc<View>) -> std::io::Result<()> {
        for _ in 0..READERS {
            let (view, shared) = (view.clone(), self.shared.clone());
            std::thread::Builder::new()
                .name("xpmfs-readahead".to_owned())
                .spawn(move || shared.serve(&view))?;
        }
        Ok(())
    }

    /// Notes that the listing of a task begins.
    pub(super) fn task_listed(&self, task: u64) {
        let mut walks = self.shared.walks.lock();
        match walks.iter_mut().find(|walk| walk.task == task) {
            Some(walk) => walk.phase.task_listed(),
            None => {
                if walks.len() >= WALKS_MAX {
                    walks.pop_front();
                }
                let phase = Phase::Begun;
                walks.push_back(Walk { task, phase });
            }
        }
    }

    /// Removes and returns the walk of a task: closing its directories can block.
    pub(super) fn forget(&self, task: u64) -> impl Sized + use<> {
        let mut walks = self.shared.walks.lock();
        let known = walks.iter().position(|walk| walk.task == task);
        known.and_then(|at| walks.remove(at))
    }

    /// Returns the function to call when a folder has disappeared or was replaced, so that none of its directories
    /// stays open. A walk is followed again when its task is listed anew.
    pub(super) fn folder_closer(&self) -> impl Fn() + Send + Sync + use<> {
        let shared = self.shared.clone();
        move || {
            let walks = std::mem::take(&mut *shared.walks.lock());
            let work = std::mem::take(&mut shared.waiting.lock().work);
            drop((walks, work));
        }
    }

    /// Looks ahead at jobs that are about to be listed and are shown only if they are finished. Waits for no disk.
    pub(super) fn check(&self, source: &Arc<OwnedFd>, task: &Name, jobs: Vec<Name>) {
        let checks = jobs.chunks(CHECKED_AT_ONCE).map(|names| {
            Work::Check(Check {
                source: source.clone(),
                task: task.clone(),
                names: names.to_vec(),
            })
        });
        let each = self.shared.each();
        self.shared.add(checks.step_by(each).collect());
    }

    /// Notes that the listing of a job begins. Waits for no disk.
    pub(super) fn job_listed(&self, task: u64, task_name: &Name, job: &Name) {
        let mut walks = self.shared.walks.lock();
        let Some(walk) = walks.iter_mut().find(|walk| walk.task == task) else {
            return;
        };
        let work = walk.phase.job_listed(job, (task, task_name));
        drop(walks);
        self.shared.add(work.into_iter().collect());
    }
}

impl Drop for Readahead {
    fn drop(&mut self) {
        let mut waiting = self.shared.waiting.lock();
        waiting.over = true;
        waiting.work.clear();
        self.shared.more.notify_all();
    }
}

impl Shared {
    /// Queues work. If the threads cannot keep up, the oldest work is dropped: the walk has reached that job by then.
    fn add(&self, work: Vec<Work>) {
        let count = work.len();
        if count == 0 {
            return;
        }
        let mut waiting = self.waiting.lock();
        waiting.work.extend(work);
        let over = waiting.work.len().saturating_sub(WAITING_MAX);
        let left_out: Vec<Work> = waiting.work.drain(..over).collect();
        drop(waiting);
        drop(left_out);
        match count {
            1 => drop(self.more.notify_one()),
            _ => drop(self.more.notify_all()),
        }
    }

    fn next(&self) -> Option<Work> {
        let mut waiting = self.waiting.lock();
        while !waiting.over {
            if let Some(work) = waiting.work.pop_front() {
                return Some(work);
            }
            self.more.wait(&mut waiting);
        }
        None
    }

    /// Does the queued work, until the mount has ended.
    fn serve(&self, view: &View) {
        while let Some(work) = self.next() {
            match work {
                Work::Find {
                    walk,
                    first,
                    second,
                } => match Names::after(view, &walk.1, &first, &second) {
                    Ok(Some(names)) => self.follow(walk, Followed::new(names)),
                    _ => self.change(walk.0, |phase| *phase = Phase::Unordered),
                },
                Work::Extend { walk, names } => self.extend(walk, names),
                Work::Read(job) => self.read(|| job.read(view)),
                Work::Check(check) => self.read(|| check.read()),
            }
        }
    }

    /// Changes the phase of a walk that is still followed.
    fn change(&self, task: u64, change: impl FnOnce(&mut Phase)) {
        let mut walks = self.walks.lock();
        if let Some(walk) = walks.iter_mut().find(|walk| walk.task == task) {
            change(&mut walk.phase);
        }
    }

    fn follow(&self, walk: (u64, Name), mut followed: Followed) {
        let names = followed.names.take();
        self.change(walk.0, |phase| *phase = Phase::Followed(followed));
        if let Some(names) = names {
            self.extend(walk, names);
        }
    }

    /// Queues the next jobs of a walk for reading.
    fn extend(&self, (id, task): (u64, Name), mut names: Names) {
        let mut wanted = 0;
        self.change(id, |phase| {
            if let Phase::Followed(followed) = phase {
                followed.window = (followed.window * 2).min(WINDOW_MAX);
                wanted = followed.window.saturating_sub(followed.coming.len());
            }
        });
        let next: Vec<Next> = std::iter::from_fn(|| names.next().ok().flatten())
            .take(wanted)
            .collect();
        let more = next.len() == wanted;
        self.change(id, |phase| {
            if let Phase::Followed(followed) = phase {
                let coming = next.iter().map(|(_, name, _)| name.clone());
                followed.coming.extend(coming);
                followed.names = more.then_some(names);
            }
        });
        let jobs = next
            .into_iter()
            .step_by(self.each())
            .map(|(source, name, kind)| {
                Work::Read(Job {
                    source,
                    task: task.clone(),
                    name,
                    kind,
                })
            });
        self.add(jobs.collect());
    }

    /// Returns n, where one of n jobs is to be read.
    fn each(&self) -> usize {
        match self.cached.load(Ordering::Relaxed) >= CACHED_IN_A_ROW_MAX {
            true => PROBE,
            false => 1,
        }
    }

    /// Reads a job, and notes whether it was already cached.
    fn read(&self, read: impl FnOnce() -> Result<()>) {
        let start = Instant::now();
        if let Err(error) = read() {
            tracing::trace!(%error, "cannot read ahead");
        }
        if start.elapsed() < CACHED_READ_MAX {
            self.cached.fetch_add(1, Ordering::Relaxed);
        } else {
            self.cached.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
