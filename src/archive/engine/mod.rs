//! The background archiver: copies jobs that finish in the primary to the folders.
//!
//! - here: starts and stops it
//! - `coordinator`: the thread that decides; `worker`: the threads that wait for disks; `shared`: the state and the events that connect them
//! - `disks`: what the engine asks of the disks, and its implementation by [`relocate`](super::relocate) and [`job`](super::job)
//! - `queue`: which job waits for what; `route`: which folders want a job
//! - `survey`: finds jobs that were not reported
//! - `moved`: copies to a `backup` folder the jobs that a `move` folder has and it lacks, in a thread for each `backup` folder
//! - `experiments`: archives the runs of experiments and the partials of their jobs, in a thread for each `backup` folder
//! - `journal`: records the queued jobs for the next process
//! - `release`: releases jobs by the rule of the settings
//! - `report`: the state of archiving; `refusals`: the reasons for which jobs wait; `verify_records`: what `verify` recorded; `idle`: whether anything is left to archive
//!
//! Called by `daemon`, `mount` and `cli`; `manual` leaves failed jobs to it.
//!
//! # Invariants
//!
//! - The coordinator waits for no folder: each folder has a thread that stores, one that scans, and one that compares
//!   markers, so that a folder that hangs does not delay the others; a `backup` folder has one more for experiments, and one for moved jobs.
//! - Memory grows with the jobs that are not archived yet, and not with those that are.
//! - Waits go by monotonic time; a clock that jumps delays nothing. No lock is held over a system call that can wait.

mod coordinator;
mod disks;
mod experiments;
mod idle;
mod journal;
mod moved;
mod queue;
mod refusals;
mod release;
mod report;
mod route;
mod shared;
mod survey;
mod verify_records;
mod worker;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;

use self::coordinator::{Coordinator, FolderChannels};
use self::disks::{Disks, RealDisks};
use self::experiments::ExperimentArchiver;
use self::journal::JournalWriter;
use self::moved::MovedJobs;
use self::queue::Queue;
use self::queue::backoff::Pace;
use self::queue::folder_queue::FolderQueue;
use self::route::Route;
use self::shared::{Event, Shared};
use self::survey::markers::{ComparedTasks, MarkerSurvey};
use self::survey::recheck::Recheck;
use self::survey::scanner::Scanner;
use self::survey::walk::Walk;
use crate::archive::env::Hooks;
use crate::archive::job::opt_out::OptOuts;
use crate::archive::job::ready::Judge;
use crate::archive::relocate::retire::Retired;
use crate::settings::{Patterns, Release};
use crate::sys::priority::lower_priority;
use crate::transfer::Bandwidth;
use crate::view::{PRIMARY, View};
use crate::workspace::JobId;

pub use self::experiments::state::{ExperimentsReport, FailedItem, ItemInProgress, WaitingItem};
pub use self::idle::Idle;
pub use self::refusals::{RefusalReason, Refusals};
pub use self::release::ReleaseReport;
pub use self::report::{
    CopyInProgress, FailedJob, FolderRefusal, FolderReport, NAMES_MAX, Report, Total, WaitingJob,
    damaged, lost_copies,
};
pub use self::verify_records::{DamagedCopy, VerifiedFolder};

/// How long a stop waits for the end of all threads. A thread that waits for a disk that hangs ends when the disk replies.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a stop waits in all if old directories of moved jobs must be removed first.
const TIDY_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest interval between scans.
const INTERVAL_MIN: Duration = Duration::from_millis(50);

/// Which jobs are archived, and how.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Config {
    /// How long a job must be unchanged before it is archived.
    pub settle: Duration,
    /// The time between two scans for jobs that were not reported.
    pub scan_interval: Duration,
    /// Jobs that are not archived.
    pub exclude: Option<Patterns>,
    /// Jobs that are not archived in a folder, by its number.
    pub folder_exclude: HashMap<u8, Patterns>,
    /// Bytes a second that all copies may read together.
    pub bandwidth: Option<u64>,
    /// How many jobs are copied to a folder at the same time.
    pub threads: usize,
    /// When the primary's copies of archived jobs are removed.
    pub release: Release,
}

/// The running archiver of one view. It stops when this is dropped.
pub struct Archiver {
    view: Arc<View>,
    shared: Arc<Shared>,
    disks: Arc<dyn Disks>,
    events: Sender<Event>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    running: Vec<JoinHandle<()>>,
    /// Carries no message: all threads stop when it is dropped.
    end: Option<Sender<()>>,
    /// Carries no message: it disconnects when all threads have ended.
    alive: Option<Receiver<()>>,
}

