//! The tabs of the dashboard of a workspace, a file each: it draws a part of the model, and turns keys into requests; `tab_bar` has them all;
//! `jobs_view` is how that of jobs looks, `folder_list` the list of folders.

pub(super) mod archive;
pub(super) mod experiments;
pub(super) mod folder_list;
pub(super) mod folders;
pub(super) mod jobs;
pub(super) mod jobs_view;
pub(super) mod orphans;
pub(super) mod tab_bar;
pub(super) mod trash;

use std::time::Instant;

use indicatif::HumanBytes;
use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::theme::{Theme, cut, safe};
use crate::cli::style;

/// Where a tab is drawn.
pub(super) type Canvas<'a> = (&'a mut Buffer, Rect);

/// After this time, a list that is being loaded says for how long.
const SLOW_LOAD_SECONDS: u64 = 2;

/// Writes a line, cut to the width. `y` counts from the top of the area.
pub(super) fn line((buffer, area): Canvas<'_>, y: u16, text: &str, style: Style) {
    if y < area.height {
        let text = safe(text);
        let text = cut(&text, usize::from(area.width));
        buffer.set_stringn(area.x, area.y + y, &text, usize::from(area.width), style);
    }
}

/// Writes that a list is not there yet.
pub(super) fn loading((buffer, area): Canvas<'_>, what: &str, since: Instant) {
    let seconds = since.elapsed().as_secs();
    let text = match seconds < SLOW_LOAD_SECONDS {
        true => format!("reading {what}…"),
        false => format!("reading {what}… ({seconds} s)"),
    };
    let text = text.replace('…', "...");
    line((buffer, area), 0, &text, Style::default());
}

/// A size, or `?`.
pub(super) fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "?".to_owned(), |bytes| HumanBytes(bytes).to_string())
}

/// How long ago a time was, in seconds since 1970.
pub(super) fn age(time: Option<i64>) -> String {
    let time = time.and_then(|time| Timestamp::from_second(time).ok());
    time.map_or_else(String::new, |time| style::age(time, Timestamp::now()))
}

/// The part of an area without its first lines.
pub(super) fn below(area: Rect, lines: u16) -> Rect {
    let lines = lines.min(area.height);
    Rect::new(area.x, area.y + lines, area.width, area.height - lines)
}

/// The first lines of an area.
pub(super) fn above(area: Rect, lines: u16) -> Rect {
    Rect::new(area.x, area.y, area.width, lines.min(area.height))
}

/// Writes what could not be read, if anything, and returns the rest of the area.
pub(super) fn unread((buffer, area): Canvas<'_>, theme: Theme, unread: &[String]) -> Rect {
    let Some(first) = unread.first() else {
        return area;
    };
    let more = match unread.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let style = theme.style(style::Tone::Bad);
    line((buffer, area), 0, &format!("! {first}{more}"), style);
    below(area, 1)
}
