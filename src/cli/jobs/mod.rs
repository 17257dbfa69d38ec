//! `xpmfs jobs`: commands on single jobs. One file a command (`opt`: `opt-out` and `opt-in`; `pin`: `pin` and `unpin`);
//! [`session`] opens the workspace for each, `named` finds the jobs that an argument names. `orphans`, `trash`, `experiments` and
//! `tui` use [`session`], [`meter`] (progress) and [`interrupt`] (Ctrl-C), too.

pub(super) mod archive;
pub(super) mod delete;
pub(super) mod interrupt;
mod list;
pub(super) mod log;
pub(super) mod meter;
mod named;
pub(super) mod opt;
mod path;
mod pin;
mod recover;
mod release;
pub(super) mod session;
pub(super) mod undelete;
pub(super) mod verify;
mod where_is;

use std::process::ExitCode;

use clap::Subcommand;

pub(super) use self::named::{Ambiguous, find_among};
use super::open::More;
use super::{Global, Listing, Select};

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists jobs: state, age, and the location that serves each
    ///
    /// Without JOB or --experiment, all jobs that the workspace or a folder has, and those that the current run of an experiment names and
    /// that are missing. Tags and times of submission are those of the current run that submitted the job, or else of the last.
    ///
    /// Example: `xpmfs jobs list -x tune --tags --filter '@state = "DONE" and model in ["bm25", "splade"]' --sort size`
    List(list::Arguments),
    /// Prints a path that leads to each job now: in the workspace, or else in the folder that has it
    ///
    /// Example: `cd "$(xpmfs jobs path 0defac9f)"`
    Path(path::Arguments),
    /// Prints the log of a job: what it wrote to standard error
    ///
    /// Example: `xpmfs jobs log -f 0defac9f` prints the last lines, and what the job writes until it ends.
    Log(log::Arguments),
    /// Copies finished jobs to the `backup` folders and moves them to the `move` folder, now
    ///
    /// A mount does this by itself; this command does it at once and prints each result, mounted or not. A job that a folder
    /// already has is compared, and copied again if it has changed since.
    ///
    /// Example: `xpmfs jobs archive 0defac9f`, or `xpmfs jobs archive --all`
    Archive(archive::Arguments),
    /// Brings jobs back from a folder into the primary
    ///
    /// A recovered job stays there, also if the workspace has a `move` folder, until it changes or `xpmfs jobs archive` names it
    /// (by itself, not by its task or a glob).
    ///
    /// Example: `xpmfs jobs recover 0defac9f`, or after a purge `xpmfs jobs recover --all`
    Recover(recover::Arguments),
    /// Reads archived copies again, and prints what is wrong with them and how to mend it
    ///
    /// Reads every byte of every copy from its disk and compares it with the copy's manifest, and the copy with the job in the
    /// primary. Prints damaged, incomplete and missing copies and their number; with -v every copy, and how it differs from the
    /// primary. Exits with 1 if anything is wrong. `xpmfs status` shows when all copies were verified last.
    ///
    /// Example: `xpmfs jobs verify --all`
    Verify(verify::Arguments),
    /// Lists every copy of jobs: in the primary and in each folder
    ///
    /// Prints which location serves the job, which copies are finished and have a manifest, and what is recorded of the job. A
    /// folder that does not answer is reported as that. With -v, folders without the job are listed as well.
    ///
    /// Example: `xpmfs jobs where 0defac9f`, or `xpmfs jobs where --all --json`
    Where(where_is::Arguments),
    /// Frees the primary's disk: removes copies of jobs there that have a verified archived copy
    ///
    /// Every byte of the archived copy is read and compared with its manifest first. A job stays if it differs from its copy, is
    /// pinned or unfinished, or if a process uses it. The least recently used jobs go first; a mount serves them from their folder.
    /// Prints what would be released; --yes does it.
    ///
    /// Example: `xpmfs jobs release --keep-free 200G --yes`
    Release(release::Arguments),
    /// Deletes jobs everywhere, into a trash from which they can be brought back
    ///
    /// Removes a job from the primary and from each `backup` and `move` folder, so that it does not reappear; nothing is deleted in a `use`
    /// folder. A folder that is away deletes its copy when it is back. A job that runs, is in use or pinned is kept. The deleted job is kept in
    /// the trash for `xpmfs.trash` (7 days by default). Prints what would be deleted; --yes does it.
    ///
    /// Example: `xpmfs jobs delete my.module.train/8f3c --yes`.
    Delete(delete::Arguments),
    /// Brings deleted jobs back from the trash
    ///
    /// Each copy goes back to its place: to the primary and to the folders. If the job was made again since it was deleted, the deleted one
    /// stays in the trash. `xpmfs trash list` lists the deleted jobs.
    ///
    /// Example: `xpmfs jobs undelete my.module.train/8f3c`.
    Undelete(undelete::Arguments),
    /// Excludes jobs from archiving
    ///
    /// Example: `xpmfs jobs opt-out 'my.debug.*'`
    OptOut(opt::Arguments),
    /// Archives jobs again that were opted out
    ///
    /// Example: `xpmfs jobs opt-in my.debug.train/0defac9f`
    OptIn(opt::Arguments),
    /// Keeps jobs in the primary: they are never released
    ///
    /// Example: `xpmfs jobs pin my.module.train/0defac9f`
    Pin(pin::Arguments),
    /// Lets jobs be released again that were pinned
    ///
    /// Example: `xpmfs jobs unpin my.module.train/0defac9f`
    Unpin(pin::Arguments),
}

impl Command {
    /// The listing that it prints.
    pub(super) fn listing(&self) -> Option<&Listing> {
        match self {
            Self::List(arguments) => Some(&arguments.listing),
            Self::Archive(arguments) => Some(&arguments.work.listing),
            Self::Recover(arguments) => Some(&arguments.work.listing),
            Self::Verify(arguments) => Some(&arguments.listing),
            Self::Release(arguments) => Some(&arguments.work.listing),
            Self::Where(arguments) => Some(&arguments.listing),
            Self::Delete(arguments) => Some(&arguments.work.listing),
            Self::Undelete(arguments) => Some(&arguments.work.listing),
            Self::Path(_) | Self::Log(_) => None,
            Self::OptOut(_) | Self::OptIn(_) | Self::Pin(_) | Self::Unpin(_) => None,
        }
    }
}

/// Runs the command.
///
/// # Errors
///
/// The workspace cannot be opened, or an argument names no job.
pub fn run(command: &Command, global: &Global) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(arguments) => list::run(arguments, global),
        Command::Path(arguments) => path::run(arguments, global),
        Command::Log(arguments) => log::run(arguments, global),
        Command::Archive(arguments) => archive::run(arguments, global),
        Command::Recover(arguments) => recover::run(arguments, global),
        Command::Verify(arguments) => verify::run(arguments, global),
        Command::OptOut(arguments) => opt::run(arguments, true, global),
        Command::OptIn(arguments) => opt::run(arguments, false, global),
        Command::Release(arguments) => release::run(arguments, global),
        Command::Where(arguments) => where_is::run(arguments, global),
        Command::Delete(arguments) => delete::run(arguments, global),
        Command::Undelete(arguments) => undelete::run(arguments, global),
        Command::Pin(arguments) => pin::run(arguments, true, global),
        Command::Unpin(arguments) => pin::run(arguments, false, global),
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
    archive::all(listing, which, global)
}
