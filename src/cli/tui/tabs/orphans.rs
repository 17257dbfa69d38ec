//! The tab of orphans: jobs that no run refers to.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseEvent};
use indicatif::HumanBytes;

use super::super::list::{Cells, List, ListColumn};
use super::super::model::Model;
use super::super::order::Order;
use super::super::request::Request;
use super::jobs_view::{short, tone};
use super::{Canvas, age, below, line, loading, unread};
use crate::archive::orphans::{Orphan, Orphans};
use crate::archive::places;
use crate::cli::style::Tone;

/// The tab.
#[derive(Debug, Default)]
pub(in crate::cli::tui) struct OrphansTab {
    list: List,
    /// Whether jobs that a folder has, too, are shown.
    ignore_folders: bool,
}

impl OrphansTab {
    fn shown<'a>(&self, found: &'a Orphans) -> Vec<&'a Orphan> {
        let jobs = found.jobs.iter();
        jobs.filter(|job| self.ignore_folders || !job.is_archived)
            .collect()
    }

    /// Reacts to a key.
    pub(in crate::cli::tui) fn key(&mut self, key: KeyEvent, model: &Model) -> Option<Request> {
        let found = model.orphans.as_ref()?;
        let shown = self.shown(found);
        if self.list.key(key, shown.len()) {
            return None;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let shift = key.modifiers.contains(KeyModifiers::SHIFT);
        let selected = shown.get(self.list.selected);
        let clean = |jobs| {
            Some(Request::Plan(Order::Clean {
                jobs,
                ignore_folders: self.ignore_folders,
            }))
        };
        match key.code {
            KeyCode::Char('D') if control => clean(None),
            KeyCode::Char('d') if control && shift => clean(None),
            KeyCode::Char('X') => clean(None),
            KeyCode::Char('d') if control => {
                let job = selected?.id.clone();
                clean(Some(vec![job]))
            }
            KeyCode::Char('n') => {
                self.ignore_folders = !self.ignore_folders;
                None
            }
            KeyCode::Char('f') => {
                let session = model.session.as_ref()?;
                let path = places::path(session.opened.view.primary(), &selected?.id);
                Some(Request::Copy(path.to_string_lossy().into_owned()))
            }
            _ => None,
        }
    }

    /// Reacts to the mouse.
    pub(in crate::cli::tui) fn mouse(&mut self, mouse: MouseEvent, model: &Model) {
        if let Some(found) = &model.orphans {
            self.list.mouse(mouse, self.shown(found).len());
        }
    }

    /// Draws the tab.
    pub(in crate::cli::tui) fn draw(&mut self, (buffer, area): Canvas<'_>, model: &Model) {
        let theme = model.theme;
        let Some(found) = model.orphans.clone() else {
            return loading((buffer, area), "the orphans", model.started);
        };
        let area = unread((buffer, area), theme, &found.unread);
        let shown = self.shown(&found);
        let freed = shown.iter().filter(|job| job.link.is_none());
        let freed = freed.filter_map(|job| job.usage.map(|usage| usage.freed));
        let freed: u64 = freed.sum();
        let recoverable = found.jobs.iter().filter(|job| job.is_archived).count();
        let count = shown.len() - if self.ignore_folders { recoverable } else { 0 };
        let count = match count {
            0 => "no orphans".to_owned(),
            1 => "1 orphan".to_owned(),
            count => format!("{count} orphans"),
        };
        let mut text = format!("{count} of {} jobs", found.candidates);
        if recoverable > 0 {
            let shows = if self.ignore_folders {
                "hides"
            } else {
                "shows"
            };
            text.push_str(&format!(
                "; {recoverable} more recoverable from a folder (n {shows} them)"
            ));
        }
        line((buffer, area), 0, &text, theme.title());
        let text = match found.lacks_experiments {
            true => {
                "! no experiments: every job seems to be one; `xpmfs experiments recover --all`?"
                    .to_owned()
            }
            false if shown.is_empty() => String::new(),
            false => format!("{} on the disk", HumanBytes(freed)),
        };
        let warning = if found.lacks_experiments {
            Tone::Bad
        } else {
            Tone::Plain
        };
        line((buffer, area), 1, &text, theme.style(warning));
        let columns = [
            ListColumn::text("STATE", 11),
            ListColumn::rest("JOB"),
            ListColumn::number("SIZE", 11),
            ListColumn::number("AGE", 7),
            ListColumn::text("COPIES", 20),
        ];
        let row = |index: usize| match shown.get(index) {
            Some(job) => (cells(job), false),
            None => (Vec::new(), false),
        };
        let mut place = below(area, 3);
        place.height = place.height.saturating_sub(1);
        self.list.draw(
            (&mut *buffer, place, theme),
            &columns,
            None,
            shown.len(),
            row,
        );
        if let Some(job) = shown.get(self.list.selected) {
            let link = job.link.as_ref();
            let link = link.map_or_else(String::new, |to| format!(" -> {}", to.display()));
            let y = area.height.saturating_sub(1);
            line(
                (buffer, area),
                y,
                &format!("{}{link}", job.id),
                theme.title(),
            );
        }
    }
}

fn cells(job: &Orphan) -> Cells {
    let size = match (&job.link, job.usage) {
        (Some(_), _) => "symlink".to_owned(),
        (None, usage) => super::bytes(usage.map(|usage| usage.size.bytes)),
    };
    let copies = match job.is_archived {
        true => ("recoverable", Tone::Good),
        false => ("primary ONLY", Tone::Warning),
    };
    vec![
        (job.state.to_string(), tone(&job.state)),
        (short(&job.id), Tone::Plain),
        (size, Tone::Plain),
        (age(job.changed.map(|time| time.as_second())), Tone::Plain),
        (copies.0.to_owned(), copies.1),
    ]
}
