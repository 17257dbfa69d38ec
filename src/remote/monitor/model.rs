//! Jobs, runs and services of a workspace on another machine, questions about them, and changes.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::workspace::job_files::JobState;
use crate::workspace::jobs::JobId;

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteJob {
    /// Its id.
    pub id: JobId,
    /// Its state: that of its process, or before it has one, that of the scheduler.
    pub state: JobState,
    /// Why it failed.
    pub reason: Option<String>,
    /// When it started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How far it is, as in `40 % epochs`.
    pub progress: Option<String>,
    /// How often it was started again.
    pub retries: u64,
}

/// A run of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteRun {
    /// The id of the experiment.
    pub experiment: String,
    /// The id of the run.
    pub run: String,
    /// Its state, as the server names it.
    pub status: String,
    /// Where it runs, or ran.
    pub hostname: Option<String>,
    /// When it started.
    pub started: Option<Timestamp>,
    /// How many jobs it has.
    pub jobs: usize,
    /// How many of them are done, and how many failed.
    pub done: usize,
    /// How many of them failed.
    pub failed: usize,
    /// How many runs the experiment has, in a list of experiments.
    pub runs: u64,
    /// Its jobs by their hashes, with their tags as `name=value`, one a line.
    pub tags: HashMap<String, Box<str>>,
}

/// A service of an experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteService {
    /// Its id.
    pub id: String,
    /// What it is.
    pub description: String,
    /// Where it can be reached, on that machine, or could be when the run ended.
    pub url: Option<String>,
    /// The experiment.
    pub experiment: String,
    /// The run.
    pub run: String,
}

/// The process of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteProcess {
    /// Its number there.
    pub pid: i64,
    /// What runs it, as in `local` or `slurm`.
    pub kind: String,
    /// Whether it runs.
    pub running: bool,
    /// Percent of a processor.
    pub cpu: Option<f64>,
    /// Its memory in MiB.
    pub memory: Option<f64>,
    /// Its threads.
    pub threads: Option<i64>,
}

/// A question to the server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RemoteQuestion {
    /// The experiments, each with its newest run.
    Experiments,
    /// All runs of an experiment.
    Runs(String),
    /// The jobs of the newest run of each experiment.
    Jobs,
    /// The jobs of a run of an experiment.
    RunJobs(String, String),
    /// The services.
    Services,
    /// The jobs that no run refers to.
    Orphans,
    /// Jobs that run, and that only older runs of their experiments have.
    Strays,
    /// The process of a job.
    Process(JobId),
    /// Whether a job can be deleted.
    CanDelete(JobId),
    /// Delete a job.
    Delete(JobId),
    /// Kill a job.
    Kill(JobId),
}

impl RemoteQuestion {
    /// Whether it changes something there.
    #[must_use]
    pub fn is_action(&self) -> bool {
        matches!(self, RemoteQuestion::Delete(_) | RemoteQuestion::Kill(_))
    }

    /// In words, as the object of "read".
    #[must_use]
    pub fn subject(&self) -> &'static str {
        match self {
            RemoteQuestion::Experiments => "the experiments",
            RemoteQuestion::Runs(_) => "the runs",
            RemoteQuestion::Jobs | RemoteQuestion::RunJobs(..) => "the jobs",
            RemoteQuestion::Services => "the services",
            RemoteQuestion::Orphans => "the orphans",
            RemoteQuestion::Strays => "the stray jobs",
            RemoteQuestion::Process(_) => "the process",
            RemoteQuestion::CanDelete(_) => "whether the job can be deleted",
            RemoteQuestion::Delete(_) => "the result of the deletion",
            RemoteQuestion::Kill(_) => "the result of the kill",
        }
    }
}

/// An answer of the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To [`RemoteQuestion::Experiments`] and [`RemoteQuestion::Runs`].
    Runs(Vec<RemoteRun>),
    /// Jobs, without those whose names are not those of jobs.
    Jobs(Vec<RemoteJob>),
    /// Services.
    Services(Vec<RemoteService>),
    /// A process, if the job has one.
    Process(Option<RemoteProcess>),
    /// Whether an action succeeded, or can be done, and what the server says about it.
    Acted(bool, String),
}

/// Something that has happened there.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// The state of a job changed.
    JobState(JobId, JobState, Option<String>),
    /// A job is so far.
    Progress(JobId, String),
    /// Something about jobs.
    Jobs,
    /// Something about experiments and runs.
    Experiments,
    /// Something about services.
    Services,
    /// A warning for the person who runs the experiment.
    Warning(String),
    /// The server ends, and why.
    Shutdown(String),
    /// Something that is not known here.
    Other,
}
