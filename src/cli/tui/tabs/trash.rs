//! The tab of deleted jobs.

use crossterm::event::{KeyCode, KeyEvent, MouseEvent};
use indicatif::HumanBytes;

use super::super::list::{Cells, List, ListColumn};
use super::super::model::{Model, TrashRow};
use super::super::order::{Order, counted};
use super::super::request::Request;
use super::jobs_view::short;
use super::{Canvas, below, bytes, line, loading, unread};
use crate::cli::style::{Tone, local};

/// The tab.
#[derive(Debug, Default)]
pub(in crate::cli::tui) struct TrashTab {
    list: List,
}

impl TrashTab {
    /// Reacts to a key.
    pub(in crate::cli::tui) fn key(&mut self, key: KeyEvent, model: &Model) -> Option<Request> {
        let found = &model.trash.as_ref()?.found;
        if self.list.key(key, found.len()) {
            return None;
        }
        let selected = found.get(self.list.selected)?;
        match key.code {
            KeyCode::Char('b') | KeyCode::Enter => {
                let job = (selected.job.clone(), selected.batch.clone());
                Some(Request::Plan(Order::Undelete(vec![job])))
            }
            _ => None,
        }
    }

    /// Reacts to the mouse.
    pub(in crate::cli::tui) fn mouse(&mut self, mouse: MouseEvent, model: &Model) {
        if let Some(answer) = &model.trash {
            self.list.mouse(mouse, answer.found.len());
        }
    }

    /// Draws the tab.
    pub(in crate::cli::tui) fn draw(&mut self, (buffer, area): Canvas<'_>, model: &Model) {
        let theme = model.theme;
        let Some(answer) = &model.trash else {
            return loading((buffer, area), "the trash", model.started);
        };
        let area = unread((buffer, area), theme, &answer.unread);
        let found = &answer.found;
        let all: u64 = found.iter().filter_map(|job| job.bytes).sum();
        let text = match found.len() {
            0 => "no deleted jobs".to_owned(),
            count => format!("{} deleted ({})", counted(count), HumanBytes(all)),
        };
        line((buffer, area), 0, &text, theme.title());
        let columns = [
            ListColumn::text("DELETED", 16),
            ListColumn::text("UNTIL", 16),
            ListColumn::number("SIZE", 11),
            ListColumn::rest("JOB"),
        ];
        let row = |index: usize| match found.get(index) {
            Some(job) => (cells(job), false),
            None => (Vec::new(), false),
        };
        let mut place = below(area, 2);
        place.height = place.height.saturating_sub(2);
        self.list.draw(
            (&mut *buffer, place, theme),
            &columns,
            None,
            found.len(),
            row,
        );
        if let Some(job) = found.get(self.list.selected) {
            let y = area.height.saturating_sub(2);
            line((&mut *buffer, area), y, &job.job.to_string(), theme.title());
            let text = format!("in {}", job.places);
            line((buffer, area), y + 1, &text, theme.title());
        }
    }
}

fn cells(job: &TrashRow) -> Cells {
    vec![
        (local(job.batch.at()), Tone::Plain),
        (job.until.map_or_else(|| "?".to_owned(), local), Tone::Plain),
        (bytes(job.bytes), Tone::Plain),
        (short(&job.job), Tone::Plain),
    ]
}
