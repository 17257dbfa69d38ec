//! A list with columns, of which only the rows that show are made.

use std::ops::Range;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use unicode_width::UnicodeWidthStr;

use super::theme::{Theme, cut, safe};
use crate::cli::style::Tone;

/// A column.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListColumn {
    pub(super) title: &'static str,
    /// Its width; 0: what the others leave.
    pub(super) width: u16,
    /// Numbers are aligned at their ends.
    pub(super) to_right: bool,
}

impl ListColumn {
    pub(super) const fn text(title: &'static str, width: u16) -> ListColumn {
        ListColumn {
            title,
            width,
            to_right: false,
        }
    }

    pub(super) const fn number(title: &'static str, width: u16) -> ListColumn {
        ListColumn {
            title,
            width,
            to_right: true,
        }
    }

    /// The column that gets what the others leave.
    pub(super) const fn rest(title: &'static str) -> ListColumn {
        ListColumn::text(title, 0)
    }
}

/// The cells of a row.
pub(super) type Cells = Vec<(String, Tone)>;

/// What a click hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hit {
    /// The title of a column.
    Title(usize),
    /// A row that was not selected, and is now.
    Row,
    /// The row that was selected.
    Selected,
}

/// Which part of a list shows, and which row is selected.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) selected: usize,
    offset: usize,
    rows: usize,
    area: Rect,
    titles: Vec<Range<u16>>,
}

impl List {
    /// The rows that show.
    pub(super) fn visible(&self, length: usize) -> Range<usize> {
        self.offset.min(length)..(self.offset + self.rows.max(1)).min(length)
    }

    /// Moves by a key. Returns whether it was one for that.
    pub(super) fn key(&mut self, key: KeyEvent, length: usize) -> bool {
        let page = self.rows.max(2) - 1;
        let plain = key.modifiers.difference(KeyModifiers::SHIFT).is_empty();
        let (at, last) = (self.selected, length.saturating_sub(1));
        self.selected = match key.code {
            KeyCode::Up => at.saturating_sub(1),
            KeyCode::Down => at + 1,
            KeyCode::Char('k') if plain => at.saturating_sub(1),
            KeyCode::Char('j') if plain => at + 1,
            KeyCode::PageUp => at.saturating_sub(page),
            KeyCode::PageDown => at + page,
            KeyCode::Home => 0,
            KeyCode::Char('g') if plain => 0,
            KeyCode::End => last,
            KeyCode::Char('G') if plain => last,
            _ => return false,
        }
        .min(last);
        true
    }

    /// Moves by the mouse.
    pub(super) fn mouse(&mut self, mouse: MouseEvent, length: usize) -> Option<Hit> {
        let at = Position::new(mouse.column, mouse.row);
        if !self.area.contains(at) {
            return None;
        }
        let last = length.saturating_sub(1);
        match mouse.kind {
            MouseEventKind::ScrollUp => self.selected = self.selected.saturating_sub(3),
            MouseEventKind::ScrollDown => self.selected = (self.selected + 3).min(last),
            MouseEventKind::Down(MouseButton::Left) if at.y == self.area.y => {
                let title = self.titles.iter().position(|title| title.contains(&at.x));
                return title.map(Hit::Title);
            }
            MouseEventKind::Down(MouseButton::Left) => {
                let row = self.offset + usize::from(at.y - self.area.y - 1);
                if row < length {
                    let before = std::mem::replace(&mut self.selected, row);
                    return Some(if before == row {
                        Hit::Selected
                    } else {
                        Hit::Row
                    });
                }
            }
            _ => {}
        }
        None
    }

