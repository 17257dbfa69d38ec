//! Dialogs over a tab: confirmations, choices, results, help.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Block, Borders, Clear, Widget};
use unicode_width::UnicodeWidthStr;

use super::theme::{Theme, cut, safe, wrapped};

/// The widest dialog.
const WIDTH_MAX: u16 = 100;

/// In a smaller area, a dialog takes all of it.
const ROOMY: (u16, u16) = (60, 16);

/// Stands behind the keys while there is more text than shows.
const MORE: &str = "  (more below)";

/// The keys of a question of which a part has not shown yet.
const UNREAD: &str = "Space shows the rest, n or Esc does not";

/// A dialog.
#[derive(Debug, Default)]
pub(super) struct Dialog {
    title: String,
    lines: Vec<String>,
    /// The keys that answer it, in words.
    hint: String,
    /// Whether it can be answered with yes.
    asks: bool,
    /// Yes is another key than usual.
    forced: bool,
    /// The lines from here on can be chosen.
    choices: Option<usize>,
    chosen: usize,
    scroll: usize,
    height: usize,
    shown: usize,
    /// Whether all of the text has shown. Only then it can be answered with yes.
    read: bool,
    /// Whether the question and the keys show.
    fits: bool,
}

/// How a dialog was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DialogAnswer {
    Yes,
    No,
    /// The choice with this number.
    Chosen(usize),
}

impl Dialog {
    /// Shows lines.
    pub(super) fn text(title: impl Into<String>, lines: Vec<String>) -> Dialog {
        Dialog {
            title: title.into(),
            lines,
            hint: "Esc closes".to_owned(),
            ..Dialog::default()
        }
    }

    /// Shows that something takes time.
    pub(super) fn wait(title: impl Into<String>, lines: Vec<String>) -> Dialog {
        Dialog {
            hint: "Esc cancels".to_owned(),
            ..Dialog::text(title, lines)
        }
    }

    /// Asks whether to do something; the first line is the question, which always shows. With `reasons` against it, the key for yes is another one, which is not pressed by habit.
    pub(super) fn confirm(
        title: impl Into<String>,
        mut lines: Vec<String>,
        reasons: &[String],
    ) -> Dialog {
        if !reasons.is_empty() {
            lines.push(String::new());
            lines.extend(reasons.iter().map(|reason| format!("WARNING: {reason}")));
        }
        let forced = !reasons.is_empty();
        let hint = match forced {
            true => "F does it all the same, n or Esc does not",
            false => "y does it, n or Esc does not",
        };
        Dialog {
            title: title.into(),
            lines,
            hint: hint.to_owned(),
            asks: true,
            forced,
            ..Dialog::default()
        }
    }

    /// Lets one of several be chosen.
    pub(super) fn choose(
        title: impl Into<String>,
        mut lines: Vec<String>,
        choices: Vec<String>,
    ) -> Dialog {
        let first = lines.len();
        lines.extend(choices);
        Dialog {
            title: title.into(),
            lines,
            hint: "Enter chooses, Esc does not".to_owned(),
            choices: Some(first),
            ..Dialog::default()
        }
    }

    /// Reacts to a key; returns the answer, if it is one.
    pub(super) fn key(&mut self, key: KeyEvent) -> Option<DialogAnswer> {
        let plain = !key.modifiers.contains(KeyModifiers::CONTROL);
        let yes = if self.forced { 'F' } else { 'y' };
        match key.code {
            KeyCode::Esc | KeyCode::Char('q' | 'n') if plain => return Some(DialogAnswer::No),
            KeyCode::Char(letter) if self.asks && plain && letter == yes => {
                return (self.read && self.fits).then_some(DialogAnswer::Yes);
            }
            KeyCode::Enter => {
                if self.choices.is_some() {
                    return Some(DialogAnswer::Chosen(self.chosen));
                }
                // Not yes: what has been typed before the dialog came up must not answer it.
                if !self.asks {
                    return Some(DialogAnswer::No);
                }
            }
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(self.height),
            KeyCode::PageDown | KeyCode::Char(' ') => self.scroll += self.height,
            KeyCode::Home | KeyCode::Char('g') => self.scroll = 0,
            KeyCode::End | KeyCode::Char('G') => self.scroll = self.shown,
            _ => {}
        }
        None
    }

