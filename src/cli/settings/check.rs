//! `xpmfs settings check`: every mistake in the settings file.

use std::path::Path;
use std::process::ExitCode;

use crate::cli::{Global, print};
use crate::settings::{self, Environment, Finding, Severity};

/// Prints them.
///
/// # Errors
///
/// The file cannot be read.
pub(super) fn run(
    path: &Path,
    global: &Global,
    environment: &Environment,
) -> anyhow::Result<ExitCode> {
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
pub(super) fn described(path: &Path, finding: &Finding) -> String {
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
