//! `xpmfs experiments`: lists experiments and their runs in the primary and in `backup` folders, brings them back, and copies them.
//!
//! One file a command; `list`: those that list; `remote`: `list` and `runs` of a workspace on another machine; `shared_arguments`: the options
//! of all.

pub(super) mod copy;
mod list;
mod recover;
mod remote;
mod shared_arguments;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;

use self::shared_arguments::SharedArguments;
use super::{Global, Listing, candidates};

/// What to do with experiments.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists experiments: their current run, its state, and where their runs lie
    ///
    /// Example: `xpmfs experiments list -w nlp`
    List(SharedArguments),
    /// Lists the runs of an experiment, or of all, and where they lie
    ///
    /// Example: `xpmfs experiments runs tune`
    Runs(Runs),
    /// Brings runs back from `backup` folders into the primary, with the partials of their jobs
    ///
    /// Brings back what the primary lacks; what it has stays as it is. The jobs themselves: `xpmfs jobs recover`.
    ///
    /// Example: `xpmfs experiments recover tune`, then `xpmfs jobs recover --all`
    Recover(recover::Arguments),
    /// Copies a run and its jobs to another workspace, here or on another machine
    ///
    /// Copies the jobs that the other workspace lacks: from the folders, too, where the workspace itself has lost a job or a purge has
    /// removed files of it. A job gets its place when its copy is complete; what failed or was interrupted is copied when the command
    /// is given again. At a terminal, arguments that are missing are asked for. One of the two workspaces may be on another machine
    /// (`ssh.host` in the settings): its files go by rsync over ssh. Prints what would be copied; -y does it.
    ///
    /// Example: `xpmfs experiments copy my-experiment --from-workspace fast --to-workspace slow -y`
    Copy(copy::Arguments),
}

/// Which runs.
#[derive(Debug, Args)]
pub struct Runs {
    /// The experiment [default: all]
    #[arg(value_name = "EXPERIMENT", add = ArgValueCompleter::new(candidates::experiments))]
    id: Option<std::ffi::OsString>,
    /// The options of every command.
    #[command(flatten)]
    shared: SharedArguments,
}

impl Command {
    /// The listing that it prints.
    pub(super) fn listing(&self) -> &Listing {
        match self {
            Self::List(arguments) => &arguments.listing,
            Self::Runs(arguments) => &arguments.shared.listing,
            Self::Recover(arguments) => &arguments.shared.listing,
            Self::Copy(arguments) => &arguments.listing,
        }
    }
}

/// Runs the command.
///
/// # Errors
///
/// The workspace cannot be opened, or there is no such experiment.
pub fn run(command: &Command, global: &Global) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(arguments) => match arguments.remote(global)? {
            Some(site) => remote::experiments(&site, global),
            None => list::experiments(&arguments.open(global)?, global),
        },
        Command::Runs(arguments) => {
            if let Some(site) = arguments.shared.remote(global)? {
                return remote::runs(&site, arguments.id.as_deref(), global);
            }
            let session = arguments.shared.open(global)?;
            list::runs(&session, arguments.id.as_deref(), global)
        }
        Command::Recover(arguments) => recover::run(arguments, global),
        Command::Copy(arguments) => copy::run(arguments, global),
    }
}