impl Archiver {
    /// Starts to archive the jobs of a view's primary: existing jobs, reported jobs, and jobs that scans find later.
    /// Starts a few threads, and three to five per `backup` or `move` folder; they call `hooks`.
    ///
    /// # Errors
    ///
    /// Fails if a thread cannot be started. All other failures are retried, and listed in the report.
    pub fn start(
        view: Arc<View>,
        config: Config,
        hooks: Arc<dyn Hooks>,
    ) -> io::Result<Arc<Archiver>> {
        let out = OptOuts::new(config.exclude, config.folder_exclude);
        let judge = Arc::new(Judge::new(out));
        let route = Route::new(&view, judge.clone());
        let timing = Timing {
            settle: config.settle,
            interval: config.scan_interval,
            pace: Pace::default(),
        };
        let disks = RealDisks {
            view: view.clone(),
            hooks,
            judge,
            bandwidth: Bandwidth::new(config.bandwidth),
            retired: Retired::default(),
            settle: config.settle,
            threads: config.threads.max(1),
            release: config.release,
            archived: AtomicU64::new(0),
        };
        Archiver::begin(view, route, timing, Arc::new(disks))
    }

    fn begin(
        view: Arc<View>,
        route: Route,
        timing: Timing,
        disks: Arc<dyn Disks>,
    ) -> io::Result<Arc<Archiver>> {
        let now = Instant::now();
        let folder_queues = route
            .destinations()
            .iter()
            .map(|stop| FolderQueue::new(stop.folder));
        let queue = Queue::new(timing.pace, timing.settle, folder_queues.collect());
        let (events, heard) = unbounded();
        let archiver = Archiver {
            view,
            shared: Arc::new(Shared::new(queue, now)),
            disks,
            events,
            threads: Mutex::default(),
        };
        // Without a folder to archive to, there is nothing to do; the journals of other processes stay for daemons that
        // may have one.
        if !route.destinations().is_empty() {
            archiver.spawn(heard, Arc::new(route), timing)?;
        }
        Ok(Arc::new(archiver))
    }

    fn spawn(&self, heard: Receiver<Event>, route: Arc<Route>, timing: Timing) -> io::Result<()> {
        let disks = &self.disks;
        let (end, ended) = bounded(0);
        let (living, alive) = bounded(0);
        let mut threads = self.threads.lock();
        (threads.end, threads.alive) = (Some(end), Some(alive));
        let mut spawn = |name: &str, work: Box<dyn FnOnce() + Send>| -> io::Result<()> {
            let living = living.clone();
            let thread = std::thread::Builder::new().name(format!("xpmfs-{name}"));
            threads.running.push(thread.spawn(move || {
                lower_priority();
                work();
                drop(living);
            })?);
            Ok(())
        };
        let interval = timing.interval.max(INTERVAL_MIN);
        let (looks, to_look) = unbounded();
        let (this, events, shared) = (disks.clone(), self.events.clone(), self.shared.clone());
        spawn(
            "look",
            Box::new(move || worker::look(&*this, &shared, &to_look, &events)),
        )?;
        let (this, shared, release_end) = (disks.clone(), self.shared.clone(), ended.clone());
        spawn(
            "release",
            Box::new(move || this.release(&shared.release, &release_end)),
        )?;
        let walk = Walk {
            view: self.view.clone(),
            shared: self.shared.clone(),
            end: ended,
            breath: timing.pace.breath,
        };
        let mut channels = Vec::new();
        for destination in route.destinations() {
            let folder = destination.folder;
            let (batches, to_store) = unbounded();
            let (this, events, shared) = (disks.clone(), self.events.clone(), self.shared.clone());
            spawn(
                &format!("store-{folder}"),
                Box::new(move || worker::store(&*this, folder, &shared, &to_store, &events)),
            )?;
            let (scans, to_scan) = unbounded();
            let scan =
                |source| Scanner::new(self.view.clone(), source, folder, route.clone(), interval);
            let scanner = scan(PRIMARY);
            let (this, events, shared) = (disks.clone(), self.events.clone(), self.shared.clone());
            spawn(
                &format!("scan-{folder}"),
                Box::new(move || worker::scan(scanner, folder, &*this, &to_scan, &events, &shared)),
            )?;
            let (wakes, woken) = bounded(1);
            let markers = MarkerSurvey {
                walk: walk.clone(),
                folder,
                route: route.clone(),
                disks: self.disks.clone(),
                events: self.events.clone(),
                wakes: woken,
                interval,
                tick: timing.pace.tick,
                all_interval: timing.pace.markers,
                compared: ComparedTasks::default(),
            };
            spawn(
                &format!("markers-{folder}"),
                Box::new(move || markers.run()),
            )?;
            let experiments = match destination.backup {
                true => {
                    let (wakes, woken) = bounded(1);
                    let archiver =
                        ExperimentArchiver::new(walk.clone(), folder, self.disks.clone(), woken);
                    let archiver = archiver.every(interval, timing.pace);
                    spawn(&format!("runs-{folder}"), Box::new(move || archiver.run()))?;
                    Some(wakes)
                }
                // Nothing is moved away from `experiments` and `partials`.
                false => None,
            };
            let moves = route.destinations().iter().filter(|it| !it.backup);
            let sources: Vec<Scanner> = moves.map(|source| scan(source.folder)).collect();
            let moved = match destination.backup && !sources.is_empty() {
                true => {
                    let (wakes, woken) = bounded(1);
                    let disks = self.disks.clone();
                    let moved = MovedJobs::new(walk.clone(), folder, sources, disks, woken);
                    let moved = moved.every(interval, timing.pace);
                    spawn(&format!("moved-{folder}"), Box::new(move || moved.run()))?;
                    Some(wakes)
                }
                false => None,
            };
            channels.push(FolderChannels {
                folder,
                batches,
                scans,
                wakes,
                experiments,
                moved,
            });
        }
        let recheck = Recheck {
            walk,
            route: route.clone(),
            events: self.events.clone(),
            period: timing.pace.recheck,
            last: Instant::now(),
        };
        spawn("recheck", Box::new(move || recheck.run()))?;
        let coordinator = Coordinator {
            shared: self.shared.clone(),
            disks: disks.clone(),
            route,
            interval,
            events: heard,
            looks,
            channels,
            journal: JournalWriter::new(self.view.clone()),
            adoption: Instant::now(),
        };
        spawn("archive", Box::new(move || coordinator.run()))
    }

