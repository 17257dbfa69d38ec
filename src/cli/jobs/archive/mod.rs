//! `xpmfs jobs archive`. `json`: the lines for programs; `experiments`: runs and partials

mod experiments;
mod json;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use indicatif::HumanBytes;
use serde_json::{Value, json};

use self::json::JsonEntry;
use super::interrupt::{Destinations, Interrupt};
use super::meter::Meter;
use super::session::{Jobs, Session, Which, Work, why};
use crate::archive::error::Scope;
use crate::archive::job::crash_recovery;
use crate::archive::job::opt_out::OptOuts;
use crate::archive::job::ready::{Judge, Readiness, unknown};
use crate::archive::job::store::{Skipped, Stored};
use crate::archive::manual::{self, Outcome};
use crate::archive::relocate::retire::Retired;
use crate::archive::{fresh_records, places, state_dir};
use crate::cli::open::More;
use crate::cli::{Global, Listing, Select, print};
use crate::daemon::archiving;
use crate::workspace::jobs::JobId;

/// Which jobs.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Every finished job of the workspace
    #[arg(long, conflicts_with = "jobs")]
    all: bool,
    /// Also jobs that are opted out, and also where a folder's copy holds more or is newer
    #[arg(long)]
    force: bool,
    /// Accepted and ignored: archiving loses nothing, so it asks nothing.
    #[arg(short, long, hide = true)]
    yes: bool,
    /// The jobs.
    #[command(flatten)]
    pub(super) work: Work,
}

/// Archives every finished job of a workspace.
pub(super) fn all(
    listing: &Listing,
    (select, more): (&Select, &More),
    global: &Global,
) -> anyhow::Result<ExitCode> {
    let arguments = Arguments {
        all: true,
        force: false,
        yes: false,
        work: Work {
            listing: listing.clone(),
            which: Which {
                jobs: Vec::new(),
                more: more.clone(),
                select: select.clone(),
            },
            threads: None,
        },
    };
    archive(&arguments, true, global)
}

/// Counts jobs and copies by their outcome.
#[derive(Default)]
struct Tally {
    copied: u64,
    files: u64,
    bytes: u64,
    up_to_date: u64,
    /// Jobs that were skipped: how many for which reason.
    skipped: BTreeMap<&'static str, u64>,
    failed: u64,
    cancelled: u64,
    /// The errors that affect all jobs of a folder, each with how many jobs it is not printed for: a folder that is away prints one line.
    of_folders: BTreeMap<(String, String), u64>,
    lines: Vec<Value>,
}

pub(super) fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    archive(arguments, false, global)
}

