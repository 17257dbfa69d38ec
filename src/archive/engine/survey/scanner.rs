//! Finds finished jobs that were not reported: those in the primary, or in a `move` folder, that another folder lacks.
//!
//! A scan makes no system call for jobs that are in the folder: it checks each task's directory, on both sides, and
//! lists it only if it changed. Only jobs that the folder lacks are kept in memory. Each folder has a scanner, and each
//! scanner a thread, so that a folder that hangs does not keep the others from being compared.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;

use super::candidates::{self, CandidateState, NameSet, TaskListing};
use super::directory::{self, DirectoryStamp, JobEntry, Watched};
use crate::archive::engine::route::Route;
use crate::archive::{folder_alias, places, state_dir};
use crate::sys::at;
use crate::sys::name::Name;
use crate::view::location::explain;
use crate::view::{PRIMARY, Root, Unlisted, View};
use crate::workspace::JobId;

/// The longest time between two checks of a job that was found finished but was not archived.
const CANDIDATE_RETRY_MAX: Duration = Duration::from_secs(60 * 60);

/// The result of a scan.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::archive::engine) struct ScanResult {
    /// Finished jobs that the folder lacks.
    pub(in crate::archive::engine) jobs: Vec<JobId>,
    /// Whether the scan ended early, since it had found the maximum.
    pub(in crate::archive::engine) more: bool,
    /// How many jobs the folder lacks, finished or not.
    pub(in crate::archive::engine) candidates: usize,
    /// Directories that were listed.
    pub(in crate::archive::engine) listed: u64,
    /// Jobs that were looked at.
    pub(in crate::archive::engine) looked: u64,
    /// Tasks with staged copies in the source, in progress or abandoned.
    pub(in crate::archive::engine) staging: Vec<OsString>,
    /// What could not be read.
    pub(in crate::archive::engine) trouble: Option<String>,
}

/// Compares the primary, or a `move` folder, with one folder, repeatedly.
pub(in crate::archive::engine) struct Scanner {
    view: Arc<View>,
    /// The location whose jobs are looked for in the folder.
    source: u8,
    folder: u8,
    route: Arc<Route>,
    interval: Duration,
    began: Instant,
    jobs: Watched,
    tasks: HashMap<Name, TaskListing>,
    /// The first task whose directory in the source is a symlink.
    linked: Option<Name>,
}

/// One scan.
struct Pass<'a> {
    /// The most jobs that the scan may return.
    room: usize,
    stopping: &'a dyn Fn() -> bool,
    found: ScanResult,
}

impl Pass<'_> {
    fn trouble(&mut self, place: String, error: Errno) {
        let cause = explain(error);
        self.found
            .trouble
            .get_or_insert_with(|| format!("cannot read {place}: {cause}"));
    }

    fn is_over(&self) -> bool {
        self.found.more || (self.stopping)()
    }
}

impl Scanner {
    pub(in crate::archive::engine) fn new(
        view: Arc<View>,
        source: u8,
        folder: u8,
        route: Arc<Route>,
        interval: Duration,
    ) -> Scanner {
        Scanner {
            view,
            source,
            folder,
            route,
            interval,
            began: Instant::now(),
            jobs: Watched::default(),
            tasks: HashMap::new(),
            linked: None,
        }
    }

    /// The number of the location whose jobs are looked for.
    pub(in crate::archive::engine) fn source(&self) -> u8 {
        self.source
    }

    /// The jobs that the folder lacked in the last scan, finished or not, and how long until each is checked again.
    pub(in crate::archive::engine) fn waits(&self) -> impl Iterator<Item = (JobId, Duration)> {
        let now = millis(self.began.elapsed());
        self.tasks.iter().flat_map(move |(name, task)| {
            task.candidates.iter().filter_map(move |candidate| {
                let job = JobId::new(&**name, &*candidate.hash).ok()?;
                let wait = Duration::from_millis(candidate.again.saturating_sub(now));
                Some((job, wait))
            })
        })
    }

    /// Makes the next scan after the interval check these jobs: what prevents them ends by itself.
    pub(in crate::archive::engine) fn look_again_soon(&mut self, jobs: &[JobId]) {
        let again = millis(self.began.elapsed() + self.interval.mul_f32(0.9));
        for job in jobs {
            let task = self.tasks.get_mut(&Name::from(job.task_id()));
            let mut candidates = task.into_iter().flat_map(|task| &mut task.candidates);
            if let Some(candidate) = candidates.find(|it| *it.hash == *job.hash()) {
                (candidate.again, candidate.tries) = (again, 0);
            }
        }
    }

