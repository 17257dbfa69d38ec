//! `xpmfs jobs opt-out` and `opt-in`.

use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Args;

use super::session::{Session, Which};
use crate::archive::job::opt_out::{self, Eligibility, OptOuts};
use crate::archive::places;
use crate::cli::{Global, print, sentence};
use crate::daemon::archiving;
use crate::workspace::jobs::JobId;

/// Which jobs.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The jobs.
    #[command(flatten)]
    which: Which,
}

/// Excludes jobs from archiving (`out`), or includes them again.
pub(super) fn run(arguments: &Arguments, out: bool, global: &Global) -> anyhow::Result<ExitCode> {
    let what = if out { "opt out" } else { "opt in" };
    arguments.which.expect_jobs(what, None)?;
    let session = Session::open(&arguments.which, &[], global)?;
    let jobs = session.named(&arguments.which)?;
    let opened = &session.opened;
    let config = archiving::config(&opened.tuning, &opened.folders);
    let outs = OptOuts::new(config.exclude, config.folder_exclude);
    let mut status = ExitCode::SUCCESS;
    for job in jobs.jobs.iter() {
        match set(&session, &outs, job, out) {
            Ok(Some(done)) if !global.quiet => print::line(&format!("{job} {done}")),
            Ok(Some(_)) => {}
            // A task and a glob select the jobs of the primary.
            Ok(None) if !jobs.is_single(job) => {}
            Ok(None) => {
                print::line(&format!("{job}: not in the primary: nothing to {what}"));
                status = ExitCode::FAILURE;
            }
            Err(error) => {
                print::line(&format!("{job}: {}", sentence(&error)));
                status = ExitCode::FAILURE;
            }
        }
    }
    Ok(status)
}

/// Opts a job out or in, and returns what is now the case; `None` if the primary does not have the job.
pub(in crate::cli) fn set(
    session: &Session,
    outs: &OptOuts,
    job: &JobId,
    out: bool,
) -> anyhow::Result<Option<String>> {
    let view = &session.opened.view;
    let path = places::path(view.primary(), job);
    let directory = places::job(view.primary(), job)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let Some(directory) = directory else {
        return Ok(None);
    };
    let changed = match out {
        true => opt_out::set_file(&directory, true).map_err(|error| anyhow!(error)),
        false => outs
            .opt_in(view, job, &directory)
            .map_err(|error| anyhow!(error)),
    };
    let changed = changed
        .with_context(|| format!("cannot change whether {} is opted out", path.display()))?;
    if !out && let Ok(Eligibility::Out(how)) = outs.of(view, job, &directory) {
        return Ok(Some(format!("is still opted out, as {how}")));
    }
    let done = match (out, changed) {
        (true, true) => "will no longer be archived; existing copies are kept",
        (true, false) => "was already opted out",
        (false, true) => "will be archived again",
        (false, false) => "was not opted out",
    };
    Ok(Some(done.to_owned()))
}
