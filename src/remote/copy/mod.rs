//! Copies a run and its jobs from one workspace to another.
//!
//! What experimaestro 2.7.0 does (`copy_experiment.py`), in this order, so that a run never names a job that is still to come:
//!
//! 1. The jobs of the run are those of its `jobs.jsonl`. Those that the destination has, in its own directory or in a folder, are skipped.
//! 2. The run is copied to `.xpm-staging/<id>/` at the destination, without its `jobs/`; the symlinks in that are made anew.
//! 3. Each other job is copied there too, from the location that serves it at the source; then the paths in it are rewritten, it is made
//!    durable, and gets its place by a rename. A job that fails does not stop the others: its error is in the result.
//! 4. The run gets its place by a rename, and `current` names it if it named nothing.
//!
//! A copy that is interrupted leaves complete jobs, and is continued by the next one, which skips these.
//!
//! - `ends`: what a copy asks of the two workspaces; `local`: those of this machine; `remote`: those of another one
//! - `upload`, `download`: copies to and from another machine
//!
//! Without `jobs.jsonl`, the jobs are those that the run has symlinks to.

mod download;
mod ends;
mod local;
mod remote;
mod upload;

use std::ffi::{OsStr, OsString};

use parking_lot::Mutex;

pub use self::ends::Found;
use self::ends::{Destination, Source, SourceRun, Transfer};
use super::error::CopyError;
use super::site::Site;
use crate::archive::env::Env;
use crate::archive::experiments::RunName;
use crate::archive::parallel::in_parallel;
use crate::sys::at::is_component;
use crate::sys::printable::printable;
use crate::transfer::{Progress, Size};
use crate::workspace::jobs::JobId;

/// How many jobs are copied at the same time over a network. Each has one session at a time; `sshd` allows ten (`MaxSessions`).
const CONNECTIONS_MAX: usize = 4;

/// One of the two workspaces.
#[derive(Clone, Copy)]
pub enum Endpoint<'a> {
    /// A workspace of this machine.
    Local(Env<'a>),
    /// A workspace of another machine.
    Remote(&'a Site),
}

/// The options of a copy.
#[derive(Clone, Copy)]
pub struct CopyOptions<'a> {
    /// Only find out what would be copied.
    pub dry_run: bool,
    /// Counts files and bytes, and carries the request to cancel.
    pub progress: &'a Progress,
    /// How many jobs are copied at the same time.
    pub threads: usize,
}

/// What was copied, or would be.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CopyResult {
    /// Jobs that were copied; without an actual copy, those that would be.
    pub jobs_copied: usize,
    /// Jobs that the destination had.
    pub jobs_skipped: usize,
    /// What could not be copied, and why, one text each.
    pub errors: Vec<String>,
    /// Whether the run itself was copied, or would be; if not, the destination had it, or it failed.
    pub run_copied: bool,
    /// The amount that was copied, or would be.
    pub size: Size,
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyOutcome {
    /// The destination had it.
    Present,
    /// It would be copied.
    Planned(Found),
    /// It was copied.
    Copied(Found),
    /// It could not be copied.
    Failed(String),
    /// The copy was cancelled before.
    Cancelled,
}

/// What happens during a copy.
#[derive(Debug)]
pub enum CopyEvent<'a> {
    /// It is known what will be copied: how many jobs, and how much with the run.
    Planned {
        /// The run, unless the destination has it.
        run: Option<&'a Found>,
        /// Jobs to copy.
        jobs: usize,
        /// The amount.
        size: Size,
    },
    /// What became of a job.
    Job(&'a JobId, &'a CopyOutcome),
}

