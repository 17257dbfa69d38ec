//! `xpmfs jobs release`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::HumanBytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::interrupt::{Destinations, Interrupt};
use super::meter::Meter;
use super::session::{Jobs, Session, Work, why};
use crate::archive::job::release::{Reason, Released};
use crate::archive::places;
use crate::archive::releases::{ReleaseEvent, ReleaseSearch, release_by_rule, release_jobs};
use crate::archive::relocate::retire::Retired;
use crate::archive::relocate::unfinished;
use crate::cli::errors::Usage;
use crate::cli::first_jobs::FirstJobs;
use crate::cli::style::local;
use crate::cli::{Global, print};
use crate::settings::{KeepFree, Release, parse_duration, parse_keep_free};
use crate::transfer::Time;
use crate::workspace::jobs::JobId;

/// Which jobs, or by which rule.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Jobs that were not used for this long, as in 30d or 12h
    #[arg(long, value_name = "TIME", conflicts_with = "jobs", value_parser = parse_duration)]
    older_than: Option<Duration>,
    /// Jobs until this much of the primary's file system is free, as in 200G or 10%; stops as soon as enough is free
    #[arg(long, value_name = "SIZE", conflicts_with = "jobs", value_parser = parse_keep_free)]
    keep_free: Option<KeepFree>,
    /// Release them; without this, only print what would be released
    #[arg(short, long)]
    yes: bool,
    /// The jobs.
    #[command(flatten)]
    pub(super) work: Work,
}

pub(super) fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    let rule = Release {
        keep_free: arguments.keep_free,
        older_than: arguments.older_than,
    };
    let by_rule = rule != Release::default();
    if !by_rule && arguments.work.which.jobs.is_empty() {
        let message = "name the jobs to release, or give --older-than or --keep-free";
        return Err(Usage(message.to_owned()).into());
    }
    let session = Session::open_to_work(&arguments.work, &[], global)?;
    let env = session.env();
    let retired = Retired::default();
    let jobs = match by_rule {
        true => {
            let cleared = unfinished::clear_all(&env, &retired);
            cleared.map_err(|error| unlisted(&session, error))?;
            Jobs::default()
        }
        false => {
            let jobs = session.named(&arguments.work.which)?;
            unfinished::clear_of(&env, &retired, &jobs.jobs);
            jobs
        }
    };
    let interrupt = Interrupt::cancels(&session, Destinations::default());
    let meter = Meter::new(jobs.jobs.len(), &session.progress, global);
    let mut tally = Tally::default();
    let mut lines = Vec::new();
    let mut first = FirstJobs::default();
    let mut report = |job: &JobId, event: ReleaseEvent| {
        if by_rule {
            meter.jobs(1);
        }
        meter.job();
        let single = jobs.is_single(job);
        tally.add(&event, single);
        if global.json {
            lines.push(as_json(&session, job, &event));
        }
        if let Some(line) = shown(&session, job, &event, single, &mut first, global) {
            meter.say(&line);
        }
    };
    let enough = match by_rule {
        true => release_by_rule(&env, ReleaseSearch::of(rule), arguments.yes, &mut report),
        false => {
            release_jobs(&env, &jobs.jobs, arguments.yes, &mut report);
            Ok(true)
        }
    };
    meter.end();
    let interrupted = interrupt.came();
    drop(interrupt);
    let enough = enough.map_err(|error| unlisted(&session, error))?;
    if global.json {
        print::json(&lines)?;
    } else if !global.quiet {
        if let Some(rest) = first.rest() {
            print::line(&rest);
        }
        print::line(&tally.summary(arguments.yes));
    }
    if interrupted {
        print::line("interrupted: every job is whole, either in the primary or in its folder");
    } else if !enough && !global.quiet {
        print::line(match arguments.yes {
            true => "less is free than --keep-free asks for, and no other job can be released",
            false => "less would be free than --keep-free asks for",
        });
    }
    Ok(match tally.failed == 0 && enough && !interrupted {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn unlisted(session: &Session, error: rustix::io::Errno) -> anyhow::Error {
    let primary = session.opened.view.primary_path().display();
    let cause = std::io::Error::from(error);
    anyhow::anyhow!("cannot find the jobs of {primary}: {cause}")
}

/// Counts jobs by their outcome.
#[derive(Default)]
struct Tally {
    released: u64,
    freed: u64,
    refused: u64,
    /// How many of these for each reason.
    reasons: BTreeMap<&'static str, u64>,
    /// Errors, and jobs that were named one by one and refused.
    failed: u64,
}

impl Tally {
    fn add(&mut self, event: &ReleaseEvent, single: bool) {
        match event {
            ReleaseEvent::Would(released) | ReleaseEvent::Released(released) => {
                self.released += 1;
                self.freed = self.freed.saturating_add(released.usage.freed);
            }
            ReleaseEvent::Refused(refusal) => {
                self.refused += 1;
                *self.reasons.entry(refusal.reason.describe()).or_default() += 1;
                // There is nothing to do for a job that was released before.
                self.failed += u64::from(single && refusal.reason != Reason::Absent);
            }
            ReleaseEvent::Failed(error) if error.is_cancelled() => {}
            ReleaseEvent::Failed(_) => self.failed += 1,
            ReleaseEvent::Skipped => {}
        }
    }

    /// `3 jobs would be released (5.00 MiB): 1 kept (pinned); --yes releases them`
    fn summary(&self, act: bool) -> String {
        let jobs = match self.released {
            1 => "1 job".to_owned(),
            count => format!("{count} jobs"),
        };
        let freed = HumanBytes(self.freed);
        let mut text = match (self.released, act) {
            (0, true) => "nothing released".to_owned(),
            (0, false) => "nothing to release".to_owned(),
            (_, true) => format!("{jobs} released ({freed} freed)"),
            (_, false) => format!("{jobs} would be released ({freed} freed)"),
        };
        if self.refused > 0 {
            let reasons: Vec<String> = match self.reasons.len() {
                1 => self.reasons.keys().map(|&why| why.to_owned()).collect(),
                _ => self
                    .reasons
                    .iter()
                    .map(|(why, count)| format!("{count} {why}"))
                    .collect(),
            };
            let reasons = reasons.join("; ");
            text.push_str(&format!(": {} kept ({reasons})", self.refused));
        }
        if self.released > 0 && !act {
            text.push_str("; --yes verifies their archived copies and releases them");
        }
        text
    }
}

/// The line for one job: why it is kept, if it was named or with `-v`; what was freed, likewise; what would be freed, of the first few.
fn shown(
    session: &Session,
    job: &JobId,
    event: &ReleaseEvent,
    single: bool,
    first: &mut FirstJobs,
    global: &Global,
) -> Option<String> {
    let verbose = global.verbose > 0;
    match event {
        ReleaseEvent::Would(released) if verbose || !global.quiet => {
            let line = format!("{job}: would be released: {}", details(session, released));
            let listed = verbose || single || (!global.json && first.lists_next());
            listed.then_some(line)
        }
        ReleaseEvent::Released(released) if verbose || (single && !global.quiet) => {
            Some(format!("{job}: released: {}", details(session, released)))
        }
        ReleaseEvent::Refused(refusal)
            if verbose || single || refusal.reason == Reason::Damaged =>
        {
            Some(format!("{job}: kept: {}", refusal.why))
        }
        ReleaseEvent::Failed(error) if !error.is_cancelled() => {
            Some(format!("{job}: {}", why(error)))
        }
        _ => None,
    }
}

fn details(session: &Session, released: &Released) -> String {
    let freed = HumanBytes(released.usage.freed);
    let folder = session.label(released.folder);
    match timestamp(released.usage.last_used) {
        Some(used) => format!(
            "{freed} freed, last used {}, served by {folder}",
            local(used)
        ),
        None => format!("{freed} freed, served by {folder}"),
    }
}

fn timestamp(time: Time) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanoseconds.cast_signed()).ok()
}

