//! Compares the markers of archived jobs with those of their copies, in one folder.
//!
//! A scan counts each job with a copy as archived. So the markers of all jobs are compared at the start, when a caller
//! asks whether all is archived, and periodically; those of a task whenever its directory has changed. A marker that is
//! newer in the primary belongs to a job that was run again; one that is missing from the folder, to an unfinished copy
//! that another process made.
//!
//! A job with a copy that is not finished in the primary is being run again, unless it is purged: its end does not show in its task's
//! directory. So it is remembered, and looked at as often as scans are made, until its copy is of the same run.
//!
//! A job with a copy in a `move` folder that is still a directory in the primary is one whose move was cut short: it is
//! handed over too, except for jobs that were recovered on request.
//!
//! Before all of a folder is compared, the leftovers of dead processes in it are cleaned up, and manifests that a power
//! cut has emptied are rewritten.
//!
//! Each folder has a thread for this, so that a folder that hangs does not keep the others from being compared.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;

use super::candidates::{self, CandidateState};
use super::directory::{self, DirectoryStamp, Watched};
use super::walk::{Stopped, Walk};
use crate::archive::engine::disks::Disks;
use crate::archive::engine::route::Route;
use crate::archive::engine::shared::Event;
use crate::archive::state_dir;
use crate::settings::Mode;
use crate::sys::at;
use crate::sys::name::Name;
use crate::transfer::Time;
use crate::view::location::Role;
use crate::view::{InPrimary, Root};
use crate::workspace::{JobId, markers};

/// The pause after a comparison is this many times as long as the comparison.
const PAUSE_FACTOR: u32 = 100;

/// The longest such pause after a comparison of changed tasks.
const CHANGED_PAUSE_MAX: Duration = Duration::from_secs(60 * 60);

/// The longest such pause after a comparison of all jobs.
const ALL_PAUSE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Compares the markers of all jobs with those of the copies in a folder, repeatedly.
pub(in crate::archive::engine) struct MarkerSurvey {
    pub(in crate::archive::engine) walk: Walk,
    pub(in crate::archive::engine) folder: u8,
    pub(in crate::archive::engine) route: Arc<Route>,
    pub(in crate::archive::engine) disks: Arc<dyn Disks>,
    pub(in crate::archive::engine) events: Sender<Event>,
    /// Wakes the thread when a caller asks whether all is archived.
    pub(in crate::archive::engine) wakes: Receiver<()>,
    /// How often changed tasks are compared.
    pub(in crate::archive::engine) interval: Duration,
    /// How often a missing folder is checked.
    pub(in crate::archive::engine) tick: Duration,
    /// How often all jobs are compared, changed or not.
    pub(in crate::archive::engine) all_interval: Duration,
    pub(in crate::archive::engine) compared: ComparedTasks,
}

/// The results of earlier comparisons.
#[derive(Default)]
pub(in crate::archive::engine) struct ComparedTasks {
    /// The folder's directory that was compared with. Not held open: its disk may be unmounted.
    with: Weak<Root>,
    /// The directory of all tasks.
    jobs: Watched,
    tasks: HashMap<OsString, TaskMarkers>,
}

/// The cached state of one task.
#[derive(Default)]
struct TaskMarkers {
    /// The state of its directory when it was compared.
    watched: Watched,
    behind: Vec<Behind>,
}

/// A job whose copy is of an earlier run, or will be when the job has finished.
struct Behind {
    hash: Name,
    /// Whether it was handed over since it finished.
    reported: bool,
}

/// Which jobs are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::archive::engine) enum Extent {
    /// Jobs whose copies are known to be behind.
    Behind,
    /// Those, and the tasks that have changed.
    Changed,
    /// All jobs.
    All,
}

/// When which comparison is due.
struct DueTimes {
    /// When changed tasks are compared next.
    changed: Instant,
    /// When all jobs are compared next.
    all: Instant,
    /// The last requested full comparison that has been done.
    answered: u64,
}

impl MarkerSurvey {
    /// Compares in a loop, until the engine stops.
    pub(in crate::archive::engine) fn run(mut self) {
        let now = Instant::now();
        let mut due = DueTimes {
            changed: now,
            all: now,
            answered: 0,
        };
        while let Ok(there) = self.follow(&mut due) {
            let pause = match there {
                true => self.interval,
                // This accesses no disk.
                false => self.tick,
            };
            if self.walk.pause_unless(&self.wakes, pause).is_err() {
                return;
            }
        }
    }

