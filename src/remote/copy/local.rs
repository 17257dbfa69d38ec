//! Reads and writes a workspace of this machine.
//!
//! Everything is relative to descriptors: the workspace may be mounted in place.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::ends::{Destination, Found, Source, SourceRun, Transfer, job_path};
use crate::archive::env::Env;
use crate::archive::error::JobError;
use crate::archive::experiments::RunName;
use crate::archive::experiments::export as runs;
use crate::archive::job::export;
use crate::archive::parallel::in_parallel;
use crate::archive::places;
use crate::archive::space::Claim;
use crate::remote::error::CopyError;
use crate::remote::staging::{STAGING, StagingArea};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::transfer::Writeback;
use crate::transfer::durable::sync_directory;
use crate::view::{InPrimary, PRIMARY, Served, View};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{EXPERIMENTS, JOBS};

/// A workspace that is copied from.
pub(super) struct LocalSource<'a>(pub(super) Env<'a>);

/// A workspace that is copied to.
pub(super) struct LocalDestination<'a>(pub(super) Env<'a>);

/// Checks that two workspaces are not one directory.
pub(super) fn expect_two(from: &Env<'_>, to: &Env<'_>) -> Result<(), CopyError> {
    let id = |env: &Env<'_>| {
        let primary = env.view.primary();
        let stat = primary.root().and_then(|root| at::stat_fd(root.fd()));
        let stat = stat.map_err(|errno| CopyError::io("open", primary.path(), errno))?;
        Ok::<FileId, CopyError>(FileId::of(&stat))
    };
    match id(from)? == id(to)? {
        true => Err(CopyError::Same {
            path: from.view.primary_path().to_owned(),
        }),
        false => Ok(()),
    }
}

/// The path of a run in a workspace, for messages.
pub(super) fn absolute_run_path(env: &Env<'_>, run: &RunName) -> PathBuf {
    let top = env.view.primary_path().join(EXPERIMENTS);
    top.join(&run.experiment).join(&run.run)
}

fn label(view: &View, location: u8) -> String {
    match view.location(location).filter(|_| location != PRIMARY) {
        Some(folder) => String::from_utf8_lossy(&folder.label()).into_owned(),
        None => "primary".to_owned(),
    }
}

/// Why a job failed, without its name.
pub(super) fn why(error: &JobError) -> String {
    match error.advice() {
        Some(advice) => format!("{}: {advice}", error.cause),
        None => error.cause.to_string(),
    }
}

impl Source for LocalSource<'_> {
    fn run(&self, run: &RunName) -> Result<SourceRun, CopyError> {
        let env = &self.0;
        let failed = |cause: crate::archive::error::Cause| CopyError::Run(cause.to_string());
        let origin = runs::origin(env, run).map_err(failed)?;
        let origin = origin.ok_or_else(|| CopyError::NoRun {
            path: absolute_run_path(env, run),
        })?;
        let jobs = runs::jobs(env, run, &origin);
        let (jobs, unread) = jobs.map_err(|why| CopyError::NoJobs { why })?;
        Ok(SourceRun {
            found: Found {
                location: label(env.view, origin.location),
                size: runs::size(env, run, &origin).map_err(failed)?,
            },
            jobs,
            unread,
        })
    }

    fn find(&self, jobs: &[JobId]) -> Vec<Result<Found, String>> {
        let env = &self.0;
        in_parallel(env.threads, jobs, |job| {
            let origins = export::origins(env, job).map_err(|error| why(&error))?;
            let origin = origins.first().ok_or("no location has it")?;
            Ok(Found {
                location: label(env.view, origin.location),
                size: export::size(env, job, origin).map_err(|error| why(&error))?,
            })
        })
    }
}

impl Destination for LocalDestination<'_> {
    fn has_run(&self, run: &RunName) -> Result<bool, CopyError> {
        let has = runs::is_in_primary(&self.0, run);
        has.map_err(|cause| CopyError::Run(cause.to_string()))
    }

    fn has(&self, jobs: &[JobId]) -> Vec<Result<bool, String>> {
        let view = self.0.view;
        in_parallel(self.0.threads, jobs, |job| has(view, job))
    }
}

