//! Looking at what is archived again: whether it has changed since.
//!
//! A scan takes what a folder has for archived. So, at the start, and whenever a task's directory has changed, the markers of all of
//! its jobs are compared: one that is newer in the primary is of a job that has been run again, and one that the folder lacks, of a
//! copy that somebody else has made, and not finished.
//!
//! A change inside a job does not show in its task's directory, and no mount is told of what is
//! written beside it: all jobs are looked at once a day, slowly. When this was done last is the time of `<primary>/.xpmfs/archive/rechecked`; whoever does it holds a
//! `flock` on that file, so that of several machines only one does.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, StatxFlags, Timespec, Timestamps, UTIME_NOW, flock,
};
use rustix::io::Errno;

use super::backoff::Pace;
use super::events::Event;
use super::journal;
use super::route::Route;
use super::scan;
use super::scan::directory::{self, Entry, Stamp, Watched};
use super::shared::Shared;
use crate::archive::places;
use crate::view::{View, beneath};
use crate::workspace::{JobId, markers};

const NAME: &str = "rechecked";

/// How many jobs are looked at before a pause.
const FEW: usize = 20;

/// No more are handed over while so many are on their way.
const MANY: usize = 200;

/// How often it is seen whether it is due: clocks jump, and others do it, too.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// Looks at everything again, now and then.
pub(super) struct Recheck {
    pub(super) view: Arc<View>,
    pub(super) route: Arc<Route>,
    pub(super) shared: Arc<Shared>,
    pub(super) events: Sender<Event>,
    /// Says nothing, and ends when all does.
    pub(super) end: Receiver<()>,
    pub(super) pace: Pace,
    /// When it was done last, for a primary that cannot be written to.
    pub(super) last: Instant,
    /// How often tasks are looked at.
    pub(super) interval: Duration,
    /// The directory of all tasks.
    pub(super) jobs: Watched,
    /// The tasks whose markers were compared, and how they were then.
    pub(super) compared: HashMap<OsString, Watched>,
}

/// Markers are compared for no more than one part of the time in so many.
const SHARE: u32 = 100;

/// That all is to end.
struct Ended;

/// What is done with a few jobs of a task, whose directory is open.
type Call<'a> = dyn FnMut(&OwnedFd, &[OsString]) -> Result<(), Ended> + 'a;

impl Recheck {
    /// Does it whenever it is due, until all ends.
    pub(super) fn run(mut self) {
        let first = self.compare_markers();
        // It was counted at the start: until here, nobody knew whether all was archived.
        let done = self.events.send(Event::Again(Vec::new()));
        let (Ok(mut took), Ok(())) = (first, done) else {
            return;
        };
        let period = LOOK.min(self.pace.recheck);
        let mut looked = Instant::now();
        loop {
            let pause = self.interval.max(took.saturating_mul(SHARE));
            if self.pause(pause.min(period)).is_err() {
                return;
            }
            match self.compare_markers() {
                Ok(time) => took = time,
                Err(Ended) => return,
            }
            if looked.elapsed() < period {
                continue;
            }
            looked = Instant::now();
            let file = match self.file() {
                Ok(file) => Some(file),
                Err(error) => {
                    tracing::debug!("cannot note when archived jobs were last looked at: {error}");
                    None
                }
            };
            if self.is_due(file.as_ref()) && self.everything().is_err() {
                return;
            }
        }
    }

