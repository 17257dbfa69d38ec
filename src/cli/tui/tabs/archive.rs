//! The tab of archiving: what is being copied, what waits, and what failed.

use crossterm::event::{KeyEvent, MouseEvent};
use indicatif::HumanBytes;

use super::super::list::{Cells, List, ListColumn};
use super::super::model::Model;
use super::super::request::Request;
use super::folders::mounted;
use super::{Canvas, below, line, loading};
use crate::archive::engine::{CopyInProgress, Report};
use crate::cli::style::{Tone, local};

/// The width of the bar.
const BAR: usize = 20;

/// The tab.
#[derive(Debug, Default)]
pub(in crate::cli::tui) struct ArchiveTab {
    list: List,
    length: usize,
}

impl ArchiveTab {
    /// Reacts to a key.
    pub(in crate::cli::tui) fn key(&mut self, key: KeyEvent) -> Option<Request> {
        self.list.key(key, self.length);
        None
    }

    /// Reacts to the mouse.
    pub(in crate::cli::tui) fn mouse(&mut self, mouse: MouseEvent) {
        self.list.mouse(mouse, self.length);
    }

    /// Draws the tab.
    pub(in crate::cli::tui) fn draw(&mut self, (buffer, area): Canvas<'_>, model: &Model) {
        let theme = model.theme;
        match &model.status {
            None => return loading((buffer, area), "the state of archiving", model.started),
            Some(Err(why)) => {
                line(
                    (buffer, area),
                    0,
                    &format!("! {why}"),
                    theme.style(Tone::Bad),
                );
                return;
            }
            Some(Ok(_)) => {}
        }
        let (text, tone) = mounted(model);
        line((buffer, area), 0, &text, theme.style(tone));
        let rows = match model.report() {
            Some((report, _)) => {
                line((buffer, area), 1, &summary(report, model), theme.title());
                rows(report, model)
            }
            None => recorded(model),
        };
        self.length = rows.len();
        let columns = [
            ListColumn::text("STATE", 10),
            ListColumn::text("JOB", 34),
            ListColumn::rest("DETAILS"),
        ];
        let row = |index: usize| (rows.get(index).cloned().unwrap_or_default(), false);
        self.list.draw(
            (&mut *buffer, below(area, 3), theme),
            &columns,
            None,
            rows.len(),
            row,
        );
        if let Some((text, _)) = rows.get(self.list.selected).and_then(|row| row.last()) {
            // The column is narrow, and reasons are long.
            let y = area.height.saturating_sub(1);
            line((buffer, area), y, text, theme.title());
        }
    }
}

