//! The options that several commands have.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use clap_complete::engine::ArgValueCompleter;

use super::candidates;
use crate::daemon::log;
use crate::settings::Selection;

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
    pub(super) json: bool,
}

/// Which workspace a command is about.
#[derive(Debug, Clone, Default, Args)]
pub struct Select {
    /// The one with this id in the settings
    #[arg(short, long, value_name = "ID", add = ArgValueCompleter::new(candidates::workspaces), help_heading = WHICH, display_order = 51)]
    pub workspace: Option<String>,
    /// The one in this directory, with or without settings; with --workspace, that one at another path
    #[arg(long, value_name = "PATH", value_hint = ValueHint::DirPath, help_heading = WHICH, display_order = 52)]
    pub workdir: Option<PathBuf>,
    /// The one with a trigger that matches this experiment's id [default: the first of the settings]
    #[arg(short = 'x', long, value_name = "ID", add = ArgValueCompleter::new(candidates::experiments), help_heading = WHICH, display_order = 53)]
    pub experiment: Option<String>,
}

impl Global {
    pub(super) fn verbosity(&self) -> log::Verbosity {
        log::Verbosity {
            verbose: self.verbose,
            quiet: self.quiet,
        }
    }
}

impl Select {
    /// The same for the settings.
    pub(super) fn selection(&self) -> Selection {
        Selection {
            workspace: self.workspace.clone(),
            workdir: self.workdir.clone(),
            experiment: self.experiment.clone(),
        }
    }

    /// Whether any of the options was given.
    pub(super) fn is_given(&self) -> bool {
        self.workspace.is_some() || self.workdir.is_some() || self.experiment.is_some()
    }
}