    /// Reports that a job of the primary may have finished, or changed. The job is looked at once it has not changed
    /// for the settle time. Never waits.
    pub fn touched(&self, job: JobId) {
        self.send(Event::Touched(job));
    }

    /// Retries all waiting jobs at once, and scans for jobs that were not reported.
    pub fn retry_now(&self) {
        self.shared.wanted.fetch_add(1, Ordering::SeqCst);
        self.send(Event::Retry);
    }

    /// Sends an event, which is counted as unheard until the state shows it.
    fn send(&self, event: Event) {
        if self.threads.lock().end.is_none() {
            return;
        }
        self.shared.unheard.fetch_add(1, Ordering::SeqCst);
        if self.events.send(event).is_err() {
            self.shared.unheard.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Returns the state of archiving.
    #[must_use]
    pub fn report(&self) -> Report {
        let now = Instant::now();
        let mut report = report::report(&self.shared, &self.view, now);
        moved::report::add(&mut report, &self.shared, &self.view, now);
        report.refusals.sort();
        report
    }

    /// Whether any job is known to be left. To wait until all possible jobs are archived, call
    /// [`Archiver::retry_now`] once, and then this until it is not busy.
    #[must_use]
    pub fn is_idle(&self) -> Idle {
        if self.threads.lock().end.is_none() {
            return Idle::Yes;
        }
        // Before the queue is read: a job that is put back is queued from then on.
        let tidy = self.disks.is_tidy();
        match idle::idle(&self.shared, &self.view, Instant::now()) {
            Idle::Yes if !tidy => Idle::Busy { left: 0 },
            idle => idle,
        }
    }

    /// Cancels the running copies, and ends all threads. The next start finds the queued jobs. A thread that waits for
    /// a folder that hangs is abandoned after 2 s, or 5 s if old directories of moved jobs must be removed first.
    pub fn stop(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        let Some(alive) = threads.alive else {
            return;
        };
        self.shared.stop();
        drop(threads.end);
        // The send fails if the coordinator has already ended.
        let _ = self.events.send(Event::Stop);
        let begun = Instant::now();
        let waits = alive.recv_timeout(STOP_TIMEOUT);
        // Checked only now: a move that was in progress may have left its old directory since.
        if waits == Err(crossbeam_channel::RecvTimeoutError::Timeout) && !self.disks.is_tidy() {
            let _ = alive.recv_timeout(TIDY_TIMEOUT.saturating_sub(begun.elapsed()));
        }
        for thread in threads.running {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if !thread.is_finished()
                && alive.try_recv() != Err(crossbeam_channel::TryRecvError::Disconnected)
            {
                tracing::warn!(
                    "{name} waits for a disk that does not answer, and is not waited for"
                );
            } else if thread.join().is_err() {
                tracing::error!("{name} panicked: this is a bug in xpmfs");
            }
        }
        self.record_put_back();
    }
}

impl Archiver {
    /// Records jobs that were put back at the very end in a journal: no scan finds them, since the folder has copies.
    fn record_put_back(&self) {
        let mut back = Vec::new();
        self.disks.report_put_back(&mut |job| back.push(job));
        if back.is_empty() {
            return;
        }
        if let Err(error) = journal::queue_for_next_start(&self.view, back) {
            tracing::warn!(
                "changes to jobs that were put back will be archived within a day only: {error}"
            );
        }
    }
}

/// Records jobs that could not be archived for the next archiver of the primary: a scan does not find them if the folder has copies.
///
/// # Errors
///
/// Fails with the error of the primary's file system.
pub fn queue_for_next_start(view: &View, jobs: Vec<JobId>) -> io::Result<()> {
    journal::queue_for_next_start(view, jobs)
}

impl Drop for Archiver {
    fn drop(&mut self) {
        self.stop();
    }
}

/// When things are done.
#[derive(Debug, Clone, Copy)]
struct Timing {
    settle: Duration,
    interval: Duration,
    pace: Pace,
}

#[cfg(test)]
mod tests;
