//! The tab of folders: their health and space, and which jobs they have.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, MouseEvent};
use indicatif::HumanBytes;

use super::super::jobs::JobTable;
use super::super::list::{Cells, List, ListColumn};
use super::super::model::Model;
use super::super::order::{Order, counted};
use super::super::request::Request;
use super::super::row::Row;
use super::{Canvas, above, below, line, loading};
use crate::archive::job_list::Place;
use crate::cli::style::Tone;
use crate::daemon::inventory::LocationReport;
use crate::view::PRIMARY;
use crate::view::location::SLOW;
use crate::workspace::job_files::JobState;
use crate::workspace::jobs::JobId;

/// The width of the bar.
const BAR: usize = 16;

/// The tab.
#[derive(Debug, Default)]
pub(in crate::cli::tui) struct FoldersTab {
    list: List,
    /// What each location has, by its number; and of which jobs that is.
    counts: Vec<Counts>,
    releasable: Arc<Vec<JobId>>,
    of: Option<u64>,
}

/// What a location has.
#[derive(Debug, Clone, Default)]
struct Counts {
    jobs: usize,
    /// Jobs and known bytes by state, of those that it serves.
    states: BTreeMap<String, (usize, u64)>,
    /// How many of these have no known size.
    unmeasured: usize,
}

impl FoldersTab {
    fn update(&mut self, jobs: &JobTable, model: &Model) {
        if self.of == Some(model.generation) {
            return;
        }
        self.of = Some(model.generation);
        let locations = model.session.as_ref();
        let count = locations.map_or(0, |session| session.opened.view.locations().len());
        self.counts = vec![Counts::default(); count];
        let mut releasable = Vec::new();
        for row in &jobs.rows {
            for location in row.copies.iter() {
                if let Some(counts) = self.counts.get_mut(usize::from(location)) {
                    counts.jobs += 1;
                }
            }
            if let Place::At(at) = row.place
                && let Some(counts) = self.counts.get_mut(usize::from(at))
            {
                let entry = counts.states.entry(row.state.to_string()).or_default();
                entry.0 += 1;
                match model.size(row) {
                    Some(bytes) => entry.1 += bytes,
                    None => counts.unmeasured += 1,
                }
            }
            if is_candidate(row, model) {
                releasable.push(row.id.clone());
            }
        }
        self.releasable = Arc::new(releasable);
    }

    /// Reacts to a key.
    pub(in crate::cli::tui) fn key(&mut self, key: KeyEvent, model: &Model) -> Option<Request> {
        if self.list.key(key, model.locations().len()) {
            return None;
        }
        if let Some(jobs) = model.jobs.clone() {
            self.update(&jobs, model);
        }
        match key.code {
            KeyCode::Char('e') if model.jobs.is_none() => Some(Request::Say(
                "the jobs are being read: try again when their numbers show".to_owned(),
            )),
            KeyCode::Char('e') if self.releasable.is_empty() => Some(Request::Say(
                "no finished job of the primary has a copy in a folder: nothing to release"
                    .to_owned(),
            )),
            KeyCode::Char('e') => Some(Request::Plan(Order::ReleaseAll(
                self.releasable.as_ref().clone(),
            ))),
            KeyCode::Char('Z') => Some(Request::Measure),
            KeyCode::Char('f') => {
                let report = model.locations().get(self.list.selected)?;
                Some(Request::Copy(report.path.clone()))
            }
            _ => None,
        }
    }

    /// Reacts to the mouse.
    pub(in crate::cli::tui) fn mouse(&mut self, mouse: MouseEvent, model: &Model) {
        self.list.mouse(mouse, model.locations().len());
    }