    fn step(&mut self, by: isize) {
        match self.choices {
            Some(first) => {
                let last = self.lines.len().saturating_sub(first + 1);
                self.chosen = self.chosen.saturating_add_signed(by).min(last);
            }
            None => self.scroll = self.scroll.saturating_add_signed(by),
        }
    }

    /// Draws it in the middle of an area.
    pub(super) fn draw(&mut self, buffer: &mut Buffer, area: Rect, theme: Theme) {
        let margin = |size: u16, roomy: u16| if size < roomy { 0 } else { 2 };
        let most_width = (area.width - 2 * margin(area.width, ROOMY.0)).min(WIDTH_MAX);
        let most_height = area.height - margin(area.height, ROOMY.1);
        let inner = usize::from(most_width.saturating_sub(4)).max(1);
        let mut lines = self.wrapped(inner);
        let question: Vec<_> = lines.drain(..self.question(inner)).collect();
        // The frame, and a line before the keys where there is room for it.
        let frame = if most_height < ROOMY.1 - 2 { 2 } else { 3 };
        let room = |keys| usize::from(most_height).saturating_sub(frame + question.len() + keys);
        let rows = |keys: String| wrapped(&keys, inner).len();
        let mut key_rows = rows(self.hint.clone());
        if lines.len() > room(key_rows) {
            // As many in any case: the text does not jump at its end.
            let all = [self.hint.as_str(), UNREAD].map(|keys| rows(format!("{keys}{MORE}")));
            key_rows = all.into_iter().max().unwrap_or(1);
        }
        let room = room(key_rows);
        self.fits = room >= lines.len().min(1) && inner >= MORE.len();
        if !self.fits {
            return refuse(buffer, area, self.asks);
        }
        self.height = lines.len().min(room);
        self.shown = lines.len();
        if let Some(at) = lines.iter().position(|(_, is_chosen)| *is_chosen) {
            // The choice stays on the screen.
            self.scroll = self.scroll.clamp((at + 1).saturating_sub(self.height), at);
        }
        self.scroll = self.scroll.min(lines.len() - self.height);
        let is_more = self.scroll + self.height < lines.len();
        self.read |= !is_more;
        let keys = match self.asks && !self.read {
            true => UNREAD,
            false => self.hint.as_str(),
        };
        let more = if is_more { MORE } else { "" };
        let mut keys = wrapped(&format!("{keys}{more}"), inner);
        keys.resize(key_rows, String::new());

        let texts = question.iter().chain(&lines).map(|(text, _)| text);
        let widest = texts.chain(&keys).map(|text| text.width()).max();
        let widest = widest.unwrap_or(0).max(self.title.width() + 2);
        let shown = lines.iter().skip(self.scroll).take(self.height);
        let shown: Vec<_> = question.iter().chain(shown).collect();
        let width = u16::try_from(widest + 4).map_or(most_width, |it| it.min(most_width));
        let height = u16::try_from(frame + shown.len() + key_rows).unwrap_or(most_height);
        let place = Rect::new(
            area.x + (area.width - width) / 2,
            area.y + (area.height - height) / 2,
            width,
            height,
        );
        Clear.render(place, buffer);
        let title = format!(" {} ", safe(&self.title));
        Block::new()
            .borders(Borders::ALL)
            .border_set(theme.border())
            .title(cut(&title, usize::from(width.saturating_sub(2))).into_owned())
            .render(place, buffer);
        for ((text, is_chosen), y) in shown.into_iter().zip(place.y + 1..) {
            let style = match is_chosen {
                true => theme.selected(),
                false => Style::default(),
            };
            buffer.set_stringn(place.x + 2, y, text, inner, style);
        }
        for (text, y) in keys.iter().rev().zip((place.y..place.y + height - 1).rev()) {
            buffer.set_stringn(place.x + 2, y, text, inner, theme.title());
        }
    }

