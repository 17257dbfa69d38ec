//! How archiving does, for a person.

use std::fmt::Write as _;

use indicatif::HumanBytes;

use crate::archive::engine::{CopyInProgress, FolderRefusal, FolderReport, Report};
use crate::printable::printable;

/// No more failed jobs are told of.
const FAILED: usize = 10;

/// Adds how archiving does; `since` says from when on it counts.
pub(super) fn describe(text: &mut String, report: &Report, since: &str) {
    let under_way: usize = report
        .folders
        .iter()
        .filter_map(|folder| folder.under_way.as_ref())
        .map(|under_way| under_way.jobs.len())
        .sum();
    let waiting = report
        .queued
        .saturating_sub(report.failures)
        .saturating_sub(under_way);
    let mut parts = Vec::new();
    for (count, what) in [
        (under_way, "under way"),
        (waiting, "waiting"),
        (report.failures, "failed"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    let scanned = |folder: &FolderReport| folder.last_scan.is_some() || folder.refuses.is_some();
    let state = match (parts.is_empty(), report.unseen()) {
        (true, None) if !report.folders.iter().all(scanned) => {
            "looking for what has finished".to_owned()
        }
        (true, _) if report.damages > 0 => "nothing is queued".to_owned(),
        (true, None) => "all that is finished is archived".to_owned(),
        (true, Some(_)) => "all that was found is archived".to_owned(),
        (false, _) => parts.join(", "),
    };
    let state = match report.damages {
        0 => state,
        count => format!("{state}, {}", damages(count)),
    };
    let _ = writeln!(text, "\narchive: {state}");
    let mut line = |line: String| {
        // Jobs and folders have the names that somebody gave them.
        let _ = writeln!(text, "  {}", printable(&line));
    };
    for folder in &report.folders {
        describe_folder(&mut line, folder, since);
    }
    for (why, count) in reasons(report) {
        let wait = match count {
            1 => "1 job waits",
            _ => &format!("{count} jobs wait"),
        };
        line(format!("{wait}: {why}"));
    }
    for failed in report.failed.iter().take(FAILED) {
        let place = failed
            .folder
            .as_ref()
            .map_or_else(String::new, |folder| format!(" to {}", folder.display()));
        line(format!(
            "{}{place} failed: {} (tried {}, again in {})",
            failed.job,
            failed.why,
            times(failed.tries),
            seconds(failed.next_try),
        ));
    }
    if report.failures > FAILED {
        line(format!(
            "and {} more, which --json tells of",
            report.failures - FAILED
        ));
    }
    describe_damaged(&mut line, report);
    if let Some(journal) = &report.journal {
        line(format!(
            "{journal}; what waits is found again after a restart"
        ));
    }
}

/// Adds the copies that `verify` found damaged or missing, of a workspace that nothing archives now.
pub(super) fn describe_recorded(text: &mut String, report: &Report) {
    if report.damages == 0 {
        return;
    }
    let _ = writeln!(text, "\narchive: {}", damages(report.damages));
    let mut line = |line: String| {
        let _ = writeln!(text, "  {}", printable(&line));
    };
    describe_damaged(&mut line, report);
}

fn damages(count: usize) -> String {
    match count {
        1 => "1 copy is damaged or missing".to_owned(),
        count => format!("{count} copies are damaged or missing"),
    }
}

fn describe_damaged(line: &mut impl FnMut(String), report: &Report) {
    for damaged in report.damaged.iter().take(FAILED) {
        line(damaged.to_string());
    }
    if report.damages > FAILED {
        let more = report.damages - FAILED;
        line(format!("and {more} more, listed by --json"));
    }
}

/// Why jobs wait that were refused, and how many for each reason; of the jobs that the report names.
fn reasons(report: &Report) -> Vec<(&str, usize)> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for waiting in report.waiting.iter().filter(|waiting| waiting.refused) {
        if let Some((_, count)) = counts.iter_mut().find(|(why, _)| *why == waiting.why) {
            *count += 1;
        } else if counts.len() < FAILED {
            counts.push((&waiting.why, 1));
        }
    }
    counts
}

fn describe_folder(line: &mut impl FnMut(String), folder: &FolderReport, since: &str) {
    let place = format!("{}:{}", folder.mode, folder.path.display());
    let is_away = |refuses: &FolderRefusal| refuses.next_try.is_none();
    let away = folder.refuses.as_ref().is_some_and(is_away);
    if let Some(under_way) = folder.under_way.as_ref().filter(|_| !away) {
        let first = under_way
            .jobs
            .first()
            .map(String::as_str)
            .unwrap_or_default();
        let more = match under_way.jobs.len() {
            0 | 1 => String::new(),
            jobs => format!(" and {} more", jobs - 1),
        };
        let speed = under_way.bytes as f64 / under_way.seconds.max(0.1);
        line(format!(
            "{place}: copying {first}{more} ({}, {}/s)",
            done(under_way),
            HumanBytes(speed as u64),
        ));
    }
    if let Some(refuses) = &folder.refuses {
        let again = refuses.next_try.map_or_else(
            || "as soon as it is there".to_owned(),
            |next| format!("in {}", seconds(next)),
        );
        // What was being copied to a folder that is away waits for it as well.
        let under_way = folder.under_way.as_ref().filter(|_| away);
        let waiting = folder.waiting + under_way.map_or(0, |under_way| under_way.jobs.len());
        let wait = match waiting {
            0 => String::new(),
            1 => "1 job waits: ".to_owned(),
            waiting => format!("{waiting} jobs wait: "),
        };
        line(format!(
            "{place}: {wait}{}; tried again {again}",
            refuses.why
        ));
    }
    if let Some(trouble) = &folder.trouble {
        line(format!(
            "{place}: not every finished job may be found: {trouble}"
        ));
    }
    if folder.jobs > 0 {
        line(format!(
            "{place}: {} archived since {since} ({} files, {})",
            jobs(folder.jobs),
            folder.files,
            HumanBytes(folder.bytes),
        ));
    }
}

/// How much is done, and of how much if that is known.
fn done(under_way: &CopyInProgress) -> String {
    let (files, bytes) = (under_way.files, HumanBytes(under_way.bytes).to_string());
    let Some(total) = &under_way.total else {
        return format!("{files} files, {bytes}");
    };
    let in_all = HumanBytes(total.bytes).to_string();
    // The unit is said once, if it is the same.
    let bytes = match (bytes.split_once(' '), in_all.split_once(' ')) {
        (Some((number, unit)), Some((_, same))) if unit == same => number,
        _ => &bytes,
    };
    format!("{files} of {} files, {bytes} of {in_all}", total.files)
}

fn jobs(count: u64) -> String {
    match count {
        1 => "1 job".to_owned(),
        count => format!("{count} jobs"),
    }
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

fn seconds(seconds: f64) -> String {
    match seconds.max(0.0).ceil() as u64 {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::engine::{FailedJob, Total};

    #[test]
    fn names_stay_on_their_lines() {
        let report = Report {
            failures: 1,
            failed: vec![FailedJob {
                job: "t/a\nb".to_owned(),
                folder: Some("/f\x1b[2J".into()),
                why: "no\r".to_owned(),
                tries: 1,
                next_try: 1.0,
            }],
            ..Report::default()
        };
        let mut text = String::new();
        describe(&mut text, &report, "it was mounted");
        assert_eq!(
            text,
            "\narchive: 1 failed\n  t/a\\nb to /f\\u{1b}[2J failed: no\\r (tried once, again in 1 s)\n"
        );
    }

    #[test]
    fn what_is_done_is_told_with_the_total_where_that_is_known() {
        let told = |bytes, total| {
            done(&CopyInProgress {
                jobs: Vec::new(),
                files: 1,
                bytes,
                total,
                seconds: 1.0,
            })
        };
        let total = Some(Total {
            files: 5,
            bytes: 4 << 30,
        });
        assert_eq!(told(1 << 20, None), "1 files, 1.00 MiB");
        assert_eq!(told(1 << 20, total), "1 of 5 files, 1.00 MiB of 4.00 GiB");
        assert_eq!(told(3 << 30, total), "1 of 5 files, 3.00 of 4.00 GiB");
    }
}
