//! Copies a text to the clipboard of the machine at which the person sits: the terminal does it (OSC 52), also over `ssh`.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::screen::is_gnu_screen;

/// The longest text: terminals ignore longer ones.
const LENGTH_MAX: usize = 70_000;

/// Asks the terminal to copy a text, and returns a message with the text: whether the terminal does that cannot be known.
pub(super) fn copy(text: &str) -> String {
    if text.len() > LENGTH_MAX {
        return format!("too long for a clipboard: {text}");
    }
    let mut out = io::stdout().lock();
    // Nothing else can be done if the terminal accepts no output.
    let _ = out.write_all(sequence(text, is_gnu_screen()).as_bytes());
    let _ = out.flush();
    format!("sent to the terminal's clipboard: {text}")
}

/// The escape sequence; GNU screen passes it on only in an envelope. tmux, which may be the terminal as well then, takes the escape in it for the
/// end of the envelope, and reads the sequence.
fn sequence(text: &str, in_screen: bool) -> String {
    let copied = format!("\x1b]52;c;{}\x07", STANDARD.encode(text));
    match in_screen {
        true => format!("\x1bP{copied}\x1b\\"),
        false => copied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_break_out_of_the_sequence() {
        let sequence = sequence("/a\x07\x1b]0;x", false);
        assert_eq!(sequence, "\x1b]52;c;L2EHG10wO3g=\x07");
    }
}
