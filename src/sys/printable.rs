//! Escapes control characters in names and paths that are printed to a terminal or a log.
//!
//! A user who can create a job can give it any name, also one that sends commands to a terminal or breaks a line. Output for
//! programs (`--json`) is not escaped.

use std::borrow::Cow;

/// Returns the text as a part of one line: control characters, and characters that end a line or change its direction, are
/// escaped as in Rust (`\n`, `\u{1b}`).
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match acts(character) {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// Whether a character acts on the terminal or the line.
fn acts(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_on_its_line_and_sends_no_commands_to_the_terminal() {
        assert_eq!(printable("a/ä b\\'c"), "a/ä b\\'c");
        assert_eq!(printable("a\n\x1b[2J\tb"), "a\\n\\u{1b}[2J\\tb");
        assert_eq!(printable("\u{9b}1m\u{202e}x"), "\\u{9b}1m\\u{202e}x");
    }
}