    /// Makes the next scan check all candidates, also those that earlier scans found unfinished.
    pub(in crate::archive::engine) fn forgive(&mut self) {
        let candidates = self
            .tasks
            .values_mut()
            .flat_map(|task| &mut task.candidates);
        for candidate in candidates {
            (candidate.again, candidate.tries) = (0, 0);
        }
    }

    /// Compares once, and returns at most `room` jobs. Waits for both disks.
    pub(in crate::archive::engine) fn scan(
        &mut self,
        room: usize,
        stopping: &dyn Fn() -> bool,
    ) -> ScanResult {
        let mut pass = Pass {
            room,
            stopping,
            found: ScanResult::default(),
        };
        let root = self
            .view
            .location(self.folder)
            .and_then(|folder| folder.root().ok());
        let source = self.view.location(self.source);
        let source = source.and_then(|source| source.root().ok());
        // Without the folder there is nothing to compare with.
        if let (Some(folder), Some(source)) = (root, source) {
            self.compare(&source, &folder, &mut pass);
        }
        let counts = self.tasks.values().map(|task| task.candidates.len());
        pass.found.candidates = counts.sum();
        pass.found
    }

    fn compare(&mut self, source: &Root, folder: &Root, pass: &mut Pass<'_>) {
        let jobs = match source.jobs() {
            Ok(jobs) => jobs,
            Err(Errno::NOENT | Errno::NOTDIR) => return self.tasks.clear(),
            Err(error) => return pass.trouble(self.place(self.source, None), error),
        };
        if let Err(error) = self.list_tasks(&jobs, pass) {
            return pass.trouble(self.place(self.source, None), error);
        }
        let own = self.view.location(self.folder);
        if let Some((folder, why)) =
            own.and_then(|own| Some((own, folder_alias::shared(&self.view, own)?)))
        {
            let trouble = format!("{}: {why}", folder.path().display());
            pass.found.trouble.get_or_insert(trouble);
            return;
        }
        let there = match at::absent(folder.jobs()) {
            Ok(there) => there,
            Err(error) => return pass.trouble(self.place(self.folder, None), error),
        };
        let primary = self.view.primary();
        let missing = own.and_then(|own| match state_dir::is_known(primary, own) {
            // The jobs that were moved there are missing with the disk.
            Ok(true) if there.is_none() => {
                Some(format!("{}: {}", own.path().display(), places::NO_DISK))
            }
            Ok(_) => None,
            Err(error) => Some(state_dir::explain(primary, error)),
        });
        if let Some(trouble) = missing {
            pass.found.trouble.get_or_insert(trouble);
        }
        let mut tasks = std::mem::take(&mut self.tasks);
        tasks.retain(|name, task| pass.is_over() || self.visit(&jobs, &there, name, task, pass));
        self.tasks = tasks;
        if let Some(task) = &self.linked {
            let place = self.place(self.source, Some(task));
            let linked = || Unlisted::linked(place.into()).to_string();
            pass.found.trouble.get_or_insert_with(linked);
        }
    }

    /// Lists the source's tasks, if they have changed.
    fn list_tasks(&mut self, jobs: &OwnedFd, pass: &mut Pass<'_>) -> Result<(), Errno> {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let stamp = DirectoryStamp::from(&at::stat_fd(jobs)?);
        if !self.jobs.update(Some(stamp), now) {
            return Ok(());
        }
        pass.found.listed += 1;
        let mut tasks = HashMap::new();
        let mut linked = None;
        directory::read(
            directory::open(jobs, OsStr::new("."))?,
            |entry| match entry {
                JobEntry::Directory(name) => {
                    let name = Name::from(name);
                    let known = self.tasks.remove(&name).unwrap_or_default();
                    tasks.insert(name, known);
                }
                JobEntry::Symlink(name) => {
                    linked.get_or_insert_with(|| Name::from(name));
                }
                JobEntry::Staging => {}
            },
        )?;
        (self.tasks, self.linked) = (tasks, linked);
        self.jobs.listed(now, wall);
        Ok(())
    }

