//! Errors of the command line for which the parser's own advice is missing or misleading.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Options that select a workspace: each command has them, and no group of commands.
const SELECTING: [&str; 5] = ["-w", "--workspace", "--workdir", "-x", "--experiment"];

/// Replaces the advice about an unknown option, where a better one is known.
#[must_use]
pub fn explained(mut error: Error) -> Error {
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(tip) = tip(&error)
    {
        let tips = ContextValue::StyledStrs(vec![StyledStr::from(tip)]);
        error.insert(ContextKind::Suggested, tips);
    }
    error
}

fn tip(error: &Error) -> Option<String> {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let usage = error.get(ContextKind::Usage).map(ToString::to_string);
    let usage = usage.unwrap_or_default();
    match option.as_str() {
        // The parser takes the option for a value.
        "--json" => Some(
            "this command prints no listing, and has no JSON form: see `xpmfs jobs where --json`"
                .to_owned(),
        ),
        option if SELECTING.contains(&option) && usage.contains("<COMMAND>") => Some(format!(
            "{option} comes after the command: `xpmfs jobs list {option} …`"
        )),
        "--all" if usage.contains("[JOB]") => Some("the glob '*' names all jobs".to_owned()),
        _ => None,
    }
}