fn summary(report: &Report, model: &Model) -> String {
    let under_way = report.folders.iter().filter_map(|it| it.under_way.as_ref());
    let copying: usize = under_way.map(|under_way| under_way.jobs.len()).sum();
    let queued = report.queued.saturating_sub(report.failures + copying);
    let parts = [
        (copying, "copying"),
        (queued, "queued"),
        (report.failures, "failed"),
        (report.damages, "damaged or missing"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    match (parts.is_empty(), report.unseen()) {
        (true, None) => "nothing is queued: all finished jobs are archived".to_owned(),
        (true, Some(why)) => format!("nothing is queued; some jobs may not have been found: {why}"),
        (false, _) => parts.join(model.theme.separator()),
    }
}

fn rows(report: &Report, model: &Model) -> Vec<Cells> {
    let mut rows = Vec::new();
    for folder in &report.folders {
        let place = format!("{}:{}", folder.mode, folder.path.display());
        if let Some(copy) = &folder.under_way {
            let first = copy.jobs.first().cloned().unwrap_or_default();
            let more = match copy.jobs.len() {
                0 | 1 => String::new(),
                jobs => format!(" and {} more", jobs - 1),
            };
            rows.push(vec![
                ("copying".to_owned(), Tone::Warning),
                (first + &more, Tone::Plain),
                (format!("{} to {place}", progress(copy, model)), Tone::Plain),
            ]);
        }
        if let Some(refuses) = &folder.refuses {
            let again = match refuses.next_try {
                Some(next) => format!("retrying in {next:.0} s"),
                None => "will retry when it is back".to_owned(),
            };
            rows.push(vec![
                ("held".to_owned(), Tone::Bad),
                (format!("{} waiting", folder.waiting), Tone::Plain),
                (format!("{place}: {}; {again}", refuses.why), Tone::Plain),
            ]);
        }
    }
    for run in &report.experiments {
        if let Some(copy) = &run.under_way {
            rows.push(vec![
                ("copying".to_owned(), Tone::Warning),
                (copy.item.clone(), Tone::Plain),
                (
                    format!(
                        "{} to backup:{}",
                        HumanBytes(copy.bytes),
                        run.folder.display()
                    ),
                    Tone::Plain,
                ),
            ]);
        }
        for failed in &run.failed {
            rows.push(vec![
                ("failed".to_owned(), Tone::Bad),
                (failed.item.clone(), Tone::Plain),
                (failed.why.clone(), Tone::Plain),
            ]);
        }
    }
    for failed in &report.failed {
        let folder = failed.folder.as_ref();
        let folder = folder.map_or_else(String::new, |it| format!(" in {}", it.display()));
        rows.push(vec![
            ("failed".to_owned(), Tone::Bad),
            (failed.job.clone(), Tone::Plain),
            (
                format!(
                    "{}{folder} (tried {} times, retrying in {:.0} s)",
                    failed.why, failed.tries, failed.next_try
                ),
                Tone::Plain,
            ),
        ]);
    }
    rows.extend(damaged(report));
    for waiting in &report.waiting {
        rows.push(vec![
            ("queued".to_owned(), Tone::Plain),
            (waiting.job.clone(), Tone::Plain),
            (waiting.why.clone(), Tone::Plain),
        ]);
    }
    for folder in &report.folders {
        if folder.jobs > 0 {
            rows.push(vec![
                ("archived".to_owned(), Tone::Good),
                (format!("{} jobs since the start", folder.jobs), Tone::Plain),
                (
                    format!(
                        "{} to {}:{}",
                        HumanBytes(folder.bytes),
                        folder.mode,
                        folder.path.display()
                    ),
                    Tone::Plain,
                ),
            ]);
        }
    }
    rows.extend(verified(report));
    rows
}

/// What `verify` recorded, of a workspace that nothing archives.
fn recorded(model: &Model) -> Vec<Cells> {
    let Some(Ok(status)) = &model.status else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    for workspace in &status.workspaces {
        let report = Report {
            damaged: workspace.damaged.clone(),
            verified: workspace.verified.clone(),
            ..Report::default()
        };
        rows.extend(damaged(&report));
        rows.extend(verified(&report));
    }
    rows
}

fn damaged(report: &Report) -> impl Iterator<Item = Cells> {
    report.damaged.iter().map(|copy| {
        let name = copy.job.clone().or_else(|| copy.item.clone());
        vec![
            ("DAMAGED".to_owned(), Tone::Bad),
            (name.unwrap_or_default(), Tone::Plain),
            (
                format!(
                    "{}: {}; {}",
                    copy.folder.display(),
                    copy.finding,
                    copy.remedy
                ),
                Tone::Plain,
            ),
        ]
    })
}

fn verified(report: &Report) -> impl Iterator<Item = Cells> {
    report.verified.iter().map(|folder| {
        let tone = match (folder.last.wrong, folder.lacking_manifests()) {
            (0, 0) => Tone::Good,
            (0, _) => Tone::Warning,
            _ => Tone::Bad,
        };
        vec![
            ("verified".to_owned(), tone),
            (folder.result(), Tone::Plain),
            (
                format!("{} on {}", folder.folder.display(), local(folder.last.at)),
                Tone::Plain,
            ),
        ]
    })
}

/// How much is copied, at which rate, and how long the rest takes.
fn progress(copy: &CopyInProgress, model: &Model) -> String {
    let rate = copy.bytes as f64 / copy.seconds.max(0.1);
    let speed = HumanBytes(rate as u64);
    let Some(total) = copy.total else {
        return format!("{}, {speed}/s", HumanBytes(copy.bytes));
    };
    let share = copy.bytes as f64 / (total.bytes.max(1)) as f64;
    let left = total.bytes.saturating_sub(copy.bytes) as f64 / rate.max(1.0);
    format!(
        "{} {} of {}, {speed}/s, {} left",
        model.theme.bar(share, BAR),
        HumanBytes(copy.bytes),
        HumanBytes(total.bytes),
        time_left(left)
    )
}

/// A duration, for a person.
pub(in crate::cli::tui) fn time_left(seconds: f64) -> String {
    match seconds as u64 {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
