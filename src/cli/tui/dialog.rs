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

    /// Asks whether to do something. With `reasons` against it, the key for yes is another one, which is not pressed by habit.
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
                return Some(DialogAnswer::Yes);
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
        let most = area.width.saturating_sub(4).min(WIDTH_MAX);
        let inner = usize::from(most.saturating_sub(4)).max(1);
        let mut lines: Vec<(String, bool)> = Vec::new();
        for (index, text) in self.lines.iter().enumerate() {
            let is_chosen = self
                .choices
                .is_some_and(|first| index == first + self.chosen);
            let sign = match (self.choices, is_chosen) {
                (Some(first), true) if index >= first => "> ",
                (Some(first), false) if index >= first => "  ",
                _ => "",
            };
            for part in wrapped(&format!("{sign}{}", safe(text)), inner) {
                lines.push((part, is_chosen));
            }
        }
        let widest = lines.iter().map(|(line, _)| line.width()).max();
        let widest = widest
            .unwrap_or(0)
            .max(self.hint.width())
            .max(self.title.width() + 2);
        let width = u16::try_from(widest + 4).unwrap_or(most).min(most);
        let rows = u16::try_from(lines.len() + 4).unwrap_or(u16::MAX);
        let height = rows.min(area.height.saturating_sub(2)).max(5);
        if area.width < 10 || area.height < height {
            return;
        }
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
        self.height = usize::from(height - 4);
        self.shown = lines.len();
        if let Some(at) = lines.iter().position(|(_, is_chosen)| *is_chosen) {
            // The choice stays on the screen.
            self.scroll = self.scroll.clamp((at + 1).saturating_sub(self.height), at);
        }
        self.scroll = self.scroll.min(lines.len().saturating_sub(self.height));
        let shown = lines.iter().skip(self.scroll).take(self.height);
        for ((text, is_chosen), y) in shown.zip(place.y + 1..) {
            let style = match is_chosen {
                true => theme.selected(),
                false => Style::default(),
            };
            buffer.set_stringn(place.x + 2, y, text, usize::from(width - 4), style);
        }
        let more = match lines.len() > self.scroll + self.height {
            true => "  (more below)",
            false => "",
        };
        let hint = format!("{}{more}", self.hint);
        let y = place.y + height - 2;
        buffer.set_stringn(place.x + 2, y, hint, usize::from(width - 4), theme.title());
    }
}
