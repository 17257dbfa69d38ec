//! `xpmfs trash`: deleted jobs, until they are removed for good. One file a command.

mod empty;
mod list;

use std::process::ExitCode;

use clap::Subcommand;

use super::{Global, Listing};

/// What to do with the trash.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists deleted jobs: when they were deleted, where they lie, and until when they can be brought back
    ///
    /// Example: `xpmfs trash list`; then `xpmfs jobs undelete my.module.train/8f3c` brings one back.
    List(list::Arguments),
    /// Removes deleted jobs for good, and frees their space
    ///
    /// All of them, or those that are named. Prints what would be removed; --yes does it. A mount removes each job by itself when
    /// `xpmfs.trash` (7 days by default) has passed since it was deleted.
    ///
    /// Example: `xpmfs trash empty --yes`.
    Empty(empty::Arguments),
}

impl Command {
    /// The listing that it prints.
    pub(super) fn listing(&self) -> &Listing {
        match self {
            Self::List(arguments) => &arguments.listing,
            Self::Empty(arguments) => &arguments.listing,
        }
    }
}

/// Runs the command.
///
/// # Errors
///
/// The workspace cannot be opened, or an argument names no deleted job.
pub fn run(command: &Command, global: &Global) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(arguments) => list::run(arguments, global),
        Command::Empty(arguments) => empty::run(arguments, global),
    }
}
