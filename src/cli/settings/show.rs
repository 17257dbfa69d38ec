//! `xpmfs settings show`: the settings in effect.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::{Global, print};
use crate::settings::{Environment, Selection, Settings, effective};
use crate::sys::printable::printable;

/// Prints them; with `only`, of the workspaces that one alone.
///
/// # Errors
///
/// The settings cannot be read, or have no such workspace.
pub(super) fn run(
    path: &Path,
    (only, secrets): (Option<&str>, bool),
    global: &Global,
    environment: &Environment,
) -> anyhow::Result<ExitCode> {
    let settings = Settings::load_in(Some(path), environment)?;
    if let Some(id) = only {
        // An unknown one is an error that lists those there are.
        settings.select(&Selection {
            workspace: Some(id.to_owned()),
            ..Selection::default()
        })?;
    }
    let entry = effective(&settings, environment, only, secrets)?;
    let exists = path.is_file();
    if global.json {
        let origins = entry.origins().into_iter().map(|(key, origin)| {
            json!({"key": key, "line": origin.line, "written": origin.written, "note": origin.note})
        });
        print::json(&json!({
            "path": path.to_string_lossy(),
            "exists": exists,
            "settings": entry.to_json(),
            "origins": origins.collect::<Vec<Value>>(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !exists && !global.quiet {
        print::line(&format!(
            "{} does not exist: every value is the default",
            path.display()
        ));
    }
    let file = path.to_string_lossy();
    print::text(&format!("# {}\n{}", printable(&file), entry.to_yaml()))?;
    Ok(ExitCode::SUCCESS)
}
