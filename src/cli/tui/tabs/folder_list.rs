//! The list of the folders of a workspace, with their health and space, and more about the selected one.

use crossterm::event::{KeyEvent, MouseEvent};
use indicatif::HumanBytes;
use ratatui::layout::Rect;

use super::super::list::{Cells, List, ListColumn};
use super::super::order::counted;
use super::super::reported::Reported;
use super::super::theme::Theme;
use super::{Canvas, above, below, line};
use crate::cli::status::text::tone_of_place;
use crate::cli::style::Tone;
use crate::daemon::inventory::LocationReport;

/// The width of the bar.
const BAR: usize = 16;

/// The list.
#[derive(Debug, Default)]
pub(in crate::cli::tui) struct FolderList {
    list: List,
}

/// The jobs of a folder, in words.
#[derive(Debug, Default)]
pub(in crate::cli::tui) struct FolderJobs {
    /// How many it has.
    pub(in crate::cli::tui) count: String,
    /// More about them, a line each.
    pub(in crate::cli::tui) lines: Vec<String>,
}

impl FolderList {
    /// Reacts to a key. Returns whether it was one of the list.
    pub(in crate::cli::tui) fn key(&mut self, key: KeyEvent, reported: &Reported) -> bool {
        self.list.key(key, reported.locations().len())
    }

    /// Reacts to the mouse.
    pub(in crate::cli::tui) fn mouse(&mut self, mouse: MouseEvent, reported: &Reported) {
        self.list.mouse(mouse, reported.locations().len());
    }

    /// The path of the selected folder.
    pub(in crate::cli::tui) fn selected_path(&self, reported: &Reported) -> Option<String> {
        let selected = reported.locations().get(self.list.selected)?;
        Some(selected.path.clone())
    }

    /// Draws the list. `jobs`: those of a folder, by its number; without it, there is no column of them. Returns the rest of
    /// the area; `None` if there is no report.
    pub(in crate::cli::tui) fn draw(
        &mut self,
        (buffer, area): Canvas<'_>,
        theme: Theme,
        reported: &Reported,
        jobs: Option<&dyn Fn(usize) -> FolderJobs>,
    ) -> Option<Rect> {
        let area = reported.draw_head((&mut *buffer, area), theme, "the folders")?;
        let locations = reported.locations();
        if locations.is_empty() {
            let text = "nothing reports the folders of this workspace";
            line((buffer, area), 1, text, theme.style(Tone::Warning));
            return Some(below(area, 3));
        }
        let mut columns = vec![
            ListColumn::text("MODE", 7),
            ListColumn::text("STATE", 10),
            ListColumn::number("FREE", 11),
            ListColumn::text("USED", 22),
            ListColumn::rest("FOLDER"),
        ];
        if jobs.is_some() {
            columns.insert(JOBS_COLUMN, ListColumn::number("JOBS", 7));
        }
        let row = |index: usize| {
            let Some(report) = locations.get(index) else {
                return (Vec::new(), false);
            };
            let mut cells = cells(report, theme);
            if let Some(jobs) = jobs {
                cells.insert(JOBS_COLUMN, (jobs(index).count, Tone::Plain));
            }
            (cells, false)
        };
        let lines = u16::try_from(locations.len() + 1).unwrap_or(u16::MAX);
        let place = above(below(area, 1), lines.min(area.height / 2));
        let canvas = (&mut *buffer, place, theme);
        self.list.draw(canvas, &columns, None, locations.len(), row);
        let mut rest = below(area, place.height + 2);
        if let Some(report) = locations.get(self.list.selected) {
            let jobs = jobs.map(|jobs| jobs(self.list.selected));
            for (text, tone) in details(report, jobs.unwrap_or_default()) {
                let style = tone.map_or(theme.title(), |tone| theme.style(tone));
                line((&mut *buffer, rest), 0, &text, style);
                rest = below(rest, 1);
            }
        }
        Some(below(rest, 1))
    }
}

/// Where the column of jobs is.
const JOBS_COLUMN: usize = 2;

/// More about a folder, a line each; without a tone: a title.
fn details(report: &LocationReport, jobs: FolderJobs) -> Vec<(String, Option<Tone>)> {
    let mut lines = vec![(format!("{}: {}", report.mode, report.path), None)];
    if report.state != "ok" {
        let why = report.why.as_deref().unwrap_or(&report.state);
        lines.push((format!("  {why}"), Some(tone_of_place(report))));
    }
    if let Some(hidden) = &report.hidden {
        let text = format!(
            "  {} cannot be read, as {}: {}",
            counted(hidden.count),
            hidden.example.display(),
            hidden.reason
        );
        lines.push((text, Some(Tone::Bad)));
    }
    let jobs = jobs.lines.into_iter();
    lines.extend(jobs.map(|text| (text, Some(Tone::Plain))));
    if let Some(purged) = report.purged.filter(|purged| *purged > 0) {
        let text = format!("  {} purged here: a folder serves them", counted(purged));
        lines.push((text, Some(Tone::Warning)));
    }
    lines
}

fn cells(report: &LocationReport, theme: Theme) -> Cells {
    let used = match (report.free, report.total) {
        (Some(free), Some(total @ 1..)) => {
            let share = 1.0 - free as f64 / total as f64;
            format!("{} {:>3.0} %", theme.bar(share, BAR), share * 100.0)
        }
        _ => String::new(),
    };
    let free = report.free.map(|free| HumanBytes(free).to_string());
    vec![
        (report.mode.clone(), Tone::Plain),
        (report.state.clone(), tone_of_place(report)),
        (free.unwrap_or_default(), Tone::Plain),
        (used, Tone::Plain),
        (report.path.clone(), Tone::Plain),
    ]
}
