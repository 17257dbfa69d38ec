//! The last lines of a dashboard: the action under way, a message, and the keys.

use ratatui::layout::Rect;

use super::tabs::{Canvas, line};
use super::theme::{Theme, safe, wrapped};
use crate::cli::style::Tone;

/// In a lower terminal, an action or a message takes the line of the keys.
const ROOMY: u16 = 10;

/// The most lines of a message; the dialog of messages has all of it.
const LINES_MAX: usize = 3;

/// Draws the keys in the last line of an area, and above them what is under way or was said. Returns the area above these lines.
pub(super) fn draw(
    (buffer, area): Canvas<'_>,
    theme: Theme,
    news: impl Iterator<Item = (String, Tone)>,
    keys: &str,
) -> Rect {
    let mut lines: Vec<(String, Tone)> = Vec::new();
    for (text, tone) in news {
        let mut parts = wrapped(&safe(&text), area.width.into());
        if parts.len() > LINES_MAX {
            parts.truncate(LINES_MAX);
            if let Some(last) = parts.last_mut() {
                // Too long for the line, which is cut with a mark.
                last.push_str(" ...");
            }
        }
        lines.extend(parts.into_iter().map(|part| (part, tone)));
    }
    if lines.is_empty() || area.height >= ROOMY {
        lines.push((keys.to_owned(), Tone::Plain));
    } else {
        lines.truncate(1);
    }
    let mut rest = area;
    for (text, tone) in lines.iter().rev() {
        rest.height = rest.height.saturating_sub(1);
        line((&mut *buffer, area), rest.height, text, theme.style(*tone));
    }
    rest
}
