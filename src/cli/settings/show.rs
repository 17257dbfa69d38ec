//! `xpmfs settings show`: the settings in effect.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::{Global, print};
use crate::settings::{Environment, Settings, effective};
use crate::sys::printable::printable;

/// Prints them.
///
/// # Errors
///
/// The settings cannot be read.
pub(super) fn run(
    path: &Path,
    secrets: bool,
    global: &Global,
    environment: &Environment,
) -> anyhow::Result<ExitCode> {
    let settings = Settings::load_in(Some(path), environment)?;
    let entry = effective(&settings, environment, secrets)?;
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
