//! The tab of archiving: what is being copied, what waits, and what failed.

use crossterm::event::{KeyEvent, MouseEvent};
use indicatif::HumanBytes;

use super::super::list::{Cells, List, ListColumn};
use super::super::reported::Reported;
use super::super::theme::Theme;
use super::{Canvas, below, line};
use crate::archive::engine::{CopyInProgress, ExperimentsReport, FolderReport, Report};
use crate::cli::status::archive::{again, jobs, seconds, state, times};
use crate::cli::status::gather::Status;
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
    pub(in crate::cli::tui) fn key(&mut self, key: KeyEvent) {
        self.list.key(key, self.length);
    }

    /// Reacts to the mouse.
    pub(in crate::cli::tui) fn mouse(&mut self, mouse: MouseEvent) {
        self.list.mouse(mouse, self.length);
    }

    /// Draws the tab.
    pub(in crate::cli::tui) fn draw(
        &mut self,
        (buffer, area): Canvas<'_>,
        theme: Theme,
        reported: &Reported,
    ) {
        let what = "the state of archiving";
        let Some(area) = reported.draw_head((&mut *buffer, area), theme, what) else {
            return;
        };
        let rows = match reported.report() {
            Some(report) => {
                let (text, tone) = state(report);
                line((&mut *buffer, area), 0, &text, theme.style(tone));
                rows(report, theme)
            }
            None => recorded(reported.status()),
        };
        self.length = rows.len();
        let columns = [
            ListColumn::text("STATE", 10),
            ListColumn::text("JOB", 34),
            ListColumn::rest("DETAILS"),
        ];
        let row = |index: usize| (rows.get(index).cloned().unwrap_or_default(), false);
        self.list.draw(
            (&mut *buffer, below(area, 2), theme),
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

fn rows(report: &Report, theme: Theme) -> Vec<Cells> {
    let mut rows = Vec::new();
    for folder in &report.folders {
        rows.extend(of_folder(folder, theme));
    }
    for run in &report.experiments {
        rows.extend(of_experiments(run));
    }
    for failed in &report.failed {
        let folder = failed.folder.as_ref();
        let folder = folder.map_or_else(String::new, |it| format!(" in {}", it.display()));
        let (tries, again) = (times(failed.tries), seconds(failed.next_try));
        let details = format!(
            "{}{folder} (tried {tries}, retrying in {again})",
            failed.why
        );
        rows.push(row(("failed", Tone::Bad), &failed.job, details));
    }
    rows.extend(damaged(report));
    for waiting in &report.waiting {
        let details = waiting.why.clone();
        rows.push(row(("queued", Tone::Plain), &waiting.job, details));
    }
    for folder in report.folders.iter().filter(|folder| folder.jobs > 0) {
        let name = format!("{} since the start", jobs(folder.jobs));
        let details = format!("{} to {}", HumanBytes(folder.bytes), place(folder));
        rows.push(row(("archived", Tone::Good), &name, details));
    }
    rows.extend(verified(report));
    rows
}

/// A row: its state, the job or a count, and the details.
fn row((state, tone): (&str, Tone), name: &str, details: String) -> Cells {
    vec![
        (state.to_owned(), tone),
        (name.to_owned(), Tone::Plain),
        (details, Tone::Plain),
    ]
}

fn place(folder: &FolderReport) -> String {
    format!("{}:{}", folder.mode, folder.path.display())
}

/// What is copied to a folder, and why it accepts nothing.
fn of_folder(folder: &FolderReport, theme: Theme) -> impl Iterator<Item = Cells> {
    let place = place(folder);
    let copying = folder.under_way.as_ref().map(|copy| {
        let first = copy.jobs.first().map_or("", String::as_str);
        let name = match copy.jobs.len() {
            0 | 1 => first.to_owned(),
            jobs => format!("{first} and {} more", jobs - 1),
        };
        let details = format!("{} to {place}", progress(copy, theme));
        row(("copying", Tone::Warning), &name, details)
    });
    let held = folder.refuses.as_ref().map(|refuses| {
        let name = format!("{} waiting", jobs(folder.waiting as u64));
        let details = format!("{place}: {}; {}", refuses.why, again(refuses));
        row(("held", Tone::Bad), &name, details)
    });
    let unread = folder.trouble.as_ref().map(|trouble| {
        let details = format!("{place}: some finished jobs may not have been found: {trouble}");
        row(("unread", Tone::Bad), "", details)
    });
    [copying, held, unread].into_iter().flatten()
}

/// The runs and partials that are copied to a folder, and those that failed.
fn of_experiments(run: &ExperimentsReport) -> impl Iterator<Item = Cells> {
    let place = format!("backup:{}", run.folder.display());
    let copying = run.under_way.as_ref().map(|copy| {
        let details = format!("{} to {place}", HumanBytes(copy.bytes));
        row(("copying", Tone::Warning), &copy.item, details)
    });
    let held = run.refuses.as_ref().map(|why| {
        let details = format!("{place}: {why}");
        row(("held", Tone::Bad), "runs and partials waiting", details)
    });
    let unread = run.trouble.as_ref().map(|trouble| {
        let details = format!("{place}: some runs may not have been found: {trouble}");
        row(("unread", Tone::Bad), "", details)
    });
    let failed = run.failed.iter();
    let failed = failed.map(|failed| row(("failed", Tone::Bad), &failed.item, failed.why.clone()));
    let of_folder = [copying, held, unread].into_iter().flatten();
    of_folder.chain(failed.collect::<Vec<Cells>>())
}

/// What `verify` recorded, of a workspace that nothing archives.
fn recorded(status: Option<&Status>) -> Vec<Cells> {
    let mut rows = Vec::new();
    for workspace in status.iter().flat_map(|status| &status.workspaces) {
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
        let name = copy.job.as_deref().or(copy.item.as_deref());
        let folder = copy.folder.display();
        let details = format!("{folder}: {}; {}", copy.finding, copy.remedy);
        row(("DAMAGED", Tone::Bad), name.unwrap_or_default(), details)
    })
}

fn verified(report: &Report) -> impl Iterator<Item = Cells> {
    report.verified.iter().map(|folder| {
        let tone = match (folder.last.wrong, folder.lacking_manifests()) {
            (0, 0) => Tone::Good,
            (0, _) => Tone::Warning,
            _ => Tone::Bad,
        };
        let details = format!("{} on {}", folder.folder.display(), local(folder.last.at));
        row(("verified", tone), &folder.result(), details)
    })
}

/// How much is copied, at which rate, and how long the rest takes.
fn progress(copy: &CopyInProgress, theme: Theme) -> String {
    let rate = copy.bytes as f64 / copy.seconds.max(0.1);
    let speed = HumanBytes(rate as u64);
    let Some(total) = copy.total else {
        return format!("{}, {speed}/s", HumanBytes(copy.bytes));
    };
    let share = copy.bytes as f64 / (total.bytes.max(1)) as f64;
    let left = total.bytes.saturating_sub(copy.bytes) as f64 / rate.max(1.0);
    format!(
        "{} {} of {}, {speed}/s, {} left",
        theme.bar(share, BAR),
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