/// Copies the run `run` of `experiment`, and its jobs, from one workspace to another; reports each step, from several threads.
///
/// ```no_run
/// # use xpmfs::archive::env::Env;
/// # use xpmfs::remote::{CopyOptions, Endpoint, copy_experiment};
/// # fn example(source: Env<'_>, destination: Env<'_>) -> Result<(), Box<dyn std::error::Error>> {
/// let progress = xpmfs::transfer::Progress::new();
/// let options = CopyOptions { dry_run: false, progress: &progress, threads: 4 };
/// let (from, to) = (Endpoint::Local(source), Endpoint::Local(destination));
/// let result = copy_experiment(&from, &to, "my_experiment".as_ref(), "20260121_105710".as_ref(), &options, &|_| {})?;
/// println!("copied {} jobs, skipped {}", result.jobs_copied, result.jobs_skipped);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Nothing could be copied. What concerns one job, or one line of `jobs.jsonl`, is in [`CopyResult::errors`] instead.
pub fn copy_experiment(
    source: &Endpoint<'_>,
    destination: &Endpoint<'_>,
    experiment: &OsStr,
    run: &OsStr,
    options: &CopyOptions<'_>,
    report: &(dyn Fn(CopyEvent<'_>) + Sync),
) -> Result<CopyResult, CopyError> {
    let run = RunName {
        experiment: checked("an experiment", experiment)?,
        run: checked("a run", run)?,
    };
    let few = CopyOptions {
        threads: options.threads.min(CONNECTIONS_MAX),
        ..*options
    };
    match (source, destination) {
        (Endpoint::Local(from), Endpoint::Local(to)) => {
            let (from, to) = (with(from, options), with(to, options));
            local::expect_two(&from, &to)?;
            let begin = || Ok(boxed(local::begin(from, to)?));
            let (from, to) = (local::LocalSource(from), local::LocalDestination(to));
            copy((&from, &to), &begin, &run, options, report)
        }
        (Endpoint::Local(from), Endpoint::Remote(to)) => {
            let from = with(from, options);
            to.connect()?;
            let begin = || Ok(boxed(upload::Upload::begin(from, to)?));
            let (from, to) = (local::LocalSource(from), remote::RemoteDestination(to));
            copy((&from, &to), &begin, &run, &few, report)
        }
        (Endpoint::Remote(from), Endpoint::Local(to)) => {
            let (from, to) = (remote::RemoteSource::new(from), with(to, options));
            from.site.connect()?;
            let begin = || Ok(boxed(download::Download::begin(&from, to)?));
            copy(
                (&from, &local::LocalDestination(to)),
                &begin,
                &run,
                &few,
                report,
            )
        }
        (Endpoint::Remote(from), Endpoint::Remote(to)) => Err(CopyError::BothRemote {
            from: from.id().to_owned(),
            to: to.id().to_owned(),
        }),
    }
}

fn boxed<'a>(transfer: impl Transfer + 'a) -> Box<dyn Transfer + 'a> {
    Box::new(transfer)
}

fn with<'a>(env: &Env<'a>, options: &CopyOptions<'a>) -> Env<'a> {
    Env {
        progress: options.progress,
        ..*env
    }
}

/// Names one directory: `..` and slashes would lead out of the workspace, and names with a dot at the start are not of runs.
fn checked(what: &'static str, name: &OsStr) -> Result<OsString, CopyError> {
    let starts_with_dot = name.as_encoded_bytes().starts_with(b".");
    match is_component(name) && !starts_with_dot && name != OsStr::new("current") {
        true => Ok(name.to_owned()),
        false => Err(CopyError::Name {
            what,
            name: name.to_string_lossy().into_owned(),
        }),
    }
}

type Begin<'a> = dyn Fn() -> Result<Box<dyn Transfer + 'a>, CopyError> + 'a;

