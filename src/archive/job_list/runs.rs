//! Which runs submitted the jobs of a workspace, with which tags.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;

use jiff::Timestamp;
use serde_json::Value;

use crate::archive::experiments::{shown, top};
use crate::archive::parallel::in_parallel;
use crate::archive::places;
use crate::settings::Mode;
use crate::view::{Location, View};
use crate::workspace::events::StateChange;
use crate::workspace::experiments::{self, Experiment};
use crate::workspace::jobs::JobId;
use crate::workspace::runs::{Layout, Run, RunId};

/// The most threads that read runs.
const THREADS_MAX: usize = 8;

/// A job in a run.
#[derive(Debug)]
pub(super) struct Submission {
    /// The index of the run.
    run: usize,
    pub(super) submitted: Option<Timestamp>,
    pub(super) tags: BTreeMap<String, Value>,
}

/// Runs, and the jobs that they submitted.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Vec<FoundRun>,
    /// Of a job that several runs submitted: in a current run, or in the last.
    pub(super) jobs: HashMap<JobId, Submission>,
    /// What could not be read, as sentences.
    pub(super) unread: Vec<String>,
}

#[derive(Debug)]
struct FoundRun {
    experiment: OsString,
    run: Run,
    is_current: bool,
    /// The number of its location.
    location: u8,
    /// The states of its jobs, read when the first is wanted.
    states: OnceLock<HashMap<String, StateChange>>,
}

impl Runs {
    /// All runs of the primary, and those that only `backup` folders have.
    pub(super) fn all(view: &View) -> Runs {
        let mut runs = Runs::default();
        let mut seen = HashSet::new();
        for location in locations(view) {
            let top = match top(location) {
                Ok(top) => top,
                // A folder that is away is reported with its jobs.
                Err(_) => continue,
            };
            let listed = experiments::list(&top);
            let errors = listed.errors.iter();
            runs.unread
                .extend(errors.map(|error| shown(location, error)));
            for experiment in &listed.found {
                runs.add_runs(location, experiment, |run| {
                    seen.insert((experiment.id.clone(), run.clone()))
                });
            }
        }
        runs.read_jobs(view);
        runs
    }

    /// The current run of an experiment, if there is such an experiment: in the primary, or else in the first `backup` folder that has
    /// the experiment.
    pub(super) fn of_experiment(view: &View, id: &OsStr) -> Option<Runs> {
        let mut runs = Runs::default();
        for location in locations(view) {
            let Ok(Some(experiment)) =
                top(location).map_or(Ok(None), |top| experiments::find(&top, id))
            else {
                continue;
            };
            runs.add_runs(location, &experiment, |_| true);
            runs.runs.retain(|run| run.is_current);
            runs.read_jobs(view);
            return Some(runs);
        }
        None
    }

    fn add_runs(
        &mut self,
        location: &Location,
        experiment: &Experiment,
        mut is_new: impl FnMut(&RunId) -> bool,
    ) {
        let listed = experiment.runs();
        let errors = listed.errors.iter();
        self.unread
            .extend(errors.map(|error| shown(location, error)));
        // Without the symlink, the last.
        let current = experiment.current().ok().flatten();
        let current = current.or_else(|| listed.found.last().map(|run| run.id.clone()));
        for run in listed.found {
            if is_new(&run.id) {
                self.runs.push(FoundRun {
                    experiment: experiment.id.clone(),
                    is_current: current.as_ref() == Some(&run.id),
                    run,
                    location: location.index(),
                    states: OnceLock::new(),
                });
            }
        }
    }

    fn read_jobs(&mut self, view: &View) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(THREADS_MAX).min(self.runs.len());
        let read = in_parallel(threads, &self.runs, |run| read(run, view));
        for (index, (jobs, unread)) in read.into_iter().enumerate() {
            self.unread.extend(unread);
            for (id, submitted, tags) in jobs {
                let new = Submission {
                    run: index,
                    submitted,
                    tags,
                };
                // Of several lines in a run, the last is valid.
                let runs = &self.runs;
                let rank = |it: &Submission| {
                    let is_current = runs.get(it.run).is_some_and(|run| run.is_current);
                    (is_current, it.submitted)
                };
                match self.jobs.get_mut(&id) {
                    Some(known) if known.run != index && rank(known) > rank(&new) => {}
                    Some(known) => *known = new,
                    None => drop(self.jobs.insert(id, new)),
                }
            }
        }
    }

    /// Whether a job is in the current run of an experiment.
    pub(super) fn is_current(&self, submission: &Submission) -> bool {
        let run = self.runs.get(submission.run);
        run.is_some_and(|run| run.is_current)
    }

    /// The experiment and the run.
    pub(super) fn name_of(&self, submission: &Submission) -> Option<(OsString, String)> {
        let found = self.runs.get(submission.run)?;
        Some((found.experiment.clone(), found.run.id.to_string()))
    }

    /// The state of a job in its run.
    pub(super) fn state_of(&self, job: &JobId, submission: &Submission) -> Option<StateChange> {
        let found = self.runs.get(submission.run)?;
        let states = found
            .states
            .get_or_init(|| found.run.job_states().unwrap_or_default());
        states.get(job.hash().to_str()?).cloned()
    }
}

/// The locations that may have runs.
fn locations(view: &View) -> impl Iterator<Item = &Location> {
    let folders = places::folders_of_mode(view, Mode::Backup);
    [view.primary()].into_iter().chain(folders)
}

/// A job of a run: when it was submitted, and its tags.
type Line = (JobId, Option<Timestamp>, BTreeMap<String, Value>);

/// Reads the jobs of a run, and what of them cannot be read.
fn read(found: &FoundRun, view: &View) -> (Vec<Line>, Vec<String>) {
    let mut unread = Vec::new();
    let mut report = |error| {
        if let Some(location) = view.location(found.location) {
            unread.push(shown(location, &error));
        }
    };
    let mut lines: Vec<Line> = Vec::new();
    let has_lines = found.run.layout == Layout::V2;
    match found.run.jobs().map(|jobs| jobs.filter(|_| has_lines)) {
        Ok(Some(jobs)) => {
            for line in jobs {
                match line {
                    Ok(job) => lines.push((job.id, job.submitted, job.tags)),
                    Err(error) => report(error),
                }
            }
        }
        Ok(None) => {
            let links = found.run.job_links();
            links.errors.into_iter().for_each(&mut report);
            let jobs = links.found.into_iter();
            lines.extend(jobs.map(|id| (id, None, BTreeMap::new())));
        }
        Err(error) => report(error),
    }
    (lines, unread)
}