/// Archives the jobs that the arguments name, and if `experiments` also runs and partials.
fn archive(arguments: &Arguments, experiments: bool, global: &Global) -> anyhow::Result<ExitCode> {
    if !arguments.all {
        let all = "every finished job";
        arguments.work.which.expect_jobs("archive", Some(all))?;
    }
    let session = Session::open_to_work(&arguments.work, &[], global)?;
    let session = session.forcing(arguments.force);
    let (env, opened) = (session.env(), &session.opened);
    let retired = Retired::default();
    if places::archives(&opened.view).next().is_none() {
        bail!(
            "the workspace has no `backup` or `move` folder to archive to: add one in {}",
            opened.settings.display()
        );
    }
    let config = archiving::config(&opened.tuning, &opened.folders);
    let judge = Judge::new(OptOuts::new(config.exclude, config.folder_exclude));
    let (jobs, unlisted) = if arguments.all {
        let (jobs, unlisted) = manual::all_jobs(&env, &retired).with_context(|| {
            format!(
                "cannot list the jobs of {}",
                opened.workspace.path.display()
            )
        })?;
        (Jobs::from(jobs), unlisted)
    } else {
        let jobs = session.named(&arguments.work.which)?;
        crash_recovery::heal_of(&env, &jobs.jobs);
        // A recovered job stays in the primary until it is named here.
        for job in jobs.jobs.iter().filter(|job| jobs.is_single(job)) {
            let primary = opened.view.primary();
            state_dir::set_kept(primary, job, false)
                .map_err(|error| anyhow!(state_dir::explain(primary, error)))?;
        }
        (jobs, Vec::new())
    };
    let destinations = Destinations::of(places::archives(&opened.view), &jobs.jobs);
    let interrupt = Interrupt::cancels(&session, destinations.clone());
    let meter = Meter::new(jobs.jobs.len(), &session.progress, global);
    let mut tally = Tally::default();
    for task in &unlisted {
        tally.failed += 1;
        meter.say(&task.to_string());
        tally.lines.push(json!({
            "job": null, "item": null, "folder": null, "result": "unlisted", "reason": null,
            "files": null, "bytes": null, "why": task.to_string(),
        }));
    }
    let report = &mut |job: &JobId, outcome| {
        let single = jobs.is_single(job);
        // The cleanup before `--all` warns of those that cannot be opened: it reads no manifest twice.
        if let Outcome::NotReady(Readiness::Elsewhere | Readiness::Purged) = outcome
            && single
        {
            let unreadable = manual::unreadable_manifests(&env, job);
            let is_unreadable = !unreadable.is_empty();
            for (folder, error) in unreadable {
                let outcome = Outcome::Folder(folder, Err(error));
                tally.add(&session, (job, single), outcome, &meter, global);
            }
            if is_unreadable {
                return;
            }
        }
        tally.add(&session, (job, single), outcome, &meter, global);
    };
    manual::archive(&env, &retired, &judge, &jobs.jobs, arguments.force, report);
    tally.print_repeated(&meter, global);
    let items = experiments.then(|| experiments::archive(&session, &judge, &meter, global));
    if experiments {
        // The whole workspace is archived, perhaps regularly and without a mount.
        fresh_records::renew(opened.view.primary());
    }
    if tally.copied > 0 {
        for folder in places::archives(&opened.view) {
            if let Err(error) = opened.view.record_now(folder) {
                let folder = folder.path().display();
                tracing::debug!("cannot record the jobs of the folder {folder}: {error}");
            }
        }
    }
    meter.end();
    let interrupted = interrupt.came();
    drop(interrupt);
    let items = items.unwrap_or_default();
    tally.failed += items.failed;
    if global.json {
        tally.lines.extend(items.lines);
        print::json(&tally.lines)?;
    } else if !global.quiet {
        print::line(&tally.summary());
        if let Some(summary) = &items.summary {
            print::line(summary);
        }
    }
    if interrupted {
        destinations
            .describe()
            .iter()
            .for_each(|it| print::line(it));
    }
    Ok(match tally.failed {
        0 if !interrupted => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

impl Tally {
    fn add(
        &mut self,
        session: &Session,
        (job, single): (&JobId, bool),
        outcome: Outcome,
        meter: &Meter,
        global: &Global,
    ) {
        let mut listed = JsonEntry::of(&outcome, |folder| session.label(folder));
        let scope = match &outcome {
            Outcome::Folder(_, Err(error)) => error.scope(),
            _ => Scope::Job,
        };
        let (folder, result, why, wrong) = match outcome {
            Outcome::Folder(_, Err(error)) | Outcome::Unknown(error) if error.is_cancelled() => {
                self.cancelled += 1;
                self.lines.push(listed.json(job, None));
                return meter.job();
            }
            Outcome::Folder(folder, Ok(stored)) => {
                let place = session.label(folder);
                let (result, why) = self.stored(stored, place.starts_with("move:"));
                if global.verbose > 0 || (why.is_some() && !global.quiet) {
                    let why = why
                        .as_ref()
                        .map_or_else(String::new, |why| format!(": {why}"));
                    meter.say(&format!("{job}: {result} {place}{why}"));
                }
                (Some(place), result, why, false)
            }
            Outcome::Folder(folder, Err(error)) => (
                Some(session.label(folder)),
                "failed",
                Some(why(&error)),
                true,
            ),
            // The archive has logged that it was put back.
            Outcome::PutBack { again: true } => return meter.jobs(1),
            Outcome::PutBack { again: false } => {
                let why =
                    "a process wrote to it after each move, so it was put back: try again later";
                (None, "not archived", Some(why.to_owned()), true)
            }
            Outcome::Unknown(error) => (None, "failed", Some(why(&error)), true),
            // `--all`, a task and a glob select the jobs that can be archived.
            Outcome::NotReady(readiness) if !single && is_usual(&readiness) => {
                if let Readiness::OptedOut(_) = readiness {
                    self.skip("opted out");
                    self.lines
                        .push(listed.json(job, Some(not_ready(&readiness))));
                }
                return meter.job();
            }
            Outcome::NotReady(readiness) => {
                // A job that was moved before is archived.
                let wrong = readiness != Readiness::Elsewhere;
                let why = not_ready(&readiness);
                if !wrong {
                    self.up_to_date += 1;
                    if !global.quiet {
                        meter.say(&format!("{job}: {why}"));
                    }
                }
                (None, "not archived", Some(why), wrong)
            }
        };
        if wrong {
            self.failed += 1;
            let why = why.as_deref().unwrap_or_default();
            let is_repeated = self.repeats(job, scope, folder.as_deref(), why);
            if !is_repeated || global.verbose > 0 {
                let place = folder.as_ref();
                let place = place.map_or_else(String::new, |folder| format!(" in {folder}"));
                meter.say(&format!("{job}: {result}{place}: {why}"));
            }
        }
        meter.job();
        listed.folder = folder;
        self.lines.push(listed.json(job, why));
    }

    /// Whether an error that affects all jobs of a folder was printed for another job.
    fn repeats(&mut self, job: &JobId, scope: Scope, folder: Option<&str>, why: &str) -> bool {
        let of_any_job = match scope {
            Scope::Folder => why.replace(&job.to_string(), "JOB"),
            // Each job needs another amount of space.
            Scope::Space => String::new(),
            _ => return false,
        };
        let error = (folder.unwrap_or_default().to_owned(), of_any_job);
        match self.of_folders.get_mut(&error) {
            Some(more) => {
                *more += 1;
                true
            }
            None => {
                self.of_folders.insert(error, 0);
                false
            }
        }
    }

    /// Prints how many jobs failed for reasons that were printed for another job.
    fn print_repeated(&self, meter: &Meter, global: &Global) {
        for ((folder, _), more) in self.of_folders.iter().filter(|(_, more)| **more > 0) {
            if global.verbose == 0 {
                let jobs = if *more == 1 { "job" } else { "jobs" };
                meter.say(&format!(
                    "{more} more {jobs} failed in {folder} for the same reason (-v lists them)"
                ));
            }
        }
    }

    fn stored(&mut self, stored: Stored, moves: bool) -> (&'static str, Option<String>) {
        match stored {
            Stored::Copied { files, bytes } => {
                self.count(files, bytes);
                (if moves { "moved to" } else { "copied to" }, None)
            }
            Stored::Replaced { files, bytes } => {
                self.count(files, bytes);
                ("replaced in", None)
            }
            Stored::Already => {
                self.up_to_date += 1;
                let result = match moves {
                    true => "moved to its copy in",
                    false => "up to date in",
                };
                (result, None)
            }
            Stored::Skipped(reason) => {
                if let Some(why) = skipped(reason) {
                    self.skip(why);
                }
                (
                    "skipped in",
                    (reason != Skipped::Gone).then(|| reason.to_string()),
                )
            }
        }
    }

    fn skip(&mut self, why: &'static str) {
        *self.skipped.entry(why).or_default() += 1;
    }

    fn count(&mut self, files: u64, bytes: u64) {
        self.copied += 1;
        self.files += files;
        self.bytes += bytes;
    }

    /// `3 copies made (12 files, 5.00 MiB): 4 up to date, 1 opted out`
    fn summary(&self) -> String {
        let size = format!("({} files, {})", self.files, HumanBytes(self.bytes));
        let text = match self.copied {
            0 if self.failed > 0 => "nothing copied".to_owned(),
            0 => "nothing to copy".to_owned(),
            1 => format!("1 copy made {size}"),
            copied => format!("{copied} copies made {size}"),
        };
        let mut others = Vec::new();
        if self.up_to_date > 0 {
            others.push(format!("{} up to date", self.up_to_date));
        }
        others.extend(
            self.skipped
                .iter()
                .map(|(why, count)| format!("{count} {why}")),
        );
        if self.failed > 0 {
            others.push(format!("{} failed", self.failed));
        }
        let mut text = match others.is_empty() {
            true => text,
            false => format!("{text}: {}", others.join(", ")),
        };
        if self.cancelled > 0 {
            text.push_str(&format!("; interrupted: {} not archived", self.cancelled));
        }
        text
    }
}

/// The reason in the summary for a skipped job; `None` for one that has been removed meanwhile.
fn skipped(reason: Skipped) -> Option<&'static str> {
    match reason {
        Skipped::Gone => None,
        Skipped::Unfinished => Some("no longer finished"),
        Skipped::Older => Some("skipped: the copy is newer or more complete"),
        Skipped::Purged => Some("skipped: purged here, whole in a folder"),
        Skipped::Kept => Some("recovered, so not moved back"),
    }
}

/// Whether most workspaces have such jobs.
fn is_usual(readiness: &Readiness) -> bool {
    matches!(
        readiness,
        Readiness::Unfinished
            | Readiness::Purged
            | Readiness::Failed
            | Readiness::Elsewhere
            | Readiness::OptedOut(_)
            | Readiness::Absent
    )
}

/// Why a job is not archived.
pub(in crate::cli) fn not_ready(readiness: &Readiness) -> String {
    match readiness {
        Readiness::Ready { .. } => "ready".to_owned(),
        Readiness::Settling(_) => "still changing: try again later".to_owned(),
        Readiness::Busy(why) => format!("{why}: try again later"),
        Readiness::Unfinished => "not finished: it has no `.done`".to_owned(),
        Readiness::Purged => {
            "a purge has removed files of it, and a folder has it whole: `xpmfs jobs recover` completes it"
                .to_owned()
        }
        Readiness::Failed => "failed, and only jobs that succeeded are archived".to_owned(),
        Readiness::Elsewhere => "already in a folder, and no longer in the primary".to_owned(),
        Readiness::Lost => {
            "the workspace has a symlink in its place, and no `backup` or `move` folder has the job"
                .to_owned()
        }
        Readiness::Absent => "not in the primary".to_owned(),
        Readiness::OptedOut(how) => {
            format!("opted out, as {how}: --force archives it nevertheless")
        }
        Readiness::Unknown(file) => unknown(file),
    }
}