/// Whether a workspace has a job, in its own directory or in a folder.
fn has(view: &View, job: &JobId) -> Result<bool, String> {
    let path = || places::path(view.primary(), job).display().to_string();
    let unknown = |errno: rustix::io::Errno| {
        let error = std::io::Error::from(errno);
        format!(
            "cannot look up {}, here and in the folders: {error}",
            path()
        )
    };
    let (task, hash) = (job.task_id(), job.hash());
    match view.resolve(task, hash).map_err(unknown)? {
        None => Ok(false),
        Some(Served::Job { .. }) => Ok(true),
        Some(Served::AsItIs { stat, .. }) if !at::is_symlink(&stat) => Err(format!(
            "{} is not a directory: move it out of the way",
            path()
        )),
        Some(Served::AsItIs { .. }) => match view.in_primary(task, hash).map_err(unknown)? {
            InPrimary::Link => Err(format!(
                "{} is a symlink to a directory that is missing: see whether its disk is mounted, or remove the symlink",
                path()
            )),
            _ => Ok(true),
        },
    }
}

/// A copy from one local workspace to another.
pub(super) struct LocalTransfer<'a> {
    from: Env<'a>,
    to: Incoming<'a>,
}

/// Begins a copy.
pub(super) fn begin<'a>(from: Env<'a>, to: Env<'a>) -> Result<LocalTransfer<'a>, CopyError> {
    let to = Incoming::open(to)?;
    Ok(LocalTransfer { from, to })
}

impl Transfer for LocalTransfer<'_> {
    fn job(&self, job: &JobId) -> Result<bool, String> {
        let origins = export::origins(&self.from, job).map_err(|error| why(&error))?;
        let workspace = self.to.env.view.primary_path();
        let at = job_path(workspace, job);
        let mut first = None;
        for origin in &origins {
            let size = export::size(&self.from, job, origin).map_err(|error| why(&error))?;
            let _claim = self.to.claim_space(job, size.bytes)?;
            let staged = self.to.stage_job(job)?;
            match export::export(&self.from, job, origin, (&staged, &at), workspace) {
                Ok(_) => return self.to.place_job(job),
                Err(error) if error.is_cancelled() => return Err(why(&error)),
                Err(error) => {
                    first.get_or_insert_with(|| why(&error));
                }
            }
        }
        Err(first.unwrap_or_else(|| "no location has it".to_owned()))
    }

    fn stage_run(&self, run: &RunName) -> Result<(), String> {
        let origin = runs::origin(&self.from, run).map_err(|cause| cause.to_string())?;
        let origin = origin.ok_or_else(|| "the source lost it meanwhile".to_owned())?;
        let (workspace, staged) = (self.to.env.view.primary_path(), self.to.stage_run(run)?);
        let at = absolute_run_path(&self.to.env, run);
        let copied = runs::export(&self.from, run, &origin, (&staged, &at), workspace);
        copied.map(drop).map_err(|cause| cause.to_string())
    }

    fn place_run(&self, run: &RunName) -> Result<bool, String> {
        self.to.place_run(run)
    }

    fn set_current(&self, run: &RunName) -> Result<(), String> {
        self.to.set_current(run)
    }
}

/// A local workspace into which jobs are copied.
pub(super) struct Incoming<'a> {
    pub(super) env: Env<'a>,
    /// In the workspace.
    staging: StagingArea,
    /// StagingContext the jobs, if they are on another file system than the workspace.
    beside_jobs: Option<StagingArea>,
}

