//! `xpmfs jobs path`.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::session::{Session, Which};
use crate::archive::places;
use crate::cli::Global;
use crate::view::{PRIMARY, Served};
use crate::workspace::jobs::JobId;

/// Which jobs.
#[derive(Debug, Args)]
pub struct Arguments {
    /// End each path with a NUL character in place of a newline
    #[arg(short = '0', long)]
    null: bool,
    /// The jobs.
    #[command(flatten)]
    which: Which,
}

pub(super) fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    arguments.which.expect_jobs("find", None)?;
    let session = Session::open(&arguments.which, &[], global)?;
    let jobs = session.named(&arguments.which)?;
    let mut out = std::io::stdout().lock();
    for job in jobs.jobs.iter() {
        let path = path(&session, job)?;
        let end = if arguments.null { b"\0" } else { b"\n" };
        // Bytes as they are: the path is for programs.
        let written = out.write_all(path.as_os_str().as_bytes());
        let written = written.and_then(|()| out.write_all(end));
        written.context("cannot write to standard output")?;
    }
    out.flush().context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// A path that leads to a job now: in the workspace, if that has the job or is mounted in place; otherwise in the folder that has it.
fn path(session: &Session, job: &JobId) -> anyhow::Result<std::path::PathBuf> {
    let view = &session.opened.view;
    let served = view.resolve(job.task_id(), job.hash());
    let served = served.with_context(|| format!("cannot look for {job}"))?;
    let location = match served {
        Some(Served::Job { location, .. }) if !session.opened.is_mounted_in_place => location,
        Some(_) => PRIMARY,
        None => bail!("no location has {job}"),
    };
    let location = view.location(location).unwrap_or(view.primary());
    Ok(places::path(location, job))
}
