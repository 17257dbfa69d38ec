//! `xpmfs settings`: mistakes in the settings file, and where it is.
//!
//! - `check`: the mistakes; `show`: the settings in effect; `migrate`: rewrites `alt_workspaces`

mod check;
mod migrate;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Subcommand, ValueHint};
use clap_complete::engine::ArgValueCompleter;
use serde_json::json;

use super::{Global, Listing, candidates, print};
use crate::settings::{self, Environment};

/// What to do with the settings file.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Finds every mistake, with its line and what to write instead
    ///
    /// Exit status: 1 if there are errors, 0 if there are none or warnings alone.
    ///
    /// Example: `xpmfs settings check new.yaml`
    Check {
        /// File to check, in place of the settings file
        #[arg(value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
        /// How it is printed.
        #[command(flatten)]
        listing: Listing,
    },
    /// Prints the path of the settings file
    ///
    /// Exit status: 1 if there is no such file.
    ///
    /// Example: `$EDITOR "$(xpmfs settings path)"`
    Path {
        /// How it is printed.
        #[command(flatten)]
        listing: Listing,
    },
    /// Prints the settings in effect, defaults included, and where each value is from
    ///
    /// The output is YAML, which can be used as a settings file: with variables and `~` replaced, and `alt_workspaces` as `use` folders.
    /// Behind each value is the line of the file that it is from, and what is written there if it differs.
    ///
    /// Example: `xpmfs settings show -w nlp | grep trash`
    Show {
        /// Of the workspaces, the one with this id alone
        #[arg(short, long, value_name = "ID", add = ArgValueCompleter::new(candidates::workspaces))]
        workspace: Option<String>,
        /// Print environment variables and the token of the server, too
        #[arg(long)]
        secrets: bool,
        /// How it is printed.
        #[command(flatten)]
        listing: Listing,
    },
    /// Rewrites `alt_workspaces`, which is deprecated, as `use` folders
    ///
    /// Prints the change; with --yes, makes it. Everything else in the file stays, comments included. Nothing is changed unless
    /// every workspace has the same folders afterwards.
    ///
    /// Exit status: 1 if a workspace must be rewritten by hand.
    ///
    /// Example: `xpmfs settings migrate --yes`
    Migrate {
        /// File to rewrite, in place of the settings file
        #[arg(value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
        /// Make the change; otherwise, it is only printed
        #[arg(short, long)]
        yes: bool,
        /// How it is printed.
        #[command(flatten)]
        listing: Listing,
    },
}

impl Command {
    pub(super) fn listing(&self) -> &Listing {
        match self {
            Self::Check { listing, .. }
            | Self::Path { listing }
            | Self::Show { listing, .. }
            | Self::Migrate { listing, .. } => listing,
        }
    }
}

/// Runs the command.
///
/// # Errors
///
/// If the file cannot be read.
pub fn run(command: &Command, global: &Global) -> anyhow::Result<ExitCode> {
    let environment = Environment::of_process();
    let path = |given: Option<&PathBuf>| match given.or(global.settings.as_ref()) {
        Some(path) => Ok(path.clone()),
        None => settings::default_path(&environment),
    };
    match command {
        Command::Check { file, .. } => check::run(&path(file.as_ref())?, global, &environment),
        Command::Path { .. } => print_path(&path(None)?, global),
        Command::Show {
            workspace, secrets, ..
        } => {
            let shown = (workspace.as_deref(), *secrets);
            show::run(&path(None)?, shown, global, &environment)
        }
        Command::Migrate { file, yes, .. } => {
            migrate::run(&path(file.as_ref())?, *yes, global, &environment)
        }
    }
}

fn print_path(path: &Path, global: &Global) -> anyhow::Result<ExitCode> {
    let exists = path.is_file();
    if global.json {
        let entry = json!({"path": path.to_string_lossy(), "exists": exists});
        print::json(&entry)?;
    } else {
        print::text(&format!("{}\n", path.display()))?;
    }
    if exists {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "xpmfs: there is no such file yet: create it with `workspaces:`, and for each an `id` and a `path`"
    );
    Ok(ExitCode::FAILURE)
}
