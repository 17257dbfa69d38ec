//! Names of others in lines for people: what would act on a terminal, or make one line two, is written out.
//!
//! Whoever may make a job may give it any name. All that goes to a terminal or into a log goes through here, but for what
//! programs read (`--json`).

use std::borrow::Cow;

/// A text as a part of one line: control characters, and those that end a line or turn its direction, are escaped as in
/// Rust (`\n`, `\u{1b}`). All else is as it was.
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

/// Whether a character does something else than to stand there.
fn acts(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_on_its_line_and_does_nothing_to_the_terminal() {
        assert_eq!(printable("a/ä b\\'c"), "a/ä b\\'c");
        assert_eq!(printable("a\n\x1b[2J\tb"), "a\\n\\u{1b}[2J\\tb");
        assert_eq!(printable("\u{9b}1m\u{202e}x"), "\\u{9b}1m\\u{202e}x");
    }
}
