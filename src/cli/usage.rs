//! Errors of the command line for which the parser's own advice is misleading.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Replaces the advice where `--json` was given to a command that prints no listing: the parser takes the option for a value.
#[must_use]
pub fn explained(mut error: Error) -> Error {
    let argument = error.get(ContextKind::InvalidArg);
    let is_json = matches!(argument, Some(ContextValue::String(name)) if name == "--json");
    if error.kind() == ErrorKind::UnknownArgument && is_json {
        let tip =
            "this command prints no listing, and has no JSON form: see `xpmfs jobs where --json`";
        let tips = ContextValue::StyledStrs(vec![StyledStr::from(tip)]);
        error.insert(ContextKind::Suggested, tips);
    }
    error
}