    /// Draws the titles and the rows that show. `sorted`: the column that decides the order, and whether it is reversed.
    pub(super) fn draw(
        &mut self,
        (buffer, area, theme): (&mut Buffer, Rect, Theme),
        columns: &[ListColumn],
        sorted: Option<(usize, bool)>,
        length: usize,
        mut row: impl FnMut(usize) -> (Cells, bool),
    ) {
        self.area = area;
        self.rows = usize::from(area.height.saturating_sub(1));
        self.selected = self.selected.min(length.saturating_sub(1));
        self.offset = self.offset.min(self.selected);
        if self.rows > 0 && self.selected >= self.offset + self.rows {
            self.offset = self.selected + 1 - self.rows;
        }
        // Rows that were removed leave no gap at the end.
        self.offset = self.offset.min(length.saturating_sub(self.rows));
        if area.height == 0 || area.width < 4 {
            return;
        }
        self.titles = places(columns, area);
        for (index, (column, place)) in columns.iter().zip(&self.titles).enumerate() {
            let title = match sorted {
                Some((at, reversed)) if at == index => {
                    format!("{}{}", column.title, theme.order(reversed))
                }
                _ => column.title.to_owned(),
            };
            put(
                buffer,
                (place, area.y),
                &title,
                column.to_right,
                theme.header(),
            );
        }
        let lines = area.y + 1..area.y + area.height;
        for (index, y) in self.visible(length).zip(lines) {
            let (cells, is_marked) = row(index);
            let is_selected = index == self.selected;
            let sign = match (is_selected, is_marked) {
                (true, true) => "#",
                (true, false) => ">",
                (false, true) => "*",
                (false, false) => " ",
            };
            buffer.set_string(area.x, y, sign, theme.title());
            for ((column, place), (text, tone)) in columns.iter().zip(&self.titles).zip(&cells) {
                put(
                    buffer,
                    (place, y),
                    text,
                    column.to_right,
                    theme.style(*tone),
                );
            }
            if is_selected {
                buffer.set_style(Rect::new(area.x, y, area.width, 1), theme.selected());
            }
        }
    }
}

/// Where the columns are: after two cells for the signs, with a cell between them. A column that does not fit is not shown.
fn places(columns: &[ListColumn], area: Rect) -> Vec<Range<u16>> {
    let start = area.x + 2;
    let room = area.width.saturating_sub(2);
    let fixed: u16 = columns.iter().map(|column| column.width + 1).sum();
    let rest = room.saturating_sub(fixed.saturating_sub(1)).max(8);
    let mut places = Vec::with_capacity(columns.len());
    let (mut x, end) = (start, start + room);
    for column in columns {
        let width = if column.width == 0 {
            rest
        } else {
            column.width
        };
        let next = x.saturating_add(width).min(end);
        places.push(x.min(end)..next);
        x = next.saturating_add(1);
    }
    places
}

fn put(
    buffer: &mut Buffer,
    (place, y): (&Range<u16>, u16),
    text: &str,
    to_right: bool,
    style: ratatui::style::Style,
) {
    let width = usize::from(place.end.saturating_sub(place.start));
    let text = safe(text);
    let text = cut(&text, width);
    let shift = match to_right {
        true => width.saturating_sub(text.width()),
        false => 0,
    };
    let shift = u16::try_from(shift).unwrap_or(0);
    if width > 0 {
        buffer.set_stringn(place.start + shift, y, &text, width, style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    #[test]
    fn the_selection_stays_in_the_list_and_shows() {
        let mut list = List::default();
        let area = Rect::new(0, 0, 20, 6);
        let theme = Theme::of_terminal();
        let columns = [ListColumn::rest("A")];
        let draw = |list: &mut List, length| {
            let mut buffer = Buffer::empty(area);
            let row = |index: usize| (vec![(index.to_string(), Tone::Plain)], false);
            list.draw((&mut buffer, area, theme), &columns, None, length, row);
        };
        draw(&mut list, 100);
        assert!(list.key(key(KeyCode::End), 100));
        draw(&mut list, 100);
        assert_eq!((list.selected, list.visible(100)), (99, 95..100));
        // Most rows are gone.
        draw(&mut list, 7);
        assert_eq!((list.selected, list.visible(7)), (6, 2..7));
        draw(&mut list, 0);
        assert!(list.key(key(KeyCode::Down), 0));
        assert_eq!((list.selected, list.visible(0)), (0, 0..0));
    }
}
