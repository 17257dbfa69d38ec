//! Tables for standard output.

use comfy_table::{Table, presets};

/// A table with no lines in it, and these titles.
pub(super) fn plain(titles: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(titles.to_vec());
    // Columns are set apart by two spaces, and lines begin at the margin.
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// A table as text, without spaces at the ends of its lines.
pub(super) fn text(table: &Table) -> String {
    table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}
