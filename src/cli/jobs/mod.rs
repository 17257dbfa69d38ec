//! `xpmfs jobs`: what is done with single jobs. One file a command.

mod archive;
mod interrupt;
mod meter;
mod opt;
mod recover;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Subcommand;

use super::{Global, Listing, Select, Usage};
use crate::archive::env::{Env, Hooks};
use crate::archive::error::JobError;
use crate::cli::advice::advice;
use crate::cli::open::{More, Opened};
use crate::settings::DEFAULT_SETTLE;
use crate::transfer::{Bandwidth, Progress};
use crate::workspace::jobs::JobId;

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copies finished jobs to the `backup` folders and moves them to the `move` folder, now
    ///
    /// A mount does this by itself; this command does it at once and says what became of each, mounted or not. What a folder has
    /// already is compared, and copied again if it has changed since.
    Archive(archive::Arguments),
    /// Brings jobs back from a folder into the workspace's own directory
    ///
    /// A recovered job stays there, also if the workspace has a `move` folder, until it changes or `xpmfs jobs archive` names it.
    Recover(recover::Arguments),
    /// Reads archived copies again, and names each file that is not what it was
    ///
    /// Every byte of every copy is read from its disk and compared with the copy's manifest, and the copy with what the workspace's
    /// own directory has of the job. Exits with 1 if a copy is damaged, incomplete or missing.
    Verify(verify::Arguments),
    /// Lets jobs not be archived
    OptOut(opt::Arguments),
    /// Lets jobs be archived again that were opted out
    OptIn(opt::Arguments),
}

impl Command {
    /// The listing that it prints.
    pub(super) fn listing(&self) -> Option<&Listing> {
        match self {
            Self::Archive(arguments) => Some(arguments.listing()),
            Self::Recover(arguments) => Some(arguments.listing()),
            Self::Verify(arguments) => Some(arguments.listing()),
            Self::OptOut(_) | Self::OptIn(_) => None,
        }
    }
}

/// Runs the command.
///
/// # Errors
///
/// The workspace cannot be opened, or a text names no job.
pub fn run(command: &Command, global: &Global) -> anyhow::Result<ExitCode> {
    raise_descriptor_limit();
    match command {
        Command::Archive(arguments) => archive::run(arguments, global),
        Command::Recover(arguments) => recover::run(arguments, global),
        Command::Verify(arguments) => verify::run(arguments, global),
        Command::OptOut(arguments) => opt::run(arguments, true, global),
        Command::OptIn(arguments) => opt::run(arguments, false, global),
    }
}

/// Archives every finished job of a workspace.
///
/// # Errors
///
/// See [`run`].
pub(super) fn archive_all(
    listing: &Listing,
    which: (&Select, &More),
    global: &Global,
) -> anyhow::Result<ExitCode> {
    raise_descriptor_limit();
    archive::all(listing, which, global)
}

/// The limit of the settings.
pub(super) fn bandwidth(opened: &Opened) -> Option<Bandwidth> {
    opened
        .tuning
        .bandwidth
        .map(|rate| Bandwidth::new(Some(rate)))
}

/// With what jobs are worked on.
fn env<'a>(
    opened: &'a Opened,
    progress: &'a Progress,
    bandwidth: Option<&'a Bandwidth>,
    threads: usize,
) -> Env<'a> {
    let hooks: &dyn Hooks = &opened.peers;
    Env {
        view: &opened.view,
        hooks,
        progress,
        bandwidth,
        out: None,
        settle: opened.tuning.settle.unwrap_or(DEFAULT_SETTLE),
        threads,
        force: false,
    }
}

/// Makes sure that some jobs are named; `all` is what `--all` means to the command, if it has that.
fn expect_jobs(texts: &[OsString], what: &str, all: Option<&str>) -> anyhow::Result<()> {
    if !texts.is_empty() {
        return Ok(());
    }
    let all = all.map_or_else(String::new, |all| format!(", or --all for {all}"));
    let message =
        format!("say which jobs to {what}: `task_id/hash`, or the beginning of a hash{all}");
    Err(Usage(message).into())
}

/// The jobs that texts name, each once.
fn named(opened: &Opened, texts: &[OsString]) -> anyhow::Result<Vec<JobId>> {
    let mut jobs: Vec<JobId> = Vec::new();
    for text in texts {
        let job = opened.view.find_job(text)?;
        if !jobs.contains(&job) {
            jobs.push(job);
        }
    }
    Ok(jobs)
}

/// What went wrong with a job, and what can be done about it.
fn why(error: &JobError) -> String {
    match advice(error) {
        Some(advice) => format!("{}: {advice}", error.cause),
        None => error.cause.to_string(),
    }
}

/// What a folder is called: its mode and its path.
fn label(opened: &Opened, folder: u8) -> String {
    let location = opened.view.location(folder);
    location.map_or_else(String::new, |location| {
        String::from_utf8_lossy(&location.label()).into_owned()
    })
}

/// Several jobs at a time have some files open each.
fn raise_descriptor_limit() {
    crate::daemon::run::raise_descriptor_limit();
}