    /// Compares the jobs that are due; returns whether the folder was there.
    fn follow(&mut self, due: &mut DueTimes) -> Result<bool, Stopped> {
        let began = Instant::now();
        let wanted = self.walk.shared.wanted.load(Ordering::SeqCst);
        let extent = match wanted != due.answered || due.all <= began {
            true => Extent::All,
            false if due.changed <= began => Extent::Changed,
            false => Extent::Behind,
        };
        if !self.compare(extent)? {
            due.changed = began;
            return Ok(false);
        }
        let now = Instant::now();
        let rest = now
            .saturating_duration_since(began)
            .saturating_mul(PAUSE_FACTOR);
        match extent {
            Extent::Behind => {}
            Extent::Changed => due.changed = now + rest.min(CHANGED_PAUSE_MAX),
            Extent::All => {
                due.all = now + rest.clamp(self.all_interval, ALL_PAUSE_MAX.max(self.all_interval));
                due.answered = wanted;
                let folder = self.folder;
                let compared = Event::Compared { folder, wanted };
                self.events.send(compared).map_err(|_| Stopped)?;
            }
        }
        Ok(true)
    }

    /// Hands over the jobs whose copies are of an earlier run, or have no marker. Returns whether the folder was there.
    pub(in crate::archive::engine) fn compare(&mut self, extent: Extent) -> Result<bool, Stopped> {
        let folder = self.walk.view.location(self.folder);
        let Some(root) = folder.and_then(|folder| folder.root().ok()) else {
            return Ok(false);
        };
        // A folder that was missing is opened again, and may have copies of earlier runs: earlier comparisons do not count.
        if !std::ptr::eq(self.compared.with.as_ptr(), Arc::as_ptr(&root)) {
            self.compared = ComparedTasks {
                with: Arc::downgrade(&root),
                ..ComparedTasks::default()
            };
        }
        if extent == Extent::All {
            let looks = &self.walk.shared.looks;
            let again = self.disks.clear_folder(self.folder, looks);
            self.hand_over(again)?;
            self.compared.jobs.invalidate();
            let tasks = self.compared.tasks.values_mut();
            tasks.for_each(|task| task.watched.invalidate());
        }
        let primary = self.walk.view.primary();
        let Ok(jobs) = primary.root().and_then(|root| root.jobs()) else {
            // Earlier results are kept: no other part may report these jobs again.
            return Ok(true);
        };
        let mut tasks = match extent {
            Extent::Behind => std::mem::take(&mut self.compared.tasks),
            Extent::Changed | Extent::All => self.tasks(&jobs),
        };
        for (name, task) in &mut tasks {
            self.look(&jobs, &root, name, &mut task.behind)?;
            if extent == Extent::Behind {
                continue;
            }
            let (now, wall) = (Instant::now(), SystemTime::now());
            if let Ok(stamp) = directory::stamp(&*jobs, name)
                && task.watched.update(stamp, now)
                && self.task(&root, name, &mut task.behind)?
            {
                task.watched.listed(now, wall);
            }
        }
        self.compared.tasks = tasks;
        Ok(true)
    }

    /// The existing tasks, with their cached state.
    fn tasks(&mut self, jobs: &OwnedFd) -> HashMap<OsString, TaskMarkers> {
        let mut compared = std::mem::take(&mut self.compared.tasks);
        let (now, wall) = (Instant::now(), SystemTime::now());
        let stamp = at::stat_fd(jobs).map(|stat| DirectoryStamp::from(&stat));
        if stamp.is_ok_and(|stamp| self.compared.jobs.update(Some(stamp), now))
            && let Ok(tasks) = self.walk.tasks()
        {
            self.compared.jobs.listed(now, wall);
            let known = |name| {
                let task = compared.remove(&name).unwrap_or_default();
                (name, task)
            };
            return tasks.into_iter().map(known).collect();
        }
        compared
    }

    /// Checks whether the jobs of one task that are known to be behind are finished by now, or archived.
    fn look(
        &self,
        jobs: &OwnedFd,
        folder: &Root,
        task: &OsStr,
        behind: &mut Vec<Behind>,
    ) -> Result<(), Stopped> {
        if behind.is_empty() {
            return Ok(());
        }
        let both = at::open_dir(jobs, task).and_then(|ours| Ok((ours, folder.task(task)?)));
        let Ok((originals, copies)) = both else {
            return Ok(());
        };
        let mut again = Vec::new();
        behind.retain_mut(|one| {
            let Ok(job) = JobId::new(task, &*one.hash) else {
                return false;
            };
            match candidates::state(&originals, task, &one.hash) {
                // The change of its task is detected, also if it comes back.
                CandidateState::Gone => return false,
                CandidateState::Unfinished => one.reported = false,
                CandidateState::Done if !one.reported => {
                    one.reported = true;
                    again.push(job);
                }
                CandidateState::Done => {
                    let marker_order = marker_order(&originals, &copies, &job);
                    return !matches!(marker_order, Ok(MarkerOrder::Level | MarkerOrder::Alone));
                }
            }
            true
        });
        self.hand_over(again)
    }

