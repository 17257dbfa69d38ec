//! What commands give: text, or JSON, on standard output.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

/// Prints a text as it is.
///
/// # Errors
///
/// Standard output takes no more.
pub(super) fn text(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context("cannot write to standard output")
}

/// A path for a line of text: characters that would act on the terminal, or end the line, are escaped.
pub(super) fn path(path: &Path) -> String {
    let mut shown = String::new();
    for character in path.to_string_lossy().chars() {
        match character.is_control() {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_line_that_does_nothing_to_the_terminal() {
        assert_eq!(path(Path::new("a/ä b\\'c")), "a/ä b\\'c");
        assert_eq!(path(Path::new("a\n\x1b[2J\tb")), "a\\n\\u{1b}[2J\\tb");
    }
}
