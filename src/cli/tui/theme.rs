//! Colours and signs, by what the terminal can show.

use std::borrow::Cow;

use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::border;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::cli::style::{Colours, Tone};
use crate::sys::printable::printable;

/// What the terminal can show.
#[derive(Debug, Clone, Copy)]
pub(super) struct Theme {
    colours: bool,
    /// Whether it shows more than ASCII.
    unicode: bool,
}

impl Theme {
    /// By the environment.
    pub(super) fn of_terminal() -> Theme {
        // As setlocale(3): the first that is set.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter();
        let mut locale = locale.filter_map(|name| std::env::var(name).ok());
        let locale = locale.find(|value| !value.is_empty()).unwrap_or_default();
        let locale = locale.to_lowercase();
        Theme {
            colours: Colours::of_stdout() != Colours::NONE,
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }

    /// The style of a tone: dark colours of the terminal's own palette, which are legible on a light background, too.
    pub(super) fn style(self, tone: Tone) -> Style {
        let style = Style::default();
        match (tone, self.colours) {
            (Tone::Plain, _) => style,
            (Tone::Good, true) => style.fg(Color::Green),
            (Tone::Good, false) => style,
            (Tone::Warning, true) => style.fg(Color::Yellow).add_modifier(Modifier::BOLD),
            (Tone::Bad, true) => style.fg(Color::Red).add_modifier(Modifier::BOLD),
            (Tone::Warning | Tone::Bad, false) => style.add_modifier(Modifier::BOLD),
        }
    }

    /// The style of titles.
    pub(super) fn title(self) -> Style {
        Style::default().add_modifier(Modifier::BOLD)
    }

    /// The style of titles of columns.
    pub(super) fn header(self) -> Style {
        Style::default().add_modifier(Modifier::UNDERLINED)
    }

    /// The style of what is selected.
    pub(super) fn selected(self) -> Style {
        Style::default().add_modifier(Modifier::REVERSED)
    }

    /// What marks something that was found right.
    pub(super) fn ok(self) -> &'static str {
        match self.unicode {
            true => "✓",
            false => "ok",
        }
    }

    /// The signs for the column by which a list is sorted.
    pub(super) fn order(self, reversed: bool) -> &'static str {
        match (self.unicode, reversed) {
            (true, false) => "▼",
            (true, true) => "▲",
            (false, false) => "v",
            (false, true) => "^",
        }
    }

    /// Between two parts of a line.
    pub(super) fn separator(self) -> &'static str {
        match self.unicode {
            true => " · ",
            false => " | ",
        }
    }

    /// The frame of a dialog.
    pub(super) fn border(self) -> border::Set<'static> {
        match self.unicode {
            true => border::PLAIN,
            false => border::Set {
                top_left: "+",
                top_right: "+",
                bottom_left: "+",
                bottom_right: "+",
                vertical_left: "|",
                vertical_right: "|",
                horizontal_top: "-",
                horizontal_bottom: "-",
            },
        }
    }

    /// A bar of this width that is full by a share.
    pub(super) fn bar(self, share: f64, width: usize) -> String {
        let share = if share.is_finite() {
            share.clamp(0.0, 1.0)
        } else {
            0.0
        };
        let full = (share * width as f64).round() as usize;
        let (one, other) = match self.unicode {
            true => ("█", "░"),
            false => ("#", "."),
        };
        one.repeat(full) + &other.repeat(width.saturating_sub(full))
    }
}

/// A text without characters that act on a terminal.
pub(super) fn safe(text: &str) -> Cow<'_, str> {
    // A tab would move the cursor.
    match text.contains('\t') {
        true => Cow::Owned(printable(&text.replace('\t', "    ")).into_owned()),
        false => printable(text),
    }
}

/// The start of a text that is this wide at most; what is left out is marked.
pub(super) fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    let mut shown = 0;
    let mut end = 0;
    for (at, letter) in text.char_indices() {
        let wide = letter.width().unwrap_or(0);
        if shown + wide + 1 > width {
            break;
        }
        shown += wide;
        end = at + letter.len_utf8();
    }
    let start = text.get(..end).unwrap_or_default();
    match width {
        0 => Cow::Borrowed(""),
        _ => Cow::Owned(format!("{start}~")),
    }
}

/// Lines of this width at most, broken at spaces where there are some, all as far from the left as the text.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let inner = text.trim_start_matches(' ');
    let indent = (text.len() - inner.len()).min(width / 2);
    let width = (width - indent).max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in inner.split(' ') {
        let mut word = word.to_owned();
        if line.width() + usize::from(!line.is_empty()) + word.width() > width && !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        // A word that is longer than a line.
        while word.width() > width {
            let mut end = 0;
            let mut shown = 0;
            for letter in word.chars() {
                shown += letter.width().unwrap_or(0);
                if shown > width && end > 0 {
                    break;
                }
                end += letter.len_utf8();
            }
            let rest = word.split_off(end);
            lines.push(std::mem::replace(&mut word, rest));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    lines.push(line);
    let indent = " ".repeat(indent);
    lines.iter().map(|line| format!("{indent}{line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab~");
        assert_eq!(cut("日本語", 4), "日~");
        assert_eq!(cut("日本語", 5), "日本~");
        assert_eq!(cut("x", 0), "");
    }

    #[test]
    fn lines_are_broken_at_spaces_and_long_words_anywhere() {
        assert_eq!(wrapped("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrapped("abcdefgh i", 3), ["abc", "def", "gh", "i"]);
        assert_eq!(wrapped("", 3), [""]);
        assert_eq!(wrapped("  a bc", 4), ["  a", "  bc"]);
        assert_eq!(wrapped("日本語", 2), ["日", "本", "語"]);
    }

    #[test]
    fn a_bar_is_as_full_as_its_share() {
        let theme = Theme {
            colours: false,
            unicode: false,
        };
        assert_eq!(theme.bar(0.5, 4), "##..");
        assert_eq!(theme.bar(7.0, 4), "####");
        assert_eq!(theme.bar(f64::NAN, 2), "..");
    }
}
