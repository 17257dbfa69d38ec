//! Lists experiments and their runs, wherever they lie: in the primary or in `backup` folders.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;

use super::in_use::InProgress;
use super::{RunName, shown, top};
use crate::archive::places;
use crate::settings::Mode;
use crate::view::location::explain;
use crate::view::{Location, PRIMARY, View};
use crate::workspace::experiments::{self, Experiment};
use crate::workspace::job_files::JobState;
use crate::workspace::runs::{Layout, Run, RunId, RunState, RunStatus};

/// An experiment.
#[derive(Debug)]
pub struct ExperimentCopies {
    /// Its id.
    pub id: OsString,
    /// How it is laid out.
    pub layout: Layout,
    /// The run that `current` names: in the primary, or else in the first folder with one.
    pub current: Option<RunId>,
    /// Its runs, oldest first.
    pub runs: Vec<RunCopies>,
}

/// A run.
#[derive(Debug)]
pub struct RunCopies {
    /// Its id.
    pub id: RunId,
    /// The numbers of the locations with a copy; the primary comes first.
    pub locations: Vec<u8>,
    /// Its state.
    pub state: RunProgress,
    /// When it started and ended, and where, as far as that is known.
    pub status: Option<RunStatus>,
    /// The jobs that it submitted, each once, if that is known.
    pub jobs: Option<usize>,
    /// How many of them succeeded and failed, by the status of the run; `None` without one, as in the old layout.
    pub ended: Option<Ended>,
}

/// How the jobs of a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// Those that succeeded.
    pub done: usize,
    /// Those that failed.
    pub failed: usize,
}

/// The state of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunProgress {
    /// It is in progress.
    Running,
    /// It did not end by itself: its plan was killed.
    Interrupted,
    /// It succeeded.
    Done,
    /// It failed.
    Failed,
    /// Its status is missing or unknown.
    Unknown,
}

impl std::fmt::Display for RunProgress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RunProgress::Running => "running",
            RunProgress::Interrupted => "interrupted",
            RunProgress::Done => "done",
            RunProgress::Failed => "failed",
            RunProgress::Unknown => "unknown",
        })
    }
}

/// Lists the experiments of a workspace, sorted by id; and what could not be read. Of each run the status and the number of jobs is read,
/// from the first location that has it.
#[must_use]
pub fn list(view: &View) -> (Vec<ExperimentCopies>, Vec<String>) {
    let mut found: BTreeMap<OsString, ExperimentCopies> = BTreeMap::new();
    let mut unread = Vec::new();
    for location in locations(view) {
        let listed = match top(location) {
            Ok(top) => experiments::list(&top),
            Err(errno) => {
                let (path, why) = (location.path().display(), explain(errno));
                unread.push(format!("cannot read {path}: {why}"));
                continue;
            }
        };
        unread.extend(listed.errors.iter().map(|error| shown(location, error)));
        for experiment in listed.found {
            let entry = found.entry(experiment.id.clone());
            let copies = entry.or_insert_with(|| ExperimentCopies {
                id: experiment.id.clone(),
                layout: experiment.layout,
                current: None,
                runs: Vec::new(),
            });
            copies.add(location, &experiment, &mut unread);
        }
    }
    (found.into_values().collect(), unread)
}

/// The locations that may have runs; a folder that was never used is empty, or missing.
fn locations(view: &View) -> impl Iterator<Item = &Location> {
    let folders = places::folders_of_mode(view, Mode::Backup);
    [view.primary()].into_iter().chain(folders)
}

impl ExperimentCopies {
    fn add(&mut self, location: &Location, experiment: &Experiment, unread: &mut Vec<String>) {
        if self.current.is_none() {
            self.current = experiment.current().unwrap_or_default();
        }
        let runs = experiment.runs();
        unread.extend(runs.errors.iter().map(|error| shown(location, error)));
        let in_progress = (location.index() == PRIMARY).then(|| InProgress::of(experiment));
        for run in runs.found {
            match self.runs.iter_mut().find(|known| known.id == run.id) {
                Some(known) => known.locations.push(location.index()),
                None => {
                    let is_running = in_progress.as_ref().is_some_and(|it| it.is(&run));
                    self.runs
                        .push(RunCopies::of(&run, location.index(), is_running));
                }
            }
        }
        self.runs.sort_by(|a, b| a.id.cmp(&b.id));
    }

    /// The run that `current` names, or else the newest.
    #[must_use]
    pub fn newest(&self) -> Option<&RunCopies> {
        let current = self.current.as_ref();
        let current = current.and_then(|id| self.runs.iter().find(|run| run.id == *id));
        current.or_else(|| self.runs.last())
    }

    /// The name of one of its runs.
    #[must_use]
    pub fn name(&self, run: &RunCopies) -> RunName {
        RunName {
            experiment: self.id.clone(),
            run: run.id.as_os_str().to_owned(),
        }
    }
}

impl RunCopies {
    fn of(run: &Run, location: u8, is_running: bool) -> RunCopies {
        let status = run.status().ok().flatten();
        let ended = status.as_ref().and_then(|status| status.status.as_ref());
        RunCopies {
            id: run.id.clone(),
            locations: vec![location],
            state: match (is_running, ended) {
                (true, _) => RunProgress::Running,
                (false, Some(RunState::Running)) => RunProgress::Interrupted,
                (false, Some(RunState::Done)) => RunProgress::Done,
                (false, Some(RunState::Failed)) => RunProgress::Failed,
                (false, _) => RunProgress::Unknown,
            },
            jobs: jobs(run),
            ended: status.as_ref().and_then(|_| count_ended(run)),
            status,
        }
    }

    /// Whether the primary has it.
    #[must_use]
    pub fn is_in_primary(&self) -> bool {
        self.locations.contains(&PRIMARY)
    }
}

/// The number of jobs of a run.
fn jobs(run: &Run) -> Option<usize> {
    let listed = match run.jobs() {
        Ok(Some(jobs)) => jobs.flatten().map(|job| job.id).collect(),
        Ok(None) => run.job_links().found,
        Err(_) => return None,
    };
    let distinct: HashSet<_> = listed.into_iter().collect();
    Some(distinct.len())
}

/// How the jobs of a run ended, by its status.
fn count_ended(run: &Run) -> Option<Ended> {
    let states = run.job_states().ok()?;
    let mut ended = Ended::default();
    for change in states.values() {
        match change.state {
            JobState::Done => ended.done += 1,
            JobState::Error => ended.failed += 1,
            _ => {}
        }
    }
    Some(ended)
}

/// How many experiments have runs in folders and none in the primary.
#[must_use]
pub fn lost(view: &View) -> usize {
    let mut in_primary = HashSet::new();
    let mut in_folders = HashSet::new();
    for location in locations(view) {
        let Ok(top) = top(location) else {
            continue;
        };
        let found = experiments::list(&top).found.into_iter();
        let with_runs = found.filter(|experiment| !experiment.runs().found.is_empty());
        match location.index() {
            PRIMARY => in_primary.extend(with_runs.map(|experiment| experiment.id)),
            _ => in_folders.extend(with_runs.map(|experiment| experiment.id)),
        }
    }
    in_folders.difference(&in_primary).count()
}
