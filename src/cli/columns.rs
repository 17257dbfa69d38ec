//! Long tables for standard output: a hundred thousand rows in a moment, cut to the width of the terminal.
//!
//! [`table`](super::table) is for short ones.

use std::borrow::Cow;

use terminal_size::{Width, terminal_size};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::style::{Colours, Tone};
use crate::sys::printable::printable;

/// Between two columns.
const GAP: &str = "  ";

/// How the cells of a column become narrower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// They keep their width.
    Whole,
    /// Their ends are cut, down to this width.
    Cut(usize),
}

/// How a column is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// Numbers are aligned at their ends.
    pub(super) to_right: bool,
    pub(super) fit: Fit,
}

impl Column {
    pub(super) fn text(title: &'static str) -> Column {
        Column {
            title,
            to_right: false,
            fit: Fit::Whole,
        }
    }

    pub(super) fn number(title: &'static str) -> Column {
        Column {
            to_right: true,
            ..Column::text(title)
        }
    }

    pub(super) fn cut(title: &'static str, least: usize) -> Column {
        Column {
            fit: Fit::Cut(least),
            ..Column::text(title)
        }
    }
}

/// A table.
#[derive(Debug)]
pub(super) struct Columns {
    columns: Vec<Column>,
    /// The cells, row by row, without characters that act on a terminal.
    cells: Vec<(String, Tone)>,
    widths: Vec<usize>,
}

impl Columns {
    pub(super) fn new(columns: Vec<Column>) -> Columns {
        let widths = columns.iter().map(|column| column.title.width()).collect();
        Columns {
            columns,
            cells: Vec::new(),
            widths,
        }
    }

    /// Adds a row, with a cell for each column; control characters in names are escaped.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = (String, Tone)>) {
        for ((text, tone), width) in cells.into_iter().zip(&mut self.widths) {
            let text = match is_plain(&text) {
                true => text,
                false => printable(&text).into_owned(),
            };
            *width = (*width).max(shown_width(&text));
            self.cells.push((text, tone));
        }
    }

    /// How wide the table is.
    pub(super) fn width(&self) -> usize {
        let gaps = GAP.len() * self.widths.len().saturating_sub(1);
        self.widths.iter().sum::<usize>() + gaps
    }

    /// The table as text: with the titles, without spaces at the ends of its lines, and cut to a width where its columns allow that.
    pub(super) fn text(&self, colours: Colours, width: Option<usize>) -> String {
        let widths = self.fitted(width);
        let mut text = String::with_capacity(self.cells.len() * 24);
        let titles = self.columns.iter();
        let titles = titles.map(|column| (Cow::Borrowed(column.title), Tone::Plain));
        self.line(&mut text, &widths, titles, colours);
        for row in self.cells.chunks(self.columns.len().max(1)) {
            let cells = row
                .iter()
                .map(|(text, tone)| (Cow::Borrowed(text.as_str()), *tone));
            self.line(&mut text, &widths, cells, colours);
        }
        text
    }

    fn line<'a>(
        &self,
        text: &mut String,
        widths: &[usize],
        cells: impl Iterator<Item = (Cow<'a, str>, Tone)>,
        colours: Colours,
    ) {
        let start = text.len();
        for ((cell, tone), (column, width)) in cells.zip(self.columns.iter().zip(widths)) {
            if text.len() > start {
                text.push_str(GAP);
            }
            let cell = cut(&cell, *width);
            let rest = std::iter::repeat_n(' ', width.saturating_sub(shown_width(&cell)));
            if column.to_right {
                text.extend(rest.clone());
            }
            match tone {
                // Escaped already.
                Tone::Plain => text.push_str(&cell),
                tone => text.push_str(&colours.paint(&cell, tone)),
            }
            if !column.to_right {
                text.extend(rest);
            }
        }
        text.truncate(text.trim_end_matches(' ').len().max(start));
        text.push('\n');
    }

    /// The widths of the columns, so that the table fits if that can be.
    fn fitted(&self, width: Option<usize>) -> Vec<usize> {
        let mut widths = self.widths.clone();
        let Some(excess) = width.and_then(|width| self.width().checked_sub(width)) else {
            return widths;
        };
        let mut excess = excess;
        // The last columns first: what identifies a row comes first in it.
        for (width, column) in widths.iter_mut().zip(&self.columns).rev() {
            let Fit::Cut(least) = column.fit else {
                continue;
            };
            let least = least.max(column.title.width());
            let less = excess.min(width.saturating_sub(least));
            *width -= less;
            excess -= less;
        }
        widths
    }
}

/// Whether a text has only characters that can be seen, each one column wide: most have.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// How many columns a text takes.
fn shown_width(text: &str) -> usize {
    match text.is_ascii() {
        true => text.len(),
        false => text.width(),
    }
}

/// A text that is at most so wide: with `…` in the place of what is cut.
fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if shown_width(text) <= width {
        return Cow::Borrowed(text);
    }
    let mut kept = String::new();
    let mut taken = 1;
    for character in text.chars() {
        taken += character.width().unwrap_or(0);
        if taken > width {
            break;
        }
        kept.push(character);
    }
    kept.push('…');
    Cow::Owned(kept)
}

/// The width of the terminal that standard output is; `None` if it is none.
pub(super) fn terminal_width() -> Option<usize> {
    use std::io::IsTerminal;

    if !std::io::stdout().is_terminal() {
        return None;
    }
    let (Width(width), _) = terminal_size()?;
    (width > 0).then_some(usize::from(width))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Columns {
        let mut columns = Columns::new(vec![
            Column::text("STATE"),
            Column::text("JOB"),
            Column::cut("TAGS", 6),
            Column::number("SIZE"),
            Column::cut("LOCATION", 9),
        ]);
        let mut row = |cells: [&str; 5]| {
            columns.row(cells.map(|cell| (cell.to_owned(), Tone::Plain)));
        };
        row(["done", "a/0", "model=bm25 lr=0.1", "5 B", "primary"]);
        row(["running", "a/1", "", "1.50 KiB", "backup:/slow/backup"]);
        row(["done", "a/\u{1b}2", "é=日本", "", ""]);
        columns
    }

    #[test]
    fn columns_are_aligned_and_nothing_acts_on_the_terminal() {
        let plain = Colours::never();
        let expected = "\
STATE    JOB        TAGS                   SIZE  LOCATION
done     a/0        model=bm25 lr=0.1       5 B  primary
running  a/1                           1.50 KiB  backup:/slow/backup
done     a/\\u{1b}2  é=日本
";
        assert_eq!(columns().text(plain, None), expected);
        assert_eq!(columns().text(plain, Some(500)), expected);
    }

    #[test]
    fn a_table_fits_the_terminal_if_it_can() {
        let table = columns();
        let expected = "\
STATE    JOB        TAGS            SIZE  LOCATION
done     a/0        model=bm2…       5 B  primary
running  a/1                    1.50 KiB  backup:/…
done     a/\\u{1b}2  é=日本
";
        assert_eq!(table.text(Colours::never(), Some(51)), expected);
        // What identifies a job is never cut.
        let least = table.text(Colours::never(), Some(10));
        assert!(least.contains("a/\\u{1b}2"), "{least}");
        assert_eq!(cut("日本語", 4), "日…");
    }
}