    /// The file by which it is known when this was done last; made now if there is none.
    fn file(&self) -> io::Result<File> {
        let directory = journal::directory(&self.view)?;
        let rights = rustix::fs::fstat(&directory)?.st_mode & 0o666;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if let Ok(fd) = rustix::fs::openat(&directory, NAME, flags, Mode::empty()) {
            return Ok(File::from(fd));
        }
        let made = rustix::fs::openat(
            &directory,
            NAME,
            flags | OFlags::CREATE,
            Mode::from_raw_mode(0o600),
        )?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(rights))?;
        Ok(File::from(made))
    }

    /// Whether it is to be done now. The file is locked then.
    fn is_due(&self, file: Option<&File>) -> bool {
        let Some(file) = file else {
            return self.last.elapsed() >= self.pace.recheck;
        };
        if flock(file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return false;
        }
        let last = file.metadata().and_then(|metadata| metadata.modified());
        last.is_ok_and(|last| is_past(last, SystemTime::now(), self.pace.recheck))
    }

    /// Hands over every finished job that the primary has. Begins at any task, so that not always the same are left out
    /// where nobody lives to the end of it.
    fn everything(&mut self) -> Result<(), Ended> {
        let mut tasks = self.tasks().unwrap_or_default();
        let nanos = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let any = nanos.subsec_nanos() as usize;
        if let Some(start) = any.checked_rem(tasks.len()) {
            tasks.rotate_left(start);
        }
        for task in tasks {
            self.task(&task)?;
        }
        self.last = Instant::now();
        if let Ok(file) = self.file() {
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_NOW,
            };
            let times = Timestamps {
                last_access: now,
                last_modification: now,
            };
            // Then it is done again sooner.
            let _ = rustix::fs::futimens(&file, &times);
        }
        Ok(())
    }

    /// Hands over the jobs of tasks that have changed whose copies are of an earlier run, or have no marker. Gives how long it took.
    fn compare_markers(&mut self) -> Result<Duration, Ended> {
        let began = Instant::now();
        let Ok(jobs) = self.view.primary().root().and_then(|root| root.jobs()) else {
            return Ok(began.elapsed());
        };
        let mut compared = std::mem::take(&mut self.compared);
        // With a folder that is not there, nothing was compared: it may come back with copies of earlier runs.
        let stops = self.route.stops().iter();
        let mut folders = stops.filter_map(|stop| self.view.location(stop.folder));
        let all_there = folders.all(|folder| folder.root().is_ok());
        let (now, wall) = (Instant::now(), SystemTime::now());
        let stamp = beneath::stat_fd(&*jobs).map(|stat| Stamp::from(&stat));
        if stamp.is_ok_and(|stamp| self.jobs.see(Some(stamp), now))
            && let Ok(tasks) = self.tasks()
        {
            let known = |task| (compared.remove(&task).unwrap_or_default(), task);
            let tasks = tasks.into_iter().map(known);
            compared = tasks.map(|(watched, task)| (task, watched)).collect();
            self.jobs.listed(now, wall);
        }
        for (task, watched) in &mut compared {
            let (now, wall) = (Instant::now(), SystemTime::now());
            if let Ok(stamp) = directory::stamp(&*jobs, task)
                && watched.see(stamp, now)
            {
                self.each_few(task, &mut |fd, names| {
                    let again = names
                        .iter()
                        .filter_map(|hash| JobId::new(task, hash).ok())
                        .filter(|job| self.is_behind(fd, job));
                    let again: Vec<JobId> = again.collect();
                    if again.is_empty() {
                        return match self.shared.is_stopping() {
                            true => Err(Ended),
                            false => Ok(()),
                        };
                    }
                    self.wait_for_room()?;
                    self.shared.unheard.fetch_add(1, Ordering::SeqCst);
                    self.events.send(Event::Again(again)).map_err(|_| Ended)
                })?;
                if all_there {
                    watched.listed(now, wall);
                }
            }
        }
        self.compared = compared;
        Ok(began.elapsed())
    }

    /// Whether a folder that wants a job has a copy of it that is of an earlier run, or has no marker.
    fn is_behind(&self, task: &OwnedFd, job: &JobId) -> bool {
        let marker = PathBuf::from(job.hash()).join(markers::done(job.name()));
        let stamp = |dir: &OwnedFd| {
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
            let stat = rustix::fs::statx(dir, &marker, flags, StatxFlags::BASIC_STATS)?;
            Ok((stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec))
        };
        let Ok(ours) = stamp(task) else {
            return false;
        };
        self.route.of(job).iter().any(|stop| {
            let folder = self.view.location(stop.folder);
            let theirs = folder.and_then(|folder| places::task(folder, job).ok().flatten());
            let Some(theirs) = theirs else {
                return false;
            };
            match stamp(&theirs) {
                Ok(theirs) => theirs < ours,
                // What is not there at all, the scan finds.
                Err(Errno::NOENT) => {
                    beneath::stat(&*theirs, job.hash()).is_ok_and(|stat| beneath::is_dir(&stat))
                }
                Err(_) => false,
            }
        })
    }

    fn tasks(&self) -> rustix::io::Result<Vec<OsString>> {
        let jobs = self.view.primary().root()?.jobs()?;
        let mut tasks = Vec::new();
        directory::read(directory::open(&*jobs, OsStr::new("."))?, |entry| {
            if let Entry::Directory(name) = entry {
                tasks.push(name.to_owned());
            }
        })?;
        Ok(tasks)
    }

    fn task(&self, task: &OsStr) -> Result<(), Ended> {
        self.each_few(task, &mut |fd, few| self.hand_over(fd, task, few))
    }

    /// Calls with a few jobs of a task at a time, and with its directory.
    fn each_few(&self, task: &OsStr, call: &mut Call<'_>) -> Result<(), Ended> {
        let jobs = self.view.primary().root().and_then(|root| root.jobs());
        let Ok(fd) = jobs.and_then(|jobs| directory::open(&*jobs, task)) else {
            return Ok(());
        };
        // In pieces: a task may have a million jobs.
        loop {
            let mut names = Vec::new();
            let more = directory::read_on(&fd, |entry| {
                if let Entry::Directory(name) = entry {
                    names.push(name.to_owned());
                }
            });
            for few in names.chunks(FEW) {
                call(&fd, few)?;
            }
            if !more.unwrap_or(false) {
                return Ok(());
            }
        }
    }

    fn hand_over(&self, fd: impl AsFd, task: &OsStr, names: &[OsString]) -> Result<(), Ended> {
        self.wait_for_room()?;
        let finished = names.iter().filter_map(|hash| {
            let job = JobId::new(task, hash).ok()?;
            let wanted = !self.route.of(&job).is_empty();
            (wanted && scan::is_done(&fd, task, hash)).then_some(job)
        });
        let jobs = finished.collect();
        self.events.send(Event::Routine(jobs)).map_err(|_| Ended)?;
        self.pause(self.pace.breath)
    }

    fn wait_for_room(&self) -> Result<(), Ended> {
        while self.shared.state.lock().queue.jobs.len() > MANY {
            self.pause(self.pace.breath)?;
        }
        Ok(())
    }

    fn pause(&self, time: Duration) -> Result<(), Ended> {
        match self.end.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => Err(Ended),
        }
    }
}

/// Whether so much time has passed; or the clocks say what cannot be, as when one has jumped.
fn is_past(last: SystemTime, now: SystemTime, period: Duration) -> bool {
    match now.duration_since(last) {
        Ok(age) => age >= period,
        Err(ahead) => ahead.duration() >= period,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_once_a_period_whatever_clocks_say() {
        let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
        assert!(is_past(now - day, now, day));
        assert!(!is_past(now - day / 2, now, day));
        assert!(!is_past(now + day / 2, now, day));
        assert!(is_past(now + 20 * day, now, day));
    }
}