fn copy(
    (source, destination): (&dyn Source, &dyn Destination),
    begin: &Begin<'_>,
    run: &RunName,
    options: &CopyOptions<'_>,
    report: &(dyn Fn(CopyEvent<'_>) + Sync),
) -> Result<CopyResult, CopyError> {
    let SourceRun {
        found,
        jobs,
        unread,
    } = source.run(run)?;
    let run_found = (!destination.has_run(run)?).then_some(found);
    let mut result = CopyResult {
        errors: unread,
        ..CopyResult::default()
    };
    let planned = plan(source, destination, &jobs);
    let sizes = planned.iter().filter_map(|(_, found)| found.as_ref().ok());
    let sizes = sizes.flatten().chain(&run_found).map(|found| found.size);
    let size: Size = sizes.sum();
    let due = planned
        .iter()
        .filter(|(_, found)| matches!(found, Ok(Some(_))));
    let jobs = due.count();
    options.progress.expect(size);
    report(CopyEvent::Planned {
        run: run_found.as_ref(),
        jobs,
        size,
    });
    let tally = Mutex::new(&mut result);
    let finish = |job: &JobId, outcome: CopyOutcome| {
        report(CopyEvent::Job(job, &outcome));
        tally.lock().add(job, outcome);
    };
    let mut due = Vec::with_capacity(jobs);
    for (job, found) in planned {
        match found {
            Ok(None) => finish(&job, CopyOutcome::Present),
            Ok(Some(found)) if options.dry_run => finish(&job, CopyOutcome::Planned(found)),
            Ok(Some(found)) => due.push((job, found)),
            Err(why) => finish(&job, CopyOutcome::Failed(why)),
        }
    }
    if options.dry_run || (due.is_empty() && run_found.is_none()) {
        if let Some(found) = run_found {
            result.add_run(&found);
        }
        return Ok(result);
    }
    let transfer = begin()?;
    // The run comes first and gets its place last: if there is no room for it, there is none for its jobs.
    let staged = run_found.as_ref().map(|_| transfer.stage_run(run));
    if let Some(Err(why)) = &staged {
        result.errors.push(of_run(run, why));
        return Ok(result);
    }
    let tally = Mutex::new(&mut result);
    in_parallel(options.threads, &due, |(job, found)| {
        let outcome = match options.progress.is_cancelled() {
            true => CopyOutcome::Cancelled,
            false => match transfer.job(job) {
                Ok(true) => CopyOutcome::Copied(found.clone()),
                Ok(false) => CopyOutcome::Present,
                Err(_) if options.progress.is_cancelled() => CopyOutcome::Cancelled,
                Err(why) => CopyOutcome::Failed(why),
            },
        };
        report(CopyEvent::Job(job, &outcome));
        tally.lock().add(job, outcome);
    });
    if options.progress.is_cancelled() {
        return Ok(result);
    }
    if let Some(found) = &run_found {
        let placed = transfer.place_run(run);
        match placed.and_then(|placed| transfer.set_current(run).map(|()| placed)) {
            Ok(true) => result.add_run(found),
            Ok(false) => {}
            Err(why) => result.errors.push(of_run(run, &why)),
        }
    }
    Ok(result)
}

fn of_run(run: &RunName, why: &str) -> String {
    format!("{}: {}", printable(&run.to_string()), printable(why))
}

type Planned = (JobId, Result<Option<Found>, String>);

/// Of each job where it is copied from; `None` if the destination has it.
fn plan(source: &dyn Source, destination: &dyn Destination, jobs: &[JobId]) -> Vec<Planned> {
    let has = destination.has(jobs);
    let answers = jobs.iter().zip(&has);
    let missing = answers.filter(|(_, has)| **has == Ok(false));
    let missing: Vec<JobId> = missing.map(|(job, _)| job.clone()).collect();
    let mut found = source.find(&missing).into_iter();
    let planned = jobs.iter().zip(has).map(|(job, has)| {
        let found = match has {
            Ok(true) => Ok(None),
            Ok(false) => match found.next() {
                Some(found) => found.map(Some),
                None => Err("it was not looked up".to_owned()),
            },
            Err(why) => Err(why),
        };
        (job.clone(), found)
    });
    planned.collect()
}

impl CopyResult {
    fn add(&mut self, job: &JobId, outcome: CopyOutcome) {
        match outcome {
            CopyOutcome::Present => self.jobs_skipped += 1,
            CopyOutcome::Planned(found) | CopyOutcome::Copied(found) => {
                self.jobs_copied += 1;
                self.size = [self.size, found.size].into_iter().sum();
            }
            CopyOutcome::Failed(why) => self.errors.push(format!("{job}: {why}")),
            CopyOutcome::Cancelled => {}
        }
    }

    fn add_run(&mut self, found: &Found) {
        self.run_copied = true;
        self.size = [self.size, found.size].into_iter().sum();
    }
}