/// The entry of a job: docs/json.md lists the keys.
fn as_json(session: &Session, job: &JobId, event: &ReleaseEvent) -> Value {
    let (result, released, reason, why) = match event {
        ReleaseEvent::Would(released) => ("would_release", Some(released), None, None),
        ReleaseEvent::Released(released) => ("released", Some(released), None, None),
        ReleaseEvent::Refused(refusal) => {
            let why = Some(refusal.why.clone());
            ("kept", None, Some(name(refusal.reason)), why)
        }
        ReleaseEvent::Failed(error) if error.is_cancelled() => ("cancelled", None, None, None),
        ReleaseEvent::Failed(error) => ("failed", None, None, Some(why(error))),
        ReleaseEvent::Skipped => ("kept", None, None, None),
    };
    let path = places::path(session.opened.view.primary(), job);
    let used = released.and_then(|released| timestamp(released.usage.last_used));
    json!({
        "job": job.to_string(),
        "path": path.to_string_lossy(),
        "result": result,
        "reason": reason,
        "folder": released.map(|released| session.label(released.folder)),
        "files": released.map(|released| released.usage.size.files),
        "bytes": released.map(|released| released.usage.size.bytes),
        "freed": released.map(|released| released.usage.freed),
        "last_used": used.map(|used| used.to_string()),
        "why": why,
    })
}

/// The fixed name of a reason.
fn name(reason: Reason) -> &'static str {
    match reason {
        Reason::Absent => "absent",
        Reason::Unfinished => "unfinished",
        Reason::Failed => "job_failed",
        Reason::Pinned => "pinned",
        Reason::Busy => "busy",
        Reason::Changed => "changed",
        Reason::NoCopy => "no_copy",
        Reason::Offline => "offline",
        Reason::Damaged => "damaged",
        Reason::Unsafe => "unsafe",
    }
}
