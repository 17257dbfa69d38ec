//! `xpmfs status`: mounts, folders and archiving. [`gather()`] asks for it; [`text`]: for a person; [`archive`] and [`experiments`]: the part about archiving; [`mod@json`]: for
//! programs; [`check`]: whether anything is wrong; [`recorded`]: what `verify` recorded in a workspace that is not mounted.

pub(super) mod archive;
mod check;
mod experiments;
pub(super) mod gather;
pub(super) mod json;
mod recorded;
pub(super) mod text;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

pub use self::gather::Arguments;
use self::gather::{Status, gather};
use super::style::Colours;
use super::{Global, print};

/// The time between updates of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Prints mounts and folders, and workspaces of the settings that are not mounted.
///
/// # Errors
///
/// The settings or the table of mounts cannot be read, or the mount or workspace that was named does not exist.
pub fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    if arguments.watch {
        watch(arguments, global)?;
    }
    let status = gather(arguments, global)?;
    if global.json {
        print::json(&json::json(&status)?)?;
    } else {
        print::text(&status.text(Colours::of_stdout()))?;
    }
    if !arguments.check {
        return Ok(ExitCode::SUCCESS);
    }
    let problems = check::problems(&status);
    for problem in &problems {
        print::line(problem);
    }
    Ok(match problems.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Shows the status again and again; as JSON, one line each time.
///
/// # Errors
///
/// The mount or workspace that was named does not exist any more, or the output is no longer read.
fn watch(arguments: &Arguments, global: &Global) -> anyhow::Result<()> {
    let screen = std::io::stdout().is_terminal();
    loop {
        let status: Status = gather(arguments, global)?;
        if global.json {
            print::text(&format!(
                "{}\n",
                serde_json::to_string(&json::json(&status)?)?
            ))?;
        } else {
            let text = status.text(Colours::of_stdout());
            // On a screen, each update overwrites the last one and clears the rest; in a file, they follow each other.
            let lines = text.lines().map(|line| match screen {
                true => format!("{line}\x1b[K\n"),
                false => format!("{line}\n"),
            });
            let lines: String = lines.collect();
            print::text(&match screen {
                true => format!("\x1b[H{lines}\x1b[J"),
                false => format!("{lines}\n"),
            })?;
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}
