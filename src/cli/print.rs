//! Prints: results on standard output, as text or JSON; messages on standard error.

use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;

use crate::sys::printable::printable;

/// Prints a text as it is.
///
/// # Errors
///
/// Standard output accepts no more.
pub(super) fn text(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context("cannot write to standard output")
}

/// Prints a message: one line on standard error, with control characters in names escaped.
pub(super) fn line(line: &str) {
    eprintln!("xpmfs: {}", printable(line));
}

/// Prints something as JSON, on lines of its own.
///
/// # Errors
///
/// As [`text`].
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut json = serde_json::to_string_pretty(value)?;
    json.push('\n');
    text(&json)
}
