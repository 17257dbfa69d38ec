//! The commands that a person types: one file a command. Prints, and decides nothing.
//!
//! Listings go to standard output, as tables or, with `--json`, as JSON; everything else goes to
//! standard error. Exit status: 0 done, 1 failed, 2 wrong usage.

mod advice;
pub mod archive;
pub mod completions;
pub mod front;
pub mod jobs;
pub mod man;
pub mod mount;
pub mod mount_helper;
pub mod open;
mod print;
pub mod settings;
pub mod status;
mod style;
mod table;
pub mod umount;
pub mod workspaces;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::engine::ArgValueCompleter;

use crate::daemon::options::OptionError;
use crate::daemon::unmount::UnmountError;
use crate::daemon::{health, log};
use crate::printable::printable;
use crate::settings::Selection;

/// Shows an experimaestro workspace as one directory, whatever disk each job lies on.
#[derive(Debug, Parser)]
#[command(name = "xpmfs", version, about, propagate_version = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The heading of the options that every command has.
const GENERAL: &str = "General options";
/// The heading of the options that select a workspace.
const WHICH: &str = "Which workspace";

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Settings file [default: ~/.config/experimaestro/settings.yaml]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = GENERAL, display_order = 101)]
    pub settings: Option<PathBuf>,
    /// Print listings as JSON
    #[arg(long, display_order = 102)]
    pub json: bool,
    /// More detail (repeat for more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = GENERAL, display_order = 103)]
    pub verbose: u8,
    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = GENERAL, display_order = 104)]
    pub quiet: bool,
}

/// The options of a listing.
#[derive(Debug, Clone, Default, Args)]
pub struct Listing {
    /// Print JSON
    #[arg(long, display_order = 41)]
    json: bool,
}

/// Which workspace a command is about.
#[derive(Debug, Clone, Default, Args)]
pub struct Select {
    /// The one with this id in the settings
    #[arg(short, long, value_name = "ID", add = ArgValueCompleter::new(completions::workspaces), help_heading = WHICH, display_order = 51)]
    pub workspace: Option<String>,
    /// The one in this directory, with or without settings; with --workspace, that one at another path
    #[arg(long, value_name = "PATH", value_hint = ValueHint::DirPath, help_heading = WHICH, display_order = 52)]
    pub workdir: Option<PathBuf>,
    /// The one with a trigger that matches this experiment's id [default: the first of the settings]
    #[arg(short = 'x', long, value_name = "ID", value_hint = ValueHint::Other, help_heading = WHICH, display_order = 53)]
    pub experiment: Option<String>,
}

impl Global {
    fn verbosity(&self) -> log::Verbosity {
        log::Verbosity {
            verbose: self.verbose,
            quiet: self.quiet,
        }
    }
}

impl Select {
    /// The same for the settings.
    fn selection(&self) -> Selection {
        Selection {
            workspace: self.workspace.clone(),
            workdir: self.workdir.clone(),
            experiment: self.experiment.clone(),
        }
    }

    /// Whether any of the options was given.
    fn is_given(&self) -> bool {
        self.workspace.is_some() || self.workdir.is_some() || self.experiment.is_some()
    }
}

/// The exit status of a command line that is not understood.
pub const WRONG_USAGE: u8 = 2;

/// An error and its causes in one line, with control characters in names escaped. A cause that an error's own text contains is not
/// repeated.
#[must_use]
pub fn sentence(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let mut message = without_numbers(&cause.to_string());
        // These list processes or jobs on lines of their own, and escape names themselves.
        let has_lines = matches!(cause.downcast_ref(), Some(UnmountError::Busy { .. }))
            || cause.is::<jobs::Ambiguous>();
        if !has_lines {
            message = printable(&message).into_owned();
        }
        if text.is_empty() {
            message
        } else if text.contains(&message) {
            text
        } else {
            format!("{text}: {message}")
        }
    })
}

/// A text without the numbers of errors, which mean nothing to a person.
fn without_numbers(text: &str) -> String {
    let mut words = text.to_owned();
    while let Some(start) = words.find(" (os error ")
        && let Some(length) = words.get(start..).and_then(|rest| rest.find(')'))
    {
        words.replace_range(start..=start + length, "");
    }
    words
}

