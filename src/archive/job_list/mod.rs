//! Lists jobs: their states, their tags, and where they lie.
//!
//! A hundred thousand jobs are listed in a second, so each costs one or two system calls: a finished job has its marker, whose time is when
//! it ended. Only the others have more of their files read.
//!
//! - `state`: the state of a job, as experimaestro's monitor sees it
//! - `outdated`: which copies are of an earlier run
//! - `runs`: which runs submitted the jobs, with which tags

mod outdated;
mod runs;
mod state;

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use self::runs::Runs;
pub(in crate::archive) use self::state::Seen;
use self::state::look;
use crate::archive::experiments::top;
use crate::archive::job::usage::DiskUsage;
use crate::view::inventory::{InventoryJob, LocationSet, Wanted};
use crate::view::{Location, View};
use crate::workspace::events::{PendingEvents, StateChange};
use crate::workspace::filter::{Filter, PatternTooSlow, Subject};
use crate::workspace::job_files::JobState;
use crate::workspace::jobs::JobId;
use crate::workspace::tags::Tags;

/// Which jobs are listed, and how.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only the jobs of the current run of this experiment.
    pub experiment: Option<OsString>,
    /// Only these.
    pub jobs: Option<BTreeSet<JobId>>,
    /// Whether their files are counted.
    pub sizes: bool,
    /// Whether their copies are compared with the primary's, so far as to know whether they are of an earlier run.
    pub outdated: bool,
}

/// The state of a job whose location does not answer.
pub const UNKNOWN: &str = "unknown";

/// A job of a list.
#[derive(Debug)]
pub struct ListedJob {
    /// Its id.
    pub id: JobId,
    /// Where it is.
    pub location: JobLocation,
    /// The locations with a copy.
    pub copies: LocationSet,
    /// Those of these copies that are of an earlier run than the primary's, if they were to be compared.
    pub outdated: LocationSet,
    /// Its state, as experimaestro's monitor shows it; [`UNKNOWN`] if its location does not answer.
    pub state: JobState,
    /// Why it failed (`TIMEOUT`, `MEMORY` …), if that is known.
    pub failure_reason: Option<String>,
    /// When it ended; of other jobs, when its directory changed last.
    pub changed: Option<Timestamp>,
    /// Its files, if they were to be counted and could be.
    pub usage: Option<DiskUsage>,
    /// The experiment and the run that submitted it: of several, the current run, or the last.
    pub run: Option<(OsString, String)>,
    /// When that run submitted it.
    pub submitted: Option<Timestamp>,
    /// The tags that it gave the job.
    pub tags: Tags,
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobLocation {
    /// The location with this number serves it.
    At(u8),
    /// No location has it; a current run names it.
    Missing,
    /// A folder does not answer, and may have the job.
    Unknown,
}

/// By what a list is sorted. Jobs of the same rank are in the order of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortKey {
    /// When they were submitted, the last first; then the others, that which changed last first.
    #[default]
    Submitted,
    /// When they ended or changed, the last first.
    Changed,
    /// Their names.
    Name,
    /// Their states.
    State,
    /// Their sizes, the largest first.
    Size,
    /// Their locations, in the order of the settings.
    Location,
}

/// A list of jobs.
#[derive(Debug, Default)]
pub struct JobList {
    /// The jobs.
    pub jobs: Vec<ListedJob>,
    /// What could not be read, as sentences.
    pub unread: Vec<String>,
    /// The locations that may have more copies than those listed: they could not be read as a whole.
    pub silent: LocationSet,
}

impl JobList {
    /// Sorts the jobs.
    pub fn sort(&mut self, key: SortKey) {
        // The sort is stable, and the list is in the order of the names before.
        self.jobs.sort_by(|a, b| order(key, a, b));
    }
}

fn order(key: SortKey, a: &ListedJob, b: &ListedJob) -> Ordering {
    match key {
        SortKey::Submitted => {
            let last_first = |job: &ListedJob| Reverse((job.submitted, job.changed));
            last_first(a).cmp(&last_first(b))
        }
        SortKey::Changed => Reverse(a.changed).cmp(&Reverse(b.changed)),
        SortKey::Name => Ordering::Equal,
        SortKey::State => a.state.to_string().cmp(&b.state.to_string()),
        SortKey::Size => {
            let bytes = |job: &ListedJob| Reverse(job.usage.map(|usage| usage.size.bytes));
            bytes(a).cmp(&bytes(b))
        }
        SortKey::Location => a.location.cmp(&b.location),
    }
}

/// There is no such experiment.
#[derive(Debug, thiserror::Error)]
#[error("there is no experiment {}: `xpmfs experiments list` names all", id.display())]
pub struct NoExperiment {
    /// Its id.
    pub id: OsString,
}

