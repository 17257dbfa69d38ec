//! Edits a line of text, such as a search.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextEdit {
    Changed,
    /// The text is as it is to be.
    Ended,
    /// The text is empty now, and not edited any more.
    Cancelled,
}

/// Changes a text by a key; `None` if it is none for that.
pub(super) fn edit(text: &mut String, key: KeyEvent) -> Option<TextEdit> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Enter => return Some(TextEdit::Ended),
        KeyCode::Esc => {
            text.clear();
            return Some(TextEdit::Cancelled);
        }
        KeyCode::Char('u') if control => text.clear(),
        KeyCode::Char(letter) if !control => text.push(letter),
        KeyCode::Backspace => {
            text.pop();
        }
        _ => return None,
    }
    Some(TextEdit::Changed)
}

/// Adds a text that was pasted.
pub(super) fn paste(text: &mut String, pasted: &str) {
    text.extend(pasted.chars().filter(|letter| !letter.is_control()));
}
