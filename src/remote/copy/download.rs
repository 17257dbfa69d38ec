//! Copies jobs and a run from another machine to a workspace of this one.

use std::path::Path;

use super::ends::{Source, Transfer, job_path};
use super::local::{Incoming, absolute_run_path, why};
use super::remote::RemoteSource;
use crate::archive::env::Env;
use crate::archive::experiments::RunName;
use crate::archive::experiments::export as runs;
use crate::archive::job::export;
use crate::remote::error::CopyError;
use crate::remote::rsync::{self, Direction, Trees, excluded_of_job, excluded_of_run};
use crate::remote::site;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::JOBS;

/// A copy from another machine.
pub(super) struct Download<'a> {
    from: &'a RemoteSource<'a>,
    to: Incoming<'a>,
}

impl<'a> Download<'a> {
    pub(super) fn begin(
        from: &'a RemoteSource<'a>,
        to: Env<'a>,
    ) -> Result<Download<'a>, CopyError> {
        Ok(Download {
            from,
            to: Incoming::open(to)?,
        })
    }
}

impl Transfer for Download<'_> {
    fn job(&self, job: &JobId) -> Result<bool, String> {
        let site = self.from.site;
        let found = self.from.find(std::slice::from_ref(job)).into_iter().next();
        let found = found.unwrap_or_else(|| Err("it was not looked up".to_owned()))?;
        let _claim = self.to.claim_space(job, found.size.bytes)?;
        let staged = self.to.stage_job(job)?;
        let there = site.enter(self.from.location(job), &Path::new(JOBS).join(job.path()));
        let trees = Trees::new(&site.connection, there, &staged, excluded_of_job(job));
        let writeback = self.to.watch(&staged)?;
        rsync::copy(&trees, Direction::Down, self.to.env.progress)?;
        let workspace = self.to.env.view.primary_path();
        let at = job_path(workspace, job);
        export::rebase(job, (&staged, &at), workspace).map_err(|error| why(&error))?;
        self.to.sync(&writeback, &staged)?;
        self.to.place_job(job)
    }

    fn stage_run(&self, run: &RunName) -> Result<(), String> {
        let site = self.from.site;
        let (location, links) = self.from.run_location();
        let staged = self.to.stage_run(run)?;
        let there = site.enter(location, &site::run_path(run));
        let trees = Trees::new(&site.connection, there, &staged, excluded_of_run());
        let writeback = self.to.watch(&staged)?;
        rsync::copy(&trees, Direction::Down, self.to.env.progress)?;
        let workspace = self.to.env.view.primary_path();
        let at = absolute_run_path(&self.to.env, run);
        let made = runs::make_links(&links, (&staged, &at), workspace);
        made.map_err(|cause| cause.to_string())?;
        self.to.sync(&writeback, &staged)
    }

    fn place_run(&self, run: &RunName) -> Result<bool, String> {
        self.to.place_run(run)
    }

    fn set_current(&self, run: &RunName) -> Result<(), String> {
        self.to.set_current(run)
    }
}