    /// Draws the tab.
    pub(in crate::cli::tui) fn draw(&mut self, (buffer, area): Canvas<'_>, model: &Model) {
        let theme = model.theme;
        if let Some(Err(why)) = &model.status {
            line(
                (buffer, area),
                0,
                &format!("! {why}"),
                theme.style(Tone::Bad),
            );
            return;
        }
        let locations = model.locations();
        if locations.is_empty() {
            return loading((buffer, area), "the folders", model.started);
        }
        if let Some(jobs) = model.jobs.clone() {
            self.update(&jobs, model);
        }
        let (mounted, tone) = mounted(model);
        line((buffer, area), 0, &mounted, theme.style(tone));
        let columns = [
            ListColumn::text("MODE", 7),
            ListColumn::text("STATE", 10),
            ListColumn::number("JOBS", 7),
            ListColumn::number("FREE", 11),
            ListColumn::text("USED", 22),
            ListColumn::rest("FOLDER"),
        ];
        let lines = u16::try_from(locations.len() + 1).unwrap_or(u16::MAX);
        let place = above(below(area, 2), lines.min(area.height / 2));
        let counts = &self.counts;
        let row = |index: usize| match locations.get(index) {
            Some(report) => (cells(report, counts.get(index), model), false),
            None => (Vec::new(), false),
        };
        self.list.draw(
            (&mut *buffer, place, theme),
            &columns,
            None,
            locations.len(),
            row,
        );
        let mut rest = below(area, 2 + place.height + 1);
        let mut say = |text: &str, style| {
            line((&mut *buffer, rest), 0, text, style);
            rest = below(rest, 1);
        };
        if let Some(report) = locations.get(self.list.selected) {
            say(&format!("{}: {}", report.mode, report.path), theme.title());
            if report.state != "ok" {
                let why = report.why.as_deref().unwrap_or(&report.state);
                say(&format!("  {why}"), theme.style(Tone::Bad));
            }
            if let Some(hidden) = &report.hidden {
                let text = format!(
                    "  {} cannot be read, as {}: {}",
                    counted(hidden.count),
                    hidden.example.display(),
                    hidden.reason
                );
                say(&text, theme.style(Tone::Bad));
            }
            if let Some(counts) = self.counts.get(self.list.selected) {
                for (state, (count, bytes)) in &counts.states {
                    let at_least = match counts.unmeasured {
                        0 => "",
                        _ => "at least ",
                    };
                    let size = HumanBytes(*bytes);
                    say(
                        &format!("  {state:<12}{:>12}   {at_least}{size}", counted(*count)),
                        theme.style(Tone::Plain),
                    );
                }
                if counts.unmeasured > 0 {
                    let text = format!(
                        "  {} not measured: Z measures all",
                        counted(counts.unmeasured)
                    );
                    say(&text, theme.style(Tone::Plain));
                }
                if let Some(purged) = report.purged.filter(|purged| *purged > 0) {
                    let text = format!("  {} purged here: a folder serves them", counted(purged));
                    say(&text, theme.style(Tone::Warning));
                }
            }
        }
        say("", theme.title());
        let releasable = match self.releasable.len() {
            0 if model.jobs.is_none() => "looking for jobs that can be released".to_owned(),
            0 => "nothing to release: no finished job is here and in a folder".to_owned(),
            count => format!(
                "{} here and in a folder: e finds out which are safe to release",
                counted(count)
            ),
        };
        say(&releasable, theme.title());
    }
}

/// Whether a job may be released: it is finished, and is both in the primary and in a folder.
fn is_candidate(row: &Row, model: &Model) -> bool {
    let has_archived = !row.current().and(model.places.archives).is_empty();
    row.state == JobState::Done && row.copies.has(PRIMARY) && has_archived
}

/// Whether the workspace is mounted.
pub(super) fn mounted(model: &Model) -> (String, Tone) {
    if let Some(mount) = model.mount() {
        let mut text = format!("mounted at {}: {}", mount.mountpoint, mount.state);
        if let Some(pid) = mount.pid {
            text.push_str(&format!(", process {pid}"));
        }
        if let Some(advice) = &mount.advice {
            text.push_str(&format!("; {advice}"));
        }
        let tone = match mount.state {
            "ok" => Tone::Good,
            "dead" | "does not answer" => Tone::Bad,
            _ => Tone::Warning,
        };
        return (text, tone);
    }
    match model.report() {
        Some(_) => (
            "not mounted; `xpmfs archive` archives it".to_owned(),
            Tone::Good,
        ),
        None => (
            "not mounted: nothing is archived by itself; `xpmfs mount` changes that".to_owned(),
            Tone::Warning,
        ),
    }
}

fn cells(report: &LocationReport, counts: Option<&Counts>, model: &Model) -> Cells {
    let tone = match report.state.as_str() {
        "ok" => Tone::Good,
        SLOW => Tone::Warning,
        _ => Tone::Bad,
    };
    let used = match (report.free, report.total) {
        (Some(free), Some(total @ 1..)) => {
            let share = 1.0 - free as f64 / total as f64;
            let bar = model.theme.bar(share, BAR);
            format!("{bar} {:>3.0} %", share * 100.0)
        }
        _ => String::new(),
    };
    let jobs = counts.map_or_else(|| "...".to_owned(), |counts| counts.jobs.to_string());
    vec![
        (report.mode.clone(), Tone::Plain),
        (report.state.clone(), tone),
        (jobs, Tone::Plain),
        (
            report
                .free
                .map_or_else(String::new, |free| HumanBytes(free).to_string()),
            Tone::Plain,
        ),
        (used, Tone::Plain),
        (report.path.clone(), Tone::Plain),
    ]
}