/// Lists jobs, in the order of their names. Without an experiment: all that a location has, and those that are missing and that the current
/// run of an experiment names.
///
/// # Errors
///
/// There is no such experiment.
pub fn list(view: &Arc<View>, query: &Query) -> Result<JobList, NoExperiment> {
    let (runs, inventory) = match &query.experiment {
        Some(id) => {
            let runs = Runs::of_experiment(view, id);
            let runs = runs.ok_or_else(|| NoExperiment { id: id.clone() })?;
            let mut wanted: BTreeSet<JobId> = runs.jobs.keys().cloned().collect();
            if let Some(named) = &query.jobs {
                wanted.retain(|job| named.contains(job));
            }
            let inventory = take(view, &Wanted::Jobs(wanted), query.sizes, query.outdated);
            (runs, inventory)
        }
        None => std::thread::scope(|scope| {
            let runs = scope.spawn(|| Runs::all(view));
            let wanted = query.jobs.clone().map_or(Wanted::All, Wanted::Jobs);
            let inventory = take(view, &wanted, query.sizes, query.outdated);
            let runs = runs
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (runs, inventory)
        }),
    };
    let mut list = JobList {
        jobs: Vec::with_capacity(inventory.jobs.len()),
        unread: inventory.unlisted,
        silent: inventory.silent,
    };
    let mut runs = runs;
    list.unread.append(&mut runs.unread);
    for job in inventory.jobs {
        let submitted = runs.jobs.remove(&job.id);
        list.jobs.push(listed(job, submitted, &runs));
    }
    // Those that are left are in no location, unless one that cannot be asked and has no record may have them.
    let is_hidden = view.folders().iter().any(|folder| {
        folder.is_away() && !folder.is_recorded() && view.recorded_tasks(folder).is_empty()
    });
    let missing = std::mem::take(&mut runs.jobs).into_iter();
    let missing = missing.filter(|(job, submission)| {
        let is_named = query.jobs.as_ref().is_none_or(|named| named.contains(job));
        is_named && runs.is_current(submission)
    });
    for (id, submission) in missing {
        let job = InventoryJob {
            id,
            location: None,
            copies: LocationSet::default(),
            seen: None,
        };
        let mut job = listed(job, Some(submission), &runs);
        job.location = match is_hidden {
            true => JobLocation::Unknown,
            false => JobLocation::Missing,
        };
        if !is_hidden && job.state == JobState::Other(UNKNOWN.to_owned()) {
            job.state = JobState::Unscheduled;
        }
        list.jobs.push(job);
    }
    list.jobs.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    Ok(list)
}

/// Looks at jobs, wherever they are.
pub(in crate::archive) fn take(
    view: &Arc<View>,
    wanted: &Wanted,
    sizes: bool,
    outdated: bool,
) -> crate::view::inventory::Inventory<Seen> {
    let events: OnceLock<PendingEvents> = OnceLock::new();
    let primary = view.clone();
    let pending = move || {
        let top = top(primary.primary());
        top.map_or_else(
            |_| PendingEvents::default(),
            |top| PendingEvents::list(&top),
        )
    };
    let all = view.clone();
    view.inventory(wanted, move |job| {
        let mut seen = look(job, sizes, || events.get_or_init(&pending));
        if outdated {
            seen.outdated = self::outdated::outdated(&all, job);
        }
        seen
    })
}

fn listed(job: InventoryJob<Seen>, submission: Option<runs::Submission>, runs: &Runs) -> ListedJob {
    let location = job.location.map_or(JobLocation::Unknown, JobLocation::At);
    let in_run = || {
        let submission = submission.as_ref()?;
        runs.state_of(&job.id, submission)
    };
    let (changed, usage, outdated) = match &job.seen {
        Some(seen) => (seen.changed, seen.usage, seen.outdated),
        None => (None, None, LocationSet::default()),
    };
    let own = job.seen.map(|seen| (seen.is_certain, seen.state));
    let StateChange {
        state,
        failure_reason,
    } = match (own, location) {
        (Some((true, own)), _) => own,
        // A status alone may be that of an earlier run.
        (Some((false, own)), _) => in_run().unwrap_or(own),
        (None, JobLocation::At(_)) => unknown(),
        (None, _) => in_run().unwrap_or_else(unknown),
    };
    let run = submission.as_ref().and_then(|it| runs.name_of(it));
    let (submitted, tags) = submission.map_or_else(Default::default, |it| (it.submitted, it.tags));
    ListedJob {
        id: job.id,
        location,
        copies: job.copies,
        outdated,
        state,
        failure_reason,
        changed,
        usage,
        run,
        submitted,
        tags,
    }
}

fn unknown() -> StateChange {
    StateChange {
        state: JobState::Other(UNKNOWN.to_owned()),
        failure_reason: None,
    }
}

impl JobList {
    /// Keeps the jobs that pass a filter.
    ///
    /// # Errors
    ///
    /// As [`Filter::matches`].
    pub fn filter(&mut self, filter: &Filter) -> Result<(), PatternTooSlow> {
        let mut failed = None;
        self.jobs.retain(|job| {
            let state = job.state.to_string();
            let task = job.id.task_id().to_string_lossy();
            let subject = Subject {
                state: &state,
                task: &task,
                tags: &job.tags,
            };
            match filter.matches(&subject) {
                Ok(passes) => passes,
                Err(error) => {
                    failed.get_or_insert(error);
                    false
                }
            }
        });
        failed.map_or(Ok(()), Err)
    }

    /// Keeps the jobs that one of these locations serves.
    pub fn keep_at(&mut self, locations: &[&Location]) {
        let numbers: Vec<u8> = locations.iter().map(|location| location.index()).collect();
        self.jobs
            .retain(|job| matches!(job.location, JobLocation::At(at) if numbers.contains(&at)));
    }

    /// The number of jobs in each state, by its name.
    #[must_use]
    pub fn count(&self) -> BTreeMap<String, usize> {
        let mut states: HashMap<&JobState, usize> = HashMap::new();
        for job in &self.jobs {
            *states.entry(&job.state).or_default() += 1;
        }
        let states = states.into_iter();
        states
            .map(|(state, count)| (state.to_string(), count))
            .collect()
    }
}
