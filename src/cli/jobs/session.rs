//! What every command on jobs opens: the workspace, its folders, and the jobs that the arguments name.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use super::named;
use crate::archive::env::{Env, Hooks};
use crate::archive::error::JobError;
use crate::archive::job::trash::finish;
use crate::archive::job::trash::list::list_trash;
use crate::archive::{archived_jobs, manual, places};
use crate::cli::advice::advice;
use crate::cli::errors::Usage;
use crate::cli::open::{More, Opened, open};
use crate::cli::{Global, Listing, Select, candidates};
use crate::daemon::limits::raise_descriptor_limit;
use crate::settings::{DEFAULT_SETTLE, Folder};
use crate::transfer::{Bandwidth, Progress};
use crate::view::Location;
use crate::view::find::FindError;
use crate::workspace::jobs::JobId;

/// Which jobs of which workspace.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct Which {
    /// The jobs: task_id/hash, the start of a hash, a path, a task, or a glob such as 'my.module.*'
    #[arg(value_name = "JOB", add = ArgValueCompleter::new(candidates::jobs))]
    pub(in crate::cli) jobs: Vec<OsString>,
    /// More folders.
    #[command(flatten)]
    pub(in crate::cli) more: More,
    /// Which workspace.
    #[command(flatten)]
    pub(in crate::cli) select: Select,
}

/// The arguments of a command that works on several jobs at a time, and prints what became of each.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct Work {
    /// Jobs, or the files of one, that are worked on at a time [default: two per processor, from 4 to 16]
    #[arg(long, value_name = "N", hide = true)]
    pub(in crate::cli) threads: Option<usize>,
    /// How the outcome is printed.
    #[command(flatten)]
    pub(in crate::cli) listing: Listing,
    /// The jobs.
    #[command(flatten)]
    pub(in crate::cli) which: Which,
}

impl Which {
    /// Returns an error if no job is named; `all` describes the jobs of `--all`, if the command has that option.
    pub(in crate::cli) fn expect_jobs(&self, what: &str, all: Option<&str>) -> anyhow::Result<()> {
        if !self.jobs.is_empty() {
            return Ok(());
        }
        let all = all.map_or_else(String::new, |all| format!(", or --all for {all}"));
        let message = format!(
            "name the jobs to {what}: task_id/hash, the start of a hash, a path, a task, or a glob{all}"
        );
        Err(Usage(message).into())
    }
}

/// An opened workspace, and what its jobs are processed with.
pub(in crate::cli) struct Session {
    pub(in crate::cli) opened: Opened,
    pub(in crate::cli) progress: Arc<Progress>,
    bandwidth: Option<Bandwidth>,
    threads: usize,
    force: bool,
}

/// The jobs that arguments name, each once.
#[derive(Debug, Default)]
pub(in crate::cli) struct Jobs {
    pub(in crate::cli) jobs: Arc<Vec<JobId>>,
    /// Those that are named one by one, and not by a task or a glob.
    single: HashSet<JobId>,
}

impl From<Vec<JobId>> for Jobs {
    /// Jobs that `--all` selects.
    fn from(jobs: Vec<JobId>) -> Jobs {
        Jobs {
            jobs: Arc::new(jobs),
            single: HashSet::new(),
        }
    }
}

impl Jobs {
    /// Whether a job is named by itself: what cannot be done with it is then an error.
    pub(in crate::cli) fn is_single(&self, job: &JobId) -> bool {
        self.single.contains(job)
    }
}

impl Session {
    /// Opens the workspace, with more folders after its own and those of the command line. Finishes deletions that were interrupted, or that a
    /// folder has missed which is back.
    ///
    /// # Errors
    ///
    /// The settings are wrong, or the workspace cannot be opened.
    pub(in crate::cli) fn open(
        which: &Which,
        more: &[Folder],
        global: &Global,
    ) -> anyhow::Result<Session> {
        // Several jobs at a time have some files open each.
        raise_descriptor_limit();
        let folders = [&which.more.folders, more].concat();
        let opened = open(&which.select, &folders, global)?;
        let session = Session {
            progress: Arc::new(Progress::new()),
            bandwidth: opened
                .tuning
                .bandwidth
                .map(|rate| Bandwidth::new(Some(rate))),
            threads: manual::threads(),
            force: false,
            opened,
        };
        finish::all(&session.env());
        Ok(session)
    }