    /// The text in lines of a width, and which of them is the choice.
    fn wrapped(&self, width: usize) -> Vec<(String, bool)> {
        let mut lines = Vec::new();
        for (index, text) in self.lines.iter().enumerate() {
            let is_chosen = self
                .choices
                .is_some_and(|first| index == first + self.chosen);
            let sign = match (self.choices, is_chosen) {
                (Some(first), true) if index >= first => "> ",
                (Some(first), false) if index >= first => "  ",
                _ => "",
            };
            for part in wrapped(&format!("{sign}{}", safe(text)), width) {
                lines.push((part, is_chosen));
            }
        }
        lines
    }

    /// How many lines of a width the question has, which stays while the rest is scrolled.
    fn question(&self, width: usize) -> usize {
        let question = self.lines.first().filter(|_| self.asks);
        question.map_or(0, |text| wrapped(&safe(text), width).len())
    }
}

/// Says that a dialog does not fit, in an area of any size.
fn refuse(buffer: &mut Buffer, area: Rect, asks: bool) {
    Clear.render(area, buffer);
    let text = match asks {
        true => "too small to ask: make the terminal larger; Esc does not do it",
        false => "too small: make the terminal larger; Esc closes",
    };
    let width = usize::from(area.width);
    for (line, y) in wrapped(text, width).iter().zip(area.y..area.bottom()) {
        buffer.set_stringn(area.x, y, line, width, Style::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Dialog {
        let lines = [
            "Delete 12 jobs EVERYWHERE (9.82 GiB):",
            "  12 jobs in primary: /scratch/experiments/nlp",
            "  12 jobs in backup: /slow/backup/nlp",
            "They go to the trash, and can be brought back for 7 days.",
        ];
        let reasons = ["the workspace has no experiments".to_owned()];
        let lines = lines.map(str::to_owned).to_vec();
        Dialog::confirm("deleting 12 jobs", lines, &reasons)
    }

    fn drawn(dialog: &mut Dialog, width: u16, height: u16) -> String {
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        dialog.draw(&mut buffer, area, Theme::of_terminal());
        let rows = buffer.content.chunks(usize::from(width));
        let rows = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
        let rows: Vec<String> = rows.collect();
        // As words, without the frame.
        let text = rows.join(" ").replace(['│', '|'], " ");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn press(dialog: &mut Dialog, key: char) -> Option<DialogAnswer> {
        dialog.key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE))
    }

    #[test]
    fn a_question_that_fits_is_answered_at_once() {
        let mut dialog = question();
        let screen = drawn(&mut dialog, 80, 24);
        assert!(!screen.contains("more below"), "{screen}");
        assert_eq!(press(&mut dialog, 'y'), None);
        assert_eq!(press(&mut dialog, 'F'), Some(DialogAnswer::Yes));
    }

    #[test]
    fn a_question_in_a_small_terminal_keeps_what_is_asked_and_is_read_to_its_end_before_yes() {
        for (width, height) in [(30, 8), (80, 8), (24, 11), (200, 7)] {
            let mut dialog = question();
            let first = drawn(&mut dialog, width, height);
            assert!(first.contains("Space shows the rest"), "{first}");
            for _ in 0..30 {
                let screen = drawn(&mut dialog, width, height);
                let asked = "Delete 12 jobs EVERYWHERE (9.82 GiB):";
                assert!(screen.contains(asked), "{width} x {height}: {screen}");
                assert!(screen.contains("n or Esc does not"), "{screen}");
                if screen.contains("F does it all the same") {
                    assert!(screen.contains("experiments"), "{screen}");
                    break;
                }
                assert!(screen.contains("more below"), "{screen}");
                assert_eq!(press(&mut dialog, 'F'), None);
                press(&mut dialog, ' ');
            }
            assert_eq!(press(&mut dialog, 'F'), Some(DialogAnswer::Yes));
        }
    }

    #[test]
    fn a_question_that_does_not_fit_is_not_answered_with_yes() {
        for (width, height) in [(20, 6), (30, 6), (5, 3), (1, 1)] {
            let mut dialog = question();
            drawn(&mut dialog, 80, 24);
            let screen = drawn(&mut dialog, width, height);
            if width >= 20 {
                assert!(screen.contains("make the terminal larger"), "{screen}");
            }
            assert_eq!(press(&mut dialog, 'F'), None);
            assert_eq!(press(&mut dialog, 'n'), Some(DialogAnswer::No));
        }
    }
}
