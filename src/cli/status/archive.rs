//! Prints the state of archiving, for a person.

use std::fmt::Write as _;

use indicatif::HumanBytes;
use jiff::Timestamp;

use crate::archive::engine::{
    CopyInProgress, ExperimentsReport, FolderRefusal, FolderReport, ReleaseReport, Report,
    VerifiedFolder,
};
use crate::cli::style::{Colours, Tone, local};
use crate::sys::printable::printable;

/// The most jobs of each kind that are listed.
pub(super) const LISTED_MAX: usize = 10;

/// The state of archiving in a sentence, and how it is painted.
pub(in crate::cli) fn state(report: &Report) -> (String, Tone) {
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
        (under_way, "copying"),
        (waiting, "queued"),
        (report.failures, "failed"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    let scanned = |folder: &FolderReport| folder.last_scan.is_some() || folder.refuses.is_some();
    let state = match (parts.is_empty(), report.unseen()) {
        (true, None) if !report.folders.iter().all(scanned) => {
            "looking for finished jobs".to_owned()
        }
        (true, _) if report.damages > 0 => "nothing is queued".to_owned(),
        (true, None) => "all finished jobs are archived".to_owned(),
        (true, Some(_)) => "all finished jobs that were found are archived".to_owned(),
        (false, _) => parts.join(", "),
    };
    let state = match report.damages {
        0 => state,
        count => format!("{state}, {}", damages(count)),
    };
    let tone = match (has_failed(report), parts.is_empty()) {
        (false, true) if report.unseen().is_none() => Tone::Good,
        (false, _) => Tone::Plain,
        (true, _) => Tone::Bad,
    };
    (state, tone)
}

/// Whether something could not be archived, or a copy is damaged or missing.
pub(in crate::cli) fn has_failed(report: &Report) -> bool {
    let experiments = report.experiments.iter();
    let not_archived: usize = experiments.map(ExperimentsReport::not_archived).sum();
    report.failures + report.damages + not_archived > 0
}

/// Adds the state of archiving; `since` says from when on jobs are counted.
pub(super) fn describe(text: &mut String, report: &Report, since: &str, colours: Colours) {
    let (state, tone) = state(report);
    let _ = writeln!(text, "\narchive: {}", colours.paint(&state, tone));
    let mut line = |line: String| {
        // Users choose the names of jobs and folders.
        let _ = writeln!(text, "  {}", printable(&line));
    };
    for folder in &report.folders {
        describe_folder(&mut line, folder, since);
    }
    describe_verified(&mut line, report);
    for reason in &report.refusals.reasons {
        line(format!(
            "{} waiting: {}",
            jobs(reason.jobs as u64),
            reason.why
        ));
    }
    if report.refusals.others > 0 {
        let others = jobs(report.refusals.others as u64);
        line(format!("{others} waiting for other reasons"));
    }
    for failed in report.failed.iter().take(LISTED_MAX) {
        let place = failed
            .folder
            .as_ref()
            .map_or_else(String::new, |folder| format!(" to {}", folder.display()));
        line(format!(
            "{}{place} failed: {} (tried {}, retrying in {})",
            failed.job,
            failed.why,
            times(failed.tries),
            seconds(failed.next_try),
        ));
    }
    if report.failures > LISTED_MAX {
        line(format!(
            "and {} more, listed by --json",
            report.failures - LISTED_MAX
        ));
    }
    if let Some(release) = &report.release {
        describe_release(&mut line, release, since);
    }
    describe_damaged(&mut line, report);
    if let Some(journal) = &report.journal {
        line(format!(
            "{journal}; queued jobs are found again after a restart"
        ));
    }
}

/// Adds what `verify` recorded, of a workspace that is not being archived.
pub(super) fn describe_recorded(text: &mut String, report: &Report, colours: Colours) {
    let state = match (report.damages, report.verified.is_empty()) {
        (0, true) => return,
        (0, false) => "not running".to_owned(),
        (count, _) => colours.paint(&damages(count), Tone::Bad),
    };
    let _ = writeln!(text, "\narchive: {state}");
    let mut line = |line: String| {
        let _ = writeln!(text, "  {}", printable(&line));
    };
    describe_verified(&mut line, report);
    describe_damaged(&mut line, report);
}

/// Adds when all copies of each folder were verified last.
fn describe_verified(line: &mut impl FnMut(String), report: &Report) {
    for verified in &report.verified {
        let VerifiedFolder { folder, last, .. } = verified;
        line(format!(
            "{}: last verified {}: {}",
            folder.display(),
            local(last.at),
            verified.result()
        ));
    }
    if report.verified.is_empty()
        && report
            .folders
            .iter()
            .any(|folder| folder.last_scan.is_some())
    {
        line("never verified: `xpmfs jobs verify --all` reads every copy again".to_owned());
    }
}

/// Adds the rule of automatic releases, and what it did.
fn describe_release(line: &mut impl FnMut(String), release: &ReleaseReport, since: &str) {
    let mut rule = Vec::new();
    if let Some(age) = release.older_than {
        rule.push(format!("jobs not used for {}", age_of(age)));
    }
    if let Some(free) = release.keep_free {
        rule.push(format!(
            "the oldest while less than {} is free",
            HumanBytes(free)
        ));
    }
    let time = |seconds: Option<f64>| {
        let time = Timestamp::from_second(seconds? as i64).ok()?;
        Some(local(time))
    };
    let did = match (release.jobs, time(release.last_release)) {
        (0, _) | (_, None) => format!("none since {since}"),
        (count, Some(last)) => format!(
            "{} since {since} ({} freed), the last {last}: {}",
            jobs(count),
            HumanBytes(release.freed),
            release.last_job.as_deref().unwrap_or_default()
        ),
    };
    line(format!("release {}: {did}", rule.join(", and ")));
    let lacking = release.lacking.unwrap_or_default();
    let then = match (release.searching, &release.waits, time(release.last_search)) {
        (true, ..) => Some("searching for jobs".to_owned()),
        (false, Some(waits), _) => Some(format!("waiting: {waits}")),
        (false, None, Some(last)) if lacking > 0 && !release.enough => {
            Some(format!("no other job could be released at {last}"))
        }
        (false, None, _) if lacking > 0 => Some("next search in 10 min at most".to_owned()),
        (false, None, _) => None,
    };
    match (lacking, then) {
        (0, None) => {}
        (0, Some(then)) => line(format!("release: {then}")),
        (_, then) => line(format!(
            "release: {} more must become free: {}",
            HumanBytes(lacking),
            then.unwrap_or_default()
        )),
    }
    if release.kept > 0 {
        let why = release.why.as_deref().unwrap_or_default();
        let mut command = "xpmfs jobs release -v".to_owned();
        if let Some(age) = release.older_than {
            let _ = write!(command, " --older-than {age}s");
        }
        if let Some(free) = release.keep_free {
            let _ = write!(command, " --keep-free {free}");
        }
        line(format!(
            "release: {} kept, most for this reason: {why}; `{command}` lists them",
            jobs(release.kept)
        ));
    }
}

/// A duration in the largest unit that divides it.
fn age_of(seconds: f64) -> String {
    let seconds = seconds as u64;
    for (unit, name) in [(86_400, "d"), (3600, "h"), (60, "min")] {
        if seconds > 0 && seconds.is_multiple_of(unit) {
            return format!("{} {name}", seconds / unit);
        }
    }
    format!("{seconds} s")
}

fn damages(count: usize) -> String {
    match count {
        1 => "1 copy is damaged or missing".to_owned(),
        count => format!("{count} copies are damaged or missing"),
    }
}

fn describe_damaged(line: &mut impl FnMut(String), report: &Report) {
    for damaged in report.damaged.iter().take(LISTED_MAX) {
        line(damaged.to_string());
    }
    if report.damages > LISTED_MAX {
        let more = report.damages - LISTED_MAX;
        line(format!("and {more} more, listed by --json"));
    }
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
        let again = again(refuses);
        // Jobs that were being copied to a missing folder wait for it too.
        let under_way = folder.under_way.as_ref().filter(|_| away);
        let waiting = folder.waiting + under_way.map_or(0, |under_way| under_way.jobs.len());
        let wait = match waiting {
            0 => String::new(),
            waiting => format!("{} waiting: ", jobs(waiting as u64)),
        };
        line(format!("{place}: {wait}{}; {again}", refuses.why));
    }
    if let Some(trouble) = &folder.trouble {
        line(format!(
            "{place}: some finished jobs may not have been found: {trouble}"
        ));
    }
    match folder.moved_missing {
        0 => {}
        1 => line(format!("{place}: 1 moved job has no copy there yet")),
        count => line(format!(
            "{place}: {count} moved jobs have no copy there yet"
        )),
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

/// The amount that is copied, and the total if it is known.
fn done(under_way: &CopyInProgress) -> String {
    let (files, bytes) = (under_way.files, HumanBytes(under_way.bytes).to_string());
    let Some(total) = &under_way.total else {
        return format!("{files} files, {bytes}");
    };
    let in_all = HumanBytes(total.bytes).to_string();
    // The unit is printed once, if it is the same.
    let bytes = match (bytes.split_once(' '), in_all.split_once(' ')) {
        (Some((number, unit)), Some((_, same))) if unit == same => number,
        _ => &bytes,
    };
    format!("{files} of {} files, {bytes} of {in_all}", total.files)
}

/// When a folder that accepts no job is tried again.
pub(in crate::cli) fn again(refuses: &FolderRefusal) -> String {
    refuses.next_try.map_or_else(
        || "will retry when it is back".to_owned(),
        |next| format!("retrying in {}", seconds(next)),
    )
}

pub(in crate::cli) fn jobs(count: u64) -> String {
    match count {
        1 => "1 job".to_owned(),
        count => format!("{count} jobs"),
    }
}

pub(in crate::cli) fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

pub(in crate::cli) fn seconds(seconds: f64) -> String {
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
        describe(&mut text, &report, "it was mounted", Colours::of_stdout());
        assert_eq!(
            text,
            "\narchive: 1 failed\n  t/a\\nb to /f\\u{1b}[2J failed: no\\r (tried once, retrying in 1 s)\n"
        );
    }

    #[test]
    fn nothing_is_said_to_be_archived_before_it_was_looked_for() {
        let folder = |last_scan: Option<f64>| FolderReport {
            mode: "backup".to_owned(),
            path: "/b".into(),
            waiting: 0,
            under_way: None,
            refuses: None,
            jobs: 0,
            files: 0,
            bytes: 0,
            missing: 0,
            moved_missing: 0,
            last_scan,
            trouble: None,
        };
        let mut report = Report {
            folders: vec![folder(None)],
            ..Report::default()
        };
        assert_eq!(state(&report).0, "looking for finished jobs");
        report.folders = vec![folder(Some(1.0))];
        let all = "all finished jobs are archived".to_owned();
        assert_eq!(state(&report), (all.clone(), Tone::Good));
        report.experiments = vec![ExperimentsReport {
            refuses: Some("read-only".to_owned()),
            ..ExperimentsReport::default()
        }];
        assert!(has_failed(&report));
        assert_eq!(state(&report), (all, Tone::Bad));
    }

    #[test]
    fn progress_has_the_total_where_it_is_known() {
        let shown = |bytes, total| {
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
        assert_eq!(shown(1 << 20, None), "1 files, 1.00 MiB");
        assert_eq!(shown(1 << 20, total), "1 of 5 files, 1.00 MiB of 4.00 GiB");
        assert_eq!(shown(3 << 30, total), "1 of 5 files, 3.00 of 4.00 GiB");
    }
}