    /// As [`Session::open`], to work on the jobs with so many threads as the arguments say.
    ///
    /// # Errors
    ///
    /// As [`Session::open`].
    pub(in crate::cli) fn open_to_work(
        work: &Work,
        more: &[Folder],
        global: &Global,
    ) -> anyhow::Result<Session> {
        let session = Session::open(&work.which, more, global)?;
        Ok(Session {
            threads: work.threads.unwrap_or(session.threads),
            ..session
        })
    }

    /// Whether what the command would otherwise refuse is done.
    pub(in crate::cli) fn forcing(self, force: bool) -> Session {
        Session { force, ..self }
    }

    /// What the archive's functions need.
    pub(in crate::cli) fn env(&self) -> Env<'_> {
        let hooks: &dyn Hooks = &self.opened.peers;
        Env {
            view: &self.opened.view,
            hooks,
            progress: &self.progress,
            bandwidth: self.bandwidth.as_ref(),
            out: None,
            settle: self.opened.tuning.settle.unwrap_or(DEFAULT_SETTLE),
            threads: self.threads,
            force: self.force,
        }
    }

    /// Finds the jobs that the arguments name.
    ///
    /// # Errors
    ///
    /// An argument names no job, or is the start of several.
    pub(in crate::cli) fn named(&self, which: &Which) -> anyhow::Result<Jobs> {
        self.named_by(which, |text| named::find(&self.opened, text))
    }

    /// As [`Session::named`], also jobs that only folders have which cannot be used now, or that folders have lost, if they are named in full.
    ///
    /// # Errors
    ///
    /// As [`Session::named`].
    pub(in crate::cli) fn named_or_on_record(&self, which: &Which) -> anyhow::Result<Jobs> {
        let env = self.env();
        let is_on_record = |job: &JobId| {
            places::archives(env.view).any(|folder| archived_jobs::is_on_record(&env, folder, job))
        };
        self.named_by(which, |text| {
            named::find(&self.opened, text).or_else(|error| {
                let job = JobId::parse(text).ok().filter(is_on_record);
                job.map(|job| (vec![job], true)).ok_or(error)
            })
        })
    }

    fn named_by(
        &self,
        which: &Which,
        find: impl Fn(&OsStr) -> anyhow::Result<(Vec<JobId>, bool)>,
    ) -> anyhow::Result<Jobs> {
        let (mut named, mut single_ones) = (Vec::new(), HashSet::new());
        let mut seen = HashSet::new();
        for text in &which.jobs {
            let (jobs, single) = find(text).map_err(|error| self.explain_absent(text, error))?;
            for job in jobs {
                if single {
                    single_ones.insert(job.clone());
                }
                if seen.insert(job.clone()) {
                    named.push(job);
                }
            }
        }
        Ok(Jobs {
            single: single_ones,
            ..Jobs::from(named)
        })
    }

    /// Finds the one job that an argument names.
    ///
    /// # Errors
    ///
    /// The argument names no job, or several.
    pub(in crate::cli) fn named_one(&self, text: &OsStr) -> anyhow::Result<JobId> {
        named::find_one(&self.opened, text)
    }

    /// Explains that no location has a job of this name: one was deleted, if so.
    fn explain_absent(&self, text: &OsStr, error: anyhow::Error) -> anyhow::Error {
        if !matches!(error.downcast_ref(), Some(FindError::Absent { .. })) {
            return error;
        }
        let deleted = list_trash(&self.env())
            .jobs
            .into_iter()
            .map(|it| it.job)
            .collect();
        match named::find_among(&self.opened, text, &deleted).as_deref() {
            Ok([job]) => anyhow::anyhow!(
                "{error}; {job} was deleted: `xpmfs jobs undelete {job}` brings it back"
            ),
            _ => error,
        }
    }

    /// The numbers of the `backup` and `move` folders.
    pub(in crate::cli) fn archives(&self) -> Vec<u8> {
        places::archives(&self.opened.view)
            .map(Location::index)
            .collect()
    }

    /// A folder's mode and path, as in `backup:/slow/backup/nlp`.
    pub(in crate::cli) fn label(&self, folder: u8) -> String {
        let location = self.opened.view.location(folder);
        location.map_or_else(String::new, |location| {
            String::from_utf8_lossy(&location.label()).into_owned()
        })
    }
}

/// Why a job failed, and what can be done about it.
pub(in crate::cli) fn why(error: &JobError) -> String {
    match advice(error) {
        Some(advice) => format!("{}: {advice}", error.cause),
        None => error.cause.to_string(),
    }
}
