//! `xpmfs settings`: mistakes in the settings file, and where it is.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Subcommand, ValueHint};
use serde_json::json;

use super::{Global, Listing, print};
use crate::settings::{self, Environment, Finding, Severity};

/// What to do with the settings file.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Finds every mistake, with its line and what to write instead
    ///
    /// Exit status: 1 if there are errors, 0 if there are none or warnings alone.
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
    Path {
        /// How it is printed.
        #[command(flatten)]
        listing: Listing,
    },
}

impl Command {
    pub(super) fn listing(&self) -> &Listing {
        match self {
            Self::Check { listing, .. } | Self::Path { listing } => listing,
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
        Command::Check { file, .. } => check(&path(file.as_ref())?, global, &environment),
        Command::Path { .. } => show(&path(None)?, global),
    }
}

fn show(path: &Path, global: &Global) -> anyhow::Result<ExitCode> {
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

fn check(path: &Path, global: &Global, environment: &Environment) -> anyhow::Result<ExitCode> {
    let findings = settings::check(path, environment)?;
    let errors = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .count();
    if global.json {
        print::json(&findings)?;
    } else {
        let described = findings.iter().map(|finding| described(path, finding));
        print::text(&described.collect::<String>())?;
    }
    if !global.quiet {
        eprintln!("{}", summary(path, errors, findings.len() - errors));
    }
    Ok(if errors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// `FILE:LINE:COLUMN: error: message`, and the advice below it.
fn described(path: &Path, finding: &Finding) -> String {
    let Finding {
        line,
        column,
        severity,
        message,
        advice,
    } = finding;
    let mut text = format!(
        "{}:{line}:{column}: {severity}: {message}\n",
        path.display()
    );
    for line in advice.lines() {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

fn summary(path: &Path, errors: usize, warnings: usize) -> String {
    let count = |number: usize, name: &str| match number {
        1 => format!("1 {name}"),
        _ => format!("{number} {name}s"),
    };
    match (errors, warnings) {
        (0, 0) => format!("{}: no mistakes", path.display()),
        (0, _) => format!("{}: {}", path.display(), count(warnings, "warning")),
        (_, 0) => format!("{}: {}", path.display(), count(errors, "error")),
        _ => format!(
            "{}: {}, {}",
            path.display(),
            count(errors, "error"),
            count(warnings, "warning")
        ),
    }
}
