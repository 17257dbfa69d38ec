//! `xpmfs status`: mounts, folders and archiving. [`gather()`] asks for it; [`text`]: for a person; [`archive`] and [`experiments`]: the part about archiving; [`mod@json`]: for
//! programs; [`check`]: whether anything is wrong; [`recorded`]: what `verify` recorded in a workspace that is not mounted;
//! [`watch`]: repeats it.

pub(super) mod archive;
mod check;
mod experiments;
pub(super) mod gather;
pub(super) mod json;
mod recorded;
pub(super) mod text;
mod watch;

use std::process::ExitCode;

pub use self::gather::Arguments;
use self::gather::gather;
use super::style::Colours;
use super::{Global, print};

/// Prints mounts and folders, and workspaces of the settings that are not mounted.
///
/// # Errors
///
/// The settings or the table of mounts cannot be read, or the mount or workspace that was named does not exist.
pub fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    if arguments.watch {
        watch::watch(arguments, global)?;
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
