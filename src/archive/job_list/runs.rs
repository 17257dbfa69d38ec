//! Which runs submitted the jobs of a workspace, with which tags.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;

use crate::archive::experiments::{shown, top};
use crate::archive::parallel::in_parallel;
use crate::settings::Mode;
use crate::view::location::{Role, why_not};
use crate::view::{Location, View};
use crate::workspace::events::StateChange;
use crate::workspace::experiments::{self, Experiment};
use crate::workspace::jobs::JobId;
use crate::workspace::runs::{Layout, Run, RunId};
use crate::workspace::tags::Tags;

/// The most threads that read runs.
const THREADS_MAX: usize = 8;

/// How long a folder may take to list its runs, and to return the jobs of one: so many times as long as to answer about one job.
const FOLDER_REPLY_SHARE: u32 = 5;

/// A job in a run.
#[derive(Debug)]
pub(super) struct Submission {
    /// The index of the run.
    run: usize,
    pub(super) submitted: Option<Timestamp>,
    pub(super) tags: Tags,
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
    location: Arc<Location>,
    /// The states of its jobs, read when the first is wanted.
    states: OnceLock<HashMap<String, StateChange>>,
}

impl Runs {
    /// All runs of the primary, and those that only `backup` folders have.
    pub(super) fn all(view: &View) -> Runs {
        let mut runs = Runs::default();
        let mut seen = HashSet::new();
        for location in locations(view) {
            let asked = location.clone();
            // A folder that is away is reported with its jobs.
            let Ok(listed) = ask(location, move || listed(&asked)) else {
                continue;
            };
            runs.unread.extend(listed.unread);
            for of_one in listed.experiments {
                let id = of_one.id.clone();
                runs.add_runs(location, of_one, |run| {
                    seen.insert((id.clone(), run.clone()))
                });
            }
        }
        runs.read_jobs();
        runs
    }

    /// The current run of an experiment, if there is such an experiment: in the primary, or else in the first `backup` folder that has
    /// the experiment.
    pub(super) fn of_experiment(view: &View, id: &OsStr) -> Option<Runs> {
        let mut runs = Runs::default();
        for location in locations(view) {
            let (asked, id) = (location.clone(), id.to_owned());
            let found = ask(location, move || {
                let top = top(&asked).ok()?;
                let experiment = experiments::find(&top, &id).ok()??;
                let mut unread = Vec::new();
                Some((runs_of(&asked, &experiment, &mut unread), unread))
            });
            let Ok(Some((of_one, unread))) = found else {
                continue;
            };
            runs.unread.extend(unread);
            runs.add_runs(location, of_one, |_| true);
            runs.runs.retain(|run| run.is_current);
            runs.read_jobs();
            return Some(runs);
        }
        None
    }

    fn add_runs(
        &mut self,
        location: &Arc<Location>,
        listed: ExperimentRuns,
        mut is_new: impl FnMut(&RunId) -> bool,
    ) {
        for run in listed.runs {
            if is_new(&run.id) {
                self.runs.push(FoundRun {
                    experiment: listed.id.clone(),
                    is_current: listed.current.as_ref() == Some(&run.id),
                    run,
                    location: location.clone(),
                    states: OnceLock::new(),
                });
            }
        }
    }

    fn read_jobs(&mut self) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(THREADS_MAX).min(self.runs.len());
        let read = in_parallel(threads, &self.runs, |found| {
            let (run, asked) = (found.run.clone(), found.location.clone());
            let read = ask(&found.location, move || read(&run, &asked));
            read.unwrap_or_else(|errno| {
                let path = found.location.path().join("experiments");
                let path = path.join(&found.experiment);
                let why = why_not(errno);
                (
                    Vec::new(),
                    vec![format!("cannot read {}: {why}", path.display())],
                )
            })
        });
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
        let states = found.states.get_or_init(|| {
            let run = found.run.clone();
            let states = ask(&found.location, move || run.job_states());
            states
                .ok()
                .and_then(|states| states.ok())
                .unwrap_or_default()
        });
        states.get(job.hash().to_str()?).cloned()
    }
}

/// The locations that may have runs.
fn locations(view: &View) -> impl Iterator<Item = &Arc<Location>> {
    let locations = view.locations().iter();
    locations
        .filter(|location| matches!(location.role(), Role::Primary | Role::Folder(Mode::Backup)))
}

/// Asks a location something: a folder that does not answer must not keep the whole list waiting.
fn ask<T: Send + 'static>(
    location: &Arc<Location>,
    question: impl FnOnce() -> T + Send + 'static,
) -> rustix::io::Result<T> {
    match location.reply_timeout() {
        None => Ok(question()),
        Some(timeout) => location.answer(timeout * FOLDER_REPLY_SHARE, question),
    }
}

/// The runs of an experiment in a location.
struct ExperimentRuns {
    id: OsString,
    current: Option<RunId>,
    runs: Vec<Run>,
}

/// The runs of a location.
#[derive(Default)]
struct ListedRuns {
    experiments: Vec<ExperimentRuns>,
    unread: Vec<String>,
}

fn listed(location: &Location) -> ListedRuns {
    let mut all = ListedRuns::default();
    let Ok(top) = top(location) else {
        return all;
    };
    let found = experiments::list(&top);
    let errors = found.errors.iter();
    all.unread
        .extend(errors.map(|error| shown(location, error)));
    for experiment in &found.found {
        let runs = runs_of(location, experiment, &mut all.unread);
        all.experiments.push(runs);
    }
    all
}

fn runs_of(
    location: &Location,
    experiment: &Experiment,
    unread: &mut Vec<String>,
) -> ExperimentRuns {
    let listed = experiment.runs();
    unread.extend(listed.errors.iter().map(|error| shown(location, error)));
    // Without the symlink, the last.
    let current = experiment.current().ok().flatten();
    let current = current.or_else(|| listed.found.last().map(|run| run.id.clone()));
    ExperimentRuns {
        id: experiment.id.clone(),
        current,
        runs: listed.found,
    }
}

/// A job of a run: when it was submitted, and its tags.
type Line = (JobId, Option<Timestamp>, Tags);

/// Reads the jobs of a run, and what of them cannot be read.
fn read(run: &Run, location: &Location) -> (Vec<Line>, Vec<String>) {
    let mut unread = Vec::new();
    let mut report = |error| unread.push(shown(location, &error));
    let mut lines: Vec<Line> = Vec::new();
    let has_lines = run.layout == Layout::V2;
    match run.jobs().map(|jobs| jobs.filter(|_| has_lines)) {
        Ok(Some(jobs)) => {
            for line in jobs {
                match line {
                    Ok(job) => lines.push((job.id, job.submitted, job.tags)),
                    Err(error) => report(error),
                }
            }
        }
        Ok(None) => {
            let links = run.job_links();
            links.errors.into_iter().for_each(&mut report);
            let jobs = links.found.into_iter();
            lines.extend(jobs.map(|id| (id, None, Tags::default())));
        }
        Err(error) => report(error),
    }
    (lines, unread)
}