impl<'a> Incoming<'a> {
    pub(super) fn open(env: Env<'a>) -> Result<Incoming<'a>, CopyError> {
        let primary = env.view.primary();
        let failed =
            |errno| CopyError::io("make a directory in", &primary.path().join(STAGING), errno);
        let root = primary.root().map_err(failed)?;
        let jobs = at::absent(root.jobs()).map_err(failed)?;
        let is_elsewhere = match &jobs {
            Some(jobs) => is_on_another_disk(root.fd(), jobs).map_err(failed)?,
            None => false,
        };
        let beside_jobs = jobs
            .filter(|_| is_elsewhere)
            .map(StagingArea::make)
            .transpose();
        Ok(Incoming {
            staging: StagingArea::make(root.fd()).map_err(failed)?,
            beside_jobs: beside_jobs.map_err(failed)?,
            env,
        })
    }

    fn of_jobs(&self) -> &StagingArea {
        self.beside_jobs.as_ref().unwrap_or(&self.staging)
    }

    /// Claims the disk's space for a job, for as long as the result is kept.
    pub(super) fn claim_space(&self, job: &JobId, bytes: u64) -> Result<Option<Claim>, String> {
        let claimed = export::claim_space(&self.env, job, bytes);
        claimed.map_err(|error| why(&error))
    }

    /// An empty directory for a copy of a job.
    pub(super) fn stage_job(&self, job: &JobId) -> Result<OwnedFd, String> {
        let made = self
            .of_jobs()
            .make_empty(&[OsStr::new(JOBS), job.task_id(), job.hash()]);
        made.map_err(|errno| self.io("make a directory in", errno))
    }

    /// Watches for errors of writing, before the first write of another program.
    pub(super) fn watch(&self, staged: &OwnedFd) -> Result<Writeback, String> {
        let watched = Writeback::watch(staged);
        watched.map_err(|error| self.io("open", error))
    }

    /// Waits until all that another program wrote is on the disk.
    pub(super) fn sync(&self, writeback: &Writeback, staged: &OwnedFd) -> Result<(), String> {
        let synced = match writeback.is_whole() {
            true => writeback.sync(),
            false => rustix::fs::syncfs(staged).map_err(std::io::Error::from),
        };
        synced.map_err(|error| self.io("write", error))
    }

    /// Gives a copied job its place; returns false if the workspace has it by now.
    pub(super) fn place_job(&self, job: &JobId) -> Result<bool, String> {
        let primary = self.env.view.primary();
        let at = job_path(primary.path(), job);
        let failed = |operation: &str, errno: rustix::io::Errno| {
            let error = std::io::Error::from(errno);
            format!("cannot {operation} {}: {error}", at.display())
        };
        let staged = self.of_jobs().make_dirs(&[OsStr::new(JOBS), job.task_id()]);
        let staged = staged.map_err(|errno| self.io("open", errno))?;
        let task = places::make_task(primary, job.task_id(), primary);
        let task = task.map_err(|errno| failed("make the directory of", errno))?;
        match at::move_new((&staged, job.hash()), (&*task, job.hash())) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Ok(false),
            Err(errno) => return Err(failed("move the copy to", errno)),
        }
        let here = OsStr::new(".");
        let synced = at::open_to_list(&*task, here).and_then(sync_directory);
        synced.map_err(|errno| failed("sync the directory of", errno))?;
        self.env.view.forget_standing(job);
        self.env.hooks.moved(job);
        Ok(true)
    }

    /// An empty directory for a copy of a run.
    pub(super) fn stage_run(&self, run: &RunName) -> Result<OwnedFd, String> {
        let names = [OsStr::new(EXPERIMENTS), &run.experiment, &run.run];
        let made = self.staging.make_empty(&names);
        made.map_err(|errno| self.io("make a directory in", errno))
    }

    pub(super) fn place_run(&self, run: &RunName) -> Result<bool, String> {
        let names = [OsStr::new(EXPERIMENTS), &run.experiment];
        let staged = self.staging.make_dirs(&names);
        let staged = staged.map_err(|errno| self.io("open", errno))?;
        let placed = runs::place(&self.env, run, (&staged, &run.run));
        placed.map_err(|cause| cause.to_string())
    }

    pub(super) fn set_current(&self, run: &RunName) -> Result<(), String> {
        let set = runs::set_missing_current(&self.env, run);
        set.map(drop).map_err(|cause| cause.to_string())
    }

    fn io(&self, operation: &str, error: impl Into<std::io::Error>) -> String {
        let path = self.env.view.primary_path().join(STAGING);
        let error = error.into();
        format!("cannot {operation} {}: {error}", path.display())
    }
}

fn is_on_another_disk(one: impl AsFd, other: impl AsFd) -> rustix::io::Result<bool> {
    let device = |stat: rustix::fs::Statx| (stat.stx_dev_major, stat.stx_dev_minor);
    let (one, other) = (at::stat_fd(one)?, at::stat_fd(other)?);
    Ok(device(one) != device(other))
}
