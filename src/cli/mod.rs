//! What a person types: one file a command. Prints, and decides nothing.
//!
//! Listings go to standard output, as tables or, with `--json`, as JSON; everything else goes to
//! standard error. Exit status: 0 done, 1 failed, 2 wrong usage.

pub mod settings;
mod table;
pub mod workspaces;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Shows an experimaestro workspace as one directory, whatever disk each job lies on.
#[derive(Debug, Parser)]
#[command(name = "xpmfs", version, about, propagate_version = true)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Settings file [default: ~/.config/experimaestro/settings.yaml]
    #[arg(long, global = true, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Print listings as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more on standard error (twice: still more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// Which workspace a command is about.
#[derive(Debug, Clone, Default, Args)]
pub struct Select {
    /// Workspace, by its id in the settings
    #[arg(short, long, value_name = "ID")]
    pub workspace: Option<String>,
    /// Workspace, by its directory (or another directory for the one of --workspace)
    #[arg(long, value_name = "PATH")]
    pub workdir: Option<PathBuf>,
    /// Workspace, by the experiment id that its triggers match
    #[arg(short = 'x', long, value_name = "ID")]
    pub experiment: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Finds mistakes in the settings file, or says where it is
    #[command(subcommand)]
    Settings(settings::Command),
    /// Shows the workspaces of the settings file
    #[command(subcommand)]
    Workspaces(workspaces::Command),
}

/// Runs one command.
///
/// # Errors
///
/// What the command could not do, with the path and the operation.
pub fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Command::Settings(command) => settings::run(command, &cli.global),
        Command::Workspaces(command) => workspaces::run(command, &cli.global),
    }
}