    /// Compares one task, and notes the jobs that are behind; returns whether all jobs could be compared.
    fn task(&self, folder: &Root, task: &OsStr, behind: &mut Vec<Behind>) -> Result<bool, Stopped> {
        let copies = match at::absent(folder.task(task)) {
            Ok(Some(copies)) => copies,
            // The scan finds jobs without any copy.
            Ok(None) => return Ok(true),
            Err(_) => return Ok(false),
        };
        let moves = self.walk.view.location(self.folder);
        let moves = moves.is_some_and(|folder| folder.role() == Role::Folder(Mode::Move));
        let mut whole = true;
        let mut found = Vec::new();
        let read = self.walk.each_few(task, &mut |originals, names| {
            let mut again = Vec::new();
            for hash in names {
                let Ok(job) = JobId::new(task, hash) else {
                    continue;
                };
                if !self.route.leads_to(self.folder, &job) {
                    continue;
                }
                let reported = match marker_order(originals, &copies, &job) {
                    Ok(MarkerOrder::Alone) => continue,
                    Ok(MarkerOrder::Level) => {
                        if moves && !self.is_kept(&job) && !self.is_purged(&job) {
                            again.push(job);
                        }
                        continue;
                    }
                    Ok(MarkerOrder::Unfinished) if self.is_purged(&job) => continue,
                    Ok(MarkerOrder::Unfinished) => false,
                    Ok(MarkerOrder::Behind) => true,
                    Err(_) => {
                        whole = false;
                        continue;
                    }
                };
                let hash = Name::from(&**hash);
                found.push(Behind { hash, reported });
                if reported {
                    again.push(job);
                }
            }
            self.hand_over(again)
        })?;
        let whole = read && whole;
        if whole {
            *behind = found;
        } else {
            // Jobs that were not seen this time are kept.
            behind.retain(|one| found.iter().all(|other| other.hash != one.hash));
            behind.append(&mut found);
        }
        Ok(whole)
    }

    /// Whether a job stays in the primary; true if this cannot be read.
    fn is_kept(&self, job: &JobId) -> bool {
        state_dir::is_kept(self.walk.view.primary(), job).unwrap_or(true)
    }

    /// Whether the primary has only what a purge has left of a job.
    fn is_purged(&self, job: &JobId) -> bool {
        let there = self.walk.view.in_primary(job.task_id(), job.hash());
        matches!(there, Ok(InPrimary::Purged))
    }

    fn hand_over(&self, again: Vec<JobId>) -> Result<(), Stopped> {
        if again.is_empty() {
            return Ok(());
        }
        self.walk.wait_for_room()?;
        self.walk.shared.unheard.fetch_add(1, Ordering::SeqCst);
        self.events.send(Event::Again(again)).map_err(|_| Stopped)
    }
}

/// How the copy of a job compares with the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MarkerOrder {
    /// The copy is of the same run.
    Level,
    /// There is no copy, which the scan finds.
    Alone,
    /// There is a copy, and the job is not finished: it is being run again.
    Unfinished,
    /// The copy is of an earlier run, or has no marker.
    Behind,
}

/// Compares the marker of a job, in its task's directory, with that of its copy, in its own.
fn marker_order(
    originals: impl AsFd,
    copies: impl AsFd,
    job: &JobId,
) -> rustix::io::Result<MarkerOrder> {
    let marker = PathBuf::from(job.hash()).join(markers::done(job.name()));
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stamp = |dir: BorrowedFd<'_>| {
        let stat = rustix::fs::statx(dir, &marker, flags, StatxFlags::BASIC_STATS);
        let stat = at::absent(stat)?;
        Ok::<_, Errno>(stat.map(|stat| Time {
            seconds: stat.stx_mtime.tv_sec,
            nanoseconds: stat.stx_mtime.tv_nsec,
        }))
    };
    let otherwise = match stamp(originals.as_fd())? {
        None => MarkerOrder::Unfinished,
        Some(ours) => match stamp(copies.as_fd())? {
            // The folder's disk may keep less of a time.
            Some(theirs) if theirs.order(ours).is_lt() => return Ok(MarkerOrder::Behind),
            Some(_) => return Ok(MarkerOrder::Level),
            None => MarkerOrder::Behind,
        },
    };
    let copy = at::absent(at::stat(copies, job.hash()))?;
    Ok(match copy.is_some_and(|stat| at::is_dir(&stat)) {
        true => otherwise,
        false => MarkerOrder::Alone,
    })
}