/// Whether a command failed because its output is no longer read.
#[must_use]
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// The exit status of a command that failed.
#[must_use]
pub fn status_of(error: &anyhow::Error) -> ExitCode {
    if error.is::<OptionError>() || error.is::<Usage>() {
        ExitCode::from(WRONG_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// A command line that is not understood, where the parser has not seen it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mounts a workspace, by default in place: over its own directory
    ///
    /// Returns when the mount is ready. Every job is then seen under one path, whichever folder it lies in.
    Mount(Box<mount::Arguments>),
    /// Unmounts a workspace
    Umount(umount::Arguments),
    /// Shows mounts, the state of folders, and what is being archived
    Status(status::Arguments),
    /// Archives a workspace that is not mounted: once, or for as long as it runs
    ///
    /// A mount archives by itself; this is for machines without one. Both may run at the same time, on any number of machines.
    Archive(archive::Arguments),
    /// Archives, recovers and verifies jobs
    #[command(subcommand)]
    Jobs(Box<jobs::Command>),
    /// Shows the workspaces of the settings file
    #[command(subcommand)]
    Workspaces(workspaces::Command),
    /// Finds mistakes in the settings file, or prints its path
    #[command(subcommand)]
    Settings(settings::Command),
    /// Prints a shell's completions, also of workspaces, jobs and mount points
    Completions(completions::Arguments),
    /// Prints the manual page, or writes all of them
    Man(man::Arguments),
    /// Asks a mount whether it answers (for `mount`, which must not wait for it itself)
    // The name resembles no other, so that it is not proposed for a mistyped one.
    #[command(hide = true, name = "__answers")]
    Probe {
        /// The mount point
        path: PathBuf,
    },
}

impl Command {
    /// Whether a thread of the command may wait for a file system without end, so that the command needs a [`front`].
    #[must_use]
    pub fn asks_file_systems(&self) -> bool {
        match self {
            Self::Completions(_) | Self::Man(_) | Self::Probe { .. } => false,
            Self::Mount(arguments) => !arguments.serves(),
            // A service: its process id is known to others, and it ends by a signal.
            Self::Archive(_) => false,
            Self::Umount(_)
            | Self::Status(_)
            | Self::Jobs(_)
            | Self::Workspaces(_)
            | Self::Settings(_) => true,
        }
    }

    /// The options of its listing, if it prints one.
    fn listing(&self) -> Option<&Listing> {
        match self {
            Self::Status(arguments) => Some(&arguments.listing),
            Self::Settings(command) => Some(command.listing()),
            Self::Jobs(command) => command.listing(),
            Self::Archive(arguments) => Some(&arguments.listing),
            Self::Workspaces(workspaces::Command::List { listing }) => Some(listing),
            _ => None,
        }
    }
}

/// Runs one command.
///
/// # Errors
///
/// The operation that failed, its path, and the reason.
pub fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let listing = cli.command.listing();
    if cli.global.json && listing.is_none() {
        let message = "--json is for listings: status, archive, jobs archive, jobs recover, jobs verify, settings check, settings path, workspaces list";
        return Err(Usage(message.to_owned()).into());
    }
    let global = &Global {
        json: cli.global.json || listing.is_some_and(|listing| listing.json),
        ..cli.global.clone()
    };
    if !matches!(cli.command, Command::Mount(_)) {
        log::init(&log::Destination::Terminal, global.verbosity())?;
    }
    match &cli.command {
        Command::Mount(arguments) => mount::run(arguments, global),
        Command::Umount(arguments) => umount::run(arguments, global),
        Command::Status(arguments) => status::run(arguments, global),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Man(arguments) => man::run(arguments, global),
        Command::Probe { path } => Ok(if health::answers(path) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }),
        Command::Archive(arguments) => archive::run(arguments, global),
        Command::Jobs(command) => jobs::run(command, global),
        Command::Settings(command) => settings::run(command, global),
        Command::Workspaces(command) => workspaces::run(command, global),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_cause_is_printed_once() {
        let cause = || std::io::Error::from_raw_os_error(13);
        let error = crate::settings::SettingsError::Read {
            path: "/s".into(),
            source: cause(),
        };
        let text = sentence(&error.into());
        assert_eq!(text.matches("Permission denied").count(), 1, "{text}");
        let error = Err::<(), _>(cause()).context("cannot write /x");
        let text = sentence(&error.unwrap_err());
        assert_eq!(text, "cannot write /x: Permission denied");
    }
}
