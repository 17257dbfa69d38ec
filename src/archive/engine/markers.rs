//! Comparing the markers of archived jobs with those of their copies, in one folder.
//!
//! A scan takes what a folder has for archived. So, at the start, and whenever a task's directory has changed, the markers of all of
//! its jobs are compared: one that is newer in the primary is of a job that has been run again, and one that the folder lacks, of a
//! copy that somebody else has made, and not finished.
//!
//! Each folder has a thread that does it, so that a folder that hangs keeps no other from being compared.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Sender;
use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;

use super::events::Event;
use super::route::Route;
use super::scan::directory::{self, Stamp, Watched};
use super::walk::{Ended, Walk};
use crate::view::{Root, beneath};
use crate::workspace::{JobId, markers};

/// Markers are compared for no more than one part of the time in so many.
const SHARE: u32 = 100;

/// No pause is longer, however long it took.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// Compares the markers of all jobs with those that a folder has, again and again.
pub(super) struct Markers {
    pub(super) walk: Walk,
    pub(super) folder: u8,
    pub(super) route: Arc<Route>,
    pub(super) events: Sender<Event>,
    /// How often tasks are looked at.
    pub(super) interval: Duration,
    /// How often it is seen whether a folder that was away is back.
    pub(super) tick: Duration,
    pub(super) seen: Seen,
}

/// What has been compared.
#[derive(Default)]
pub(super) struct Seen {
    /// With which directory. It is not held open: its disk may be taken away.
    with: Weak<Root>,
    /// The directory of all tasks.
    jobs: Watched,
    /// The tasks, and how they were then.
    tasks: HashMap<OsString, Watched>,
}

impl Markers {
    /// Does it whenever a task has changed, until all ends.
    pub(super) fn run(mut self) {
        loop {
            let began = Instant::now();
            let Ok(there) = self.compare() else {
                return;
            };
            let pause = match there {
                true => {
                    let took = began.elapsed();
                    took.saturating_mul(SHARE)
                        .clamp(self.interval, LONGEST.max(self.interval))
                }
                // This asks no disk.
                false => self.tick,
            };
            let folder = self.folder;
            let told = !there || self.events.send(Event::Compared { folder }).is_ok();
            if !told || self.walk.pause(pause).is_err() {
                return;
            }
        }
    }

    /// Hands over the jobs of tasks that have changed whose copies are of an earlier run, or have no marker. Gives whether the
    /// folder was there to be compared with.
    pub(super) fn compare(&mut self) -> Result<bool, Ended> {
        let folder = self.walk.view.location(self.folder);
        let Some(root) = folder.and_then(|folder| folder.root().ok()) else {
            return Ok(false);
        };
        // One that was away is opened anew, and may have come back with copies of earlier runs: nothing that was compared counts.
        if !std::ptr::eq(self.seen.with.as_ptr(), Arc::as_ptr(&root)) {
            self.seen = Seen {
                with: Arc::downgrade(&root),
                ..Seen::default()
            };
        }
        let primary = self.walk.view.primary();
        let Ok(jobs) = primary.root().and_then(|root| root.jobs()) else {
            // What has been compared is not forgotten: nothing else may tell of it again.
            return Ok(true);
        };
        let mut tasks = self.tasks(&jobs);
        for (task, watched) in &mut tasks {
            let (now, wall) = (Instant::now(), SystemTime::now());
            if let Ok(stamp) = directory::stamp(&*jobs, task)
                && watched.see(stamp, now)
                && self.task(&root, task)?
            {
                watched.listed(now, wall);
            }
        }
        self.seen.tasks = tasks;
        Ok(true)
    }

    /// The tasks that there are now, and how they were when they were compared.
    fn tasks(&mut self, jobs: &OwnedFd) -> HashMap<OsString, Watched> {
        let mut compared = std::mem::take(&mut self.seen.tasks);
        let (now, wall) = (Instant::now(), SystemTime::now());
        let stamp = beneath::stat_fd(jobs).map(|stat| Stamp::from(&stat));
        if stamp.is_ok_and(|stamp| self.seen.jobs.see(Some(stamp), now))
            && let Ok(tasks) = self.walk.tasks()
        {
            self.seen.jobs.listed(now, wall);
            let known = |task| (compared.remove(&task).unwrap_or_default(), task);
            let tasks: Vec<_> = tasks.into_iter().map(known).collect();
            return tasks
                .into_iter()
                .map(|(watched, task)| (task, watched))
                .collect();
        }
        compared
    }

    /// Compares one task; gives whether all of it could be.
    fn task(&self, folder: &Root, task: &OsStr) -> Result<bool, Ended> {
        let copies = match beneath::absent(folder.task(task)) {
            Ok(Some(copies)) => copies,
            // What is not there at all, the scan finds.
            Ok(None) => return Ok(true),
            Err(_) => return Ok(false),
        };
        let mut whole = true;
        let read = self.walk.each_few(task, &mut |originals, names| {
            let wanted = names.iter().filter_map(|hash| JobId::new(task, hash).ok());
            let wanted = wanted.filter(|job| self.route.leads_to(self.folder, job));
            let again = wanted.filter(|job| {
                is_behind(originals, &copies, job).unwrap_or_else(|_| {
                    whole = false;
                    false
                })
            });
            self.hand_over(again.collect())
        })?;
        Ok(read && whole)
    }

    fn hand_over(&self, again: Vec<JobId>) -> Result<(), Ended> {
        if again.is_empty() {
            return Ok(());
        }
        self.walk.wait_for_room()?;
        self.walk.shared.unheard.fetch_add(1, Ordering::SeqCst);
        self.events.send(Event::Again(again)).map_err(|_| Ended)
    }
}

/// Whether a copy, in its task's directory, is of an earlier run than the job in its own, or has no marker.
fn is_behind(originals: impl AsFd, copies: impl AsFd, job: &JobId) -> rustix::io::Result<bool> {
    let marker = PathBuf::from(job.hash()).join(markers::done(job.name()));
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stamp = |dir: BorrowedFd<'_>| {
        let stat = rustix::fs::statx(dir, &marker, flags, StatxFlags::BASIC_STATS);
        let stat = beneath::absent(stat)?;
        Ok::<_, Errno>(stat.map(|stat| (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec)))
    };
    let Some(ours) = stamp(originals.as_fd())? else {
        return Ok(false);
    };
    if let Some(theirs) = stamp(copies.as_fd())? {
        return Ok(theirs < ours);
    }
    // What is not there at all, the scan finds.
    let copy = beneath::absent(beneath::stat(copies, job.hash()))?;
    Ok(copy.is_some_and(|stat| beneath::is_dir(&stat)))
}
