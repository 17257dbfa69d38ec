//! `xpmfs settings migrate`: rewrites `alt_workspaces` as `use` folders.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use similar::TextDiff;

use super::check::described;
use crate::cli::{Global, print};
use crate::settings::{Environment, migration, write_migration};
use crate::sys::printable::printable;

/// Prints the change, or makes it.
///
/// # Errors
///
/// The file cannot be read or written, or has mistakes.
pub(super) fn run(
    path: &Path,
    yes: bool,
    global: &Global,
    environment: &Environment,
) -> anyhow::Result<ExitCode> {
    let migration = migration(path, environment)?;
    let changes = migration.before != migration.after;
    let shown = path.display();
    let diff = TextDiff::from_lines(&migration.before, &migration.after)
        .unified_diff()
        .header(&format!("{shown}"), &format!("{shown} (migrated)"))
        .to_string();
    if yes && changes {
        write_migration(path, &migration)?;
    }
    if global.json {
        print::json(&json!({
            "path": path.to_string_lossy(),
            "written": yes && changes,
            "workspaces": migration.rewritten,
            "by_hand": migration.left,
            "diff": diff,
        }))?;
    } else {
        if !yes {
            let lines = diff.lines().map(|line| format!("{}\n", printable(line)));
            print::text(&lines.collect::<String>())?;
        }
        for finding in &migration.left {
            eprint!("{}", described(path, finding));
        }
    }
    if !global.quiet {
        let names = migration.rewritten.join(", ");
        print::line(&match (changes, yes) {
            (false, _) if migration.left.is_empty() => {
                format!("{shown} has no `alt_workspaces`: nothing to do")
            }
            (false, _) => format!("{shown}: unchanged"),
            (true, true) => format!("{shown}: rewrote the folders of {names}"),
            (true, false) => {
                format!("{shown}: this would rewrite the folders of {names}; add --yes to do it")
            }
        });
    }
    Ok(match migration.left.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