    /// Visits one task; returns whether it is still there.
    fn visit(
        &self,
        jobs: &OwnedFd,
        folder: &Option<Arc<OwnedFd>>,
        name: &Name,
        task: &mut TaskListing,
        pass: &mut Pass<'_>,
    ) -> bool {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let here = match directory::stamp(jobs, name) {
            Ok(Some(stamp)) => stamp,
            Ok(None) => return false,
            Err(error) => {
                pass.trouble(self.place(self.source, Some(name)), error);
                return true;
            }
        };
        let there = folder.as_ref().map(|jobs| directory::stamp(jobs, name));
        let there = match there.transpose() {
            Ok(stamp) => stamp.flatten(),
            Err(error) => {
                pass.trouble(self.place(self.folder, Some(name)), error);
                return true;
            }
        };
        // Updates both, without a short circuit.
        let changed = [
            task.primary.update(Some(here), now),
            task.folder.update(there, now),
        ];
        if changed.contains(&true) {
            let there = folder.as_deref().filter(|_| there.is_some());
            match self.list(jobs, there, name, task, pass) {
                Ok(staging) => {
                    task.primary.listed(now, wall);
                    task.folder.listed(now, wall);
                    if staging {
                        // The process that uses it may die without a trace in the directory.
                        task.primary.invalidate();
                        pass.found.staging.push((**name).to_owned());
                    }
                }
                Err((location, error)) => {
                    task.primary.invalidate();
                    pass.trouble(self.place(location, Some(name)), error);
                }
            }
        }
        self.look(jobs, name, task, pass);
        true
    }

    /// Lists a task on both sides; returns whether the source has staged copies, in progress or abandoned.
    fn list(
        &self,
        jobs: &OwnedFd,
        folder: Option<&OwnedFd>,
        name: &Name,
        task: &mut TaskListing,
        pass: &mut Pass<'_>,
    ) -> Result<bool, (u8, Errno)> {
        // The folder first: a job that is archived meanwhile is then checked needlessly, but not missed.
        let opened = folder.map(|jobs| directory::open(jobs, name));
        let opened = match opened {
            None | Some(Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => None,
            Some(opened) => Some(opened.map_err(|error| (self.folder, error))?),
        };
        let names = match opened {
            None => NameSet::default(),
            Some(fd) => {
                pass.found.listed += 1;
                NameSet::read(fd).map_err(|error| (self.folder, error))?
            }
        };
        pass.found.listed += 1;
        let fd = directory::open(jobs, name).map_err(|error| (self.source, error))?;
        candidates::compare(fd, &names, &mut task.candidates, |hash| {
            JobId::new(&**name, hash).is_ok_and(|job| self.route.leads_to(self.folder, &job))
        })
        .map_err(|error| (self.source, error))
    }

    /// Checks which candidates are finished.
    fn look(&self, jobs: &OwnedFd, name: &Name, task: &mut TaskListing, pass: &mut Pass<'_>) {
        let now = millis(self.began.elapsed());
        let mut directory = None;
        task.candidates.retain_mut(|candidate| {
            if candidate.again > now || pass.is_over() {
                return true;
            }
            if pass.found.jobs.len() >= pass.room {
                pass.found.more = true;
                return true;
            }
            if directory.is_none() {
                directory = at::open_dir(jobs, name).ok();
            }
            let Some(directory) = &directory else {
                return true;
            };
            pass.found.looked += 1;
            let wait = match candidates::state(directory, name, &candidate.hash) {
                CandidateState::Gone => return false,
                // A scan that continues where the last one ended does not check the job again.
                CandidateState::Unfinished => self.interval / 2,
                CandidateState::Done => {
                    if let Ok(job) = JobId::new(&**name, &*candidate.hash) {
                        pass.found.jobs.push(job);
                    }
                    let doublings = u32::from(candidate.tries).min(16);
                    candidate.tries = candidate.tries.saturating_add(1);
                    let wait = self.interval.saturating_mul(1 << doublings);
                    wait.min(CANDIDATE_RETRY_MAX.max(self.interval))
                        .mul_f32(0.9)
                }
            };
            candidate.again = now.saturating_add(millis(wait));
            true
        });
        task.candidates.shrink_to_fit();
    }

    /// The path of a directory, for messages.
    fn place(&self, location: u8, task: Option<&Name>) -> String {
        let path = self.view.location(location).map(|place| place.path());
        let mut path = path.unwrap_or("".as_ref()).to_owned();
        if !path.ends_with("jobs") || location == PRIMARY {
            path.push("jobs");
        }
        if let Some(task) = task {
            path.push(&**task);
        }
        path.display().to_string()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
