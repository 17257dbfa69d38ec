//! Prints the state of archiving runs and partials, for a person.

use std::fmt::Write as _;

use indicatif::HumanBytes;

use super::archive::{LISTED_MAX, seconds};
use crate::archive::engine::{ExperimentsReport, Report};
use crate::sys::printable::printable;

/// Adds the runs and partials of each folder.
pub(super) fn describe(text: &mut String, report: &Report, since: &str) {
    let line = &mut |line: String| {
        // Users choose the names of experiments and folders.
        let _ = writeln!(text, "  {}", printable(&line));
    };
    for folder in &report.experiments {
        describe_folder(line, folder, since);
    }
}

/// Adds what is being copied, what waits for a job, and what failed.
fn describe_folder(line: &mut impl FnMut(String), report: &ExperimentsReport, since: &str) {
    let place = format!("backup:{}", report.folder.display());
    if !report.has_place {
        return line(format!(
            "{place}: names a `jobs` directory: it receives jobs, and no runs or partials"
        ));
    }
    if let Some(under_way) = &report.under_way {
        let speed = under_way.bytes as f64 / under_way.seconds.max(0.1);
        line(format!(
            "{place}: copying {} ({}, {}/s)",
            under_way.item,
            HumanBytes(under_way.bytes),
            HumanBytes(speed as u64),
        ));
    }
    let again = report.next_try.map_or_else(String::new, |next| {
        format!(" (retrying in {})", seconds(next))
    });
    if let Some(why) = &report.refuses {
        line(format!("{place}: runs and partials waiting: {why}{again}"));
    }
    if let Some(trouble) = &report.trouble {
        line(format!(
            "{place}: some runs may not have been found: {trouble}"
        ));
    }
    let (runs, partials) = (report.runs, report.partials);
    if runs + partials > 0 {
        let size = HumanBytes(report.bytes);
        let runs = counted(runs, "run");
        let partials = counted(partials, "partial");
        line(format!(
            "{place}: {runs} and {partials} archived since {since} ({size})"
        ));
    }
    let in_use = report.waiting.iter().filter(|waiting| waiting.in_use);
    for waiting in in_use.take(LISTED_MAX) {
        line(format!("{} waiting: {}", waiting.item, waiting.why));
    }
    for failed in report.failed.iter().take(LISTED_MAX) {
        line(format!(
            "{} to {place} failed: {}{again}",
            failed.item, failed.why
        ));
    }
    if report.failures > LISTED_MAX {
        let more = report.failures - LISTED_MAX;
        line(format!(
            "and {more} more runs or partials, listed by --json"
        ));
    }
}

fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::engine::{FailedItem, WaitingItem};

    #[test]
    fn only_what_does_not_go_on_by_itself_is_listed() {
        let waiting = |item: &str, in_use| WaitingItem {
            item: item.to_owned(),
            why: "a job writes to it".to_owned(),
            in_use,
        };
        let failed = FailedItem {
            item: "xp/1".to_owned(),
            why: "no".to_owned(),
        };
        let mut report = ExperimentsReport {
            folder: "/b".into(),
            has_place: true,
            runs: 1,
            bytes: 1 << 20,
            waiting: vec![waiting("xp/2", false), waiting("partials/t/ck/1f", true)],
            failed: vec![failed],
            failures: 1,
            next_try: Some(4.5),
            ..ExperimentsReport::default()
        };
        let shown = |report: &ExperimentsReport| {
            let mut lines = Vec::new();
            describe_folder(&mut |line| lines.push(line), report, "it was mounted");
            lines
        };
        assert_eq!(
            shown(&report),
            [
                "backup:/b: 1 run and 0 partials archived since it was mounted (1.00 MiB)",
                "partials/t/ck/1f waiting: a job writes to it",
                "xp/1 to backup:/b failed: no (retrying in 5 s)",
            ]
        );
        report.has_place = false;
        assert_eq!(shown(&report).len(), 1);
    }
}
