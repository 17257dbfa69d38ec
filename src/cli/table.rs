//! Tables for standard output.

use comfy_table::{Table, presets};

use crate::sys::printable::printable;

/// A table without borders, with these titles.
pub(super) fn plain(titles: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(titles.to_vec());
    // Two spaces between columns, none before the first.
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Adds a row; control characters in names are escaped.
pub(super) fn row<'a>(table: &mut Table, cells: impl IntoIterator<Item = &'a str>) {
    table.add_row(cells.into_iter().map(printable));
}

/// A table as text, without spaces at the ends of its lines.
pub(super) fn text(table: &Table) -> String {
    table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}
