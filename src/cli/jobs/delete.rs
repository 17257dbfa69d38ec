//! `xpmfs jobs delete`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::HumanBytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::interrupt::{Destinations, Interrupt};
use super::meter::Meter;
use super::session::{Jobs, Session, Work, why};
use crate::archive::deletions::{DeletionEvent, delete_jobs};
use crate::archive::job::release::Reason;
use crate::archive::job::trash::assess::{DeletionPlan, PlannedCopy};
use crate::archive::job::trash::batch::Batch;
use crate::archive::job::trash::delete::Deleted;
use crate::archive::job::trash::folder::Completed;
use crate::archive::places;
use crate::archive::relocate::retire::Retired;
use crate::archive::relocate::unfinished;
use crate::cli::first_jobs::FirstJobs;
use crate::cli::neighbours::{Neighbour, neighbours};
use crate::cli::style::{duration, local};
use crate::cli::{Global, print};
use crate::workspace::jobs::JobId;

/// Which jobs.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Delete them; without this, only print what would be deleted
    #[arg(short, long)]
    yes: bool,
    /// The jobs.
    #[command(flatten)]
    pub(super) work: Work,
}

/// What the command prints about its jobs.
struct Report<'a> {
    session: &'a Session,
    jobs: &'a Jobs,
    global: &'a Global,
    /// The other workspaces that use a location, by its number.
    neighbours: BTreeMap<u8, Vec<Neighbour>>,
    batch: Batch,
    keep: Duration,
}

pub(super) fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    arguments.work.which.expect_jobs("delete", None)?;
    let session = Session::open_to_work(&arguments.work, &[], global)?;
    let env = session.env();
    let jobs = session.named_or_on_record(&arguments.work.which)?;
    unfinished::clear_of(&env, &Retired::default(), &jobs.jobs);
    let interrupt = Interrupt::cancels(&session, Destinations::default());
    let meter = Meter::new(jobs.jobs.len(), &session.progress, global);
    let report = Report {
        session: &session,
        jobs: &jobs,
        global,
        neighbours: neighbours(&session.opened, global)?,
        batch: Batch::now(),
        keep: session.opened.tuning.trash(),
    };
    let tally = Mutex::new(Tally::default());
    let batch = arguments.yes.then_some(&report.batch);
    delete_jobs(&env, &jobs.jobs, batch, &|job, event| {
        meter.job();
        let mut tally = tally.lock();
        tally.add(&report, job, &event);
        if global.json {
            let entry = report.as_json(job, &event);
            tally.lines.insert(job.clone(), entry);
        }
        for line in report.lines(job, &event, &mut tally.first) {
            meter.say(&line);
        }
    });
    meter.end();
    let interrupted = interrupt.came();
    drop(interrupt);
    let tally = tally.into_inner();
    if global.json {
        let named = jobs.jobs.iter();
        let lines: Vec<&Value> = named.filter_map(|job| tally.lines.get(job)).collect();
        print::json(&lines)?;
    } else if !global.quiet {
        if let Some(rest) = tally.first.rest() {
            print::line(&rest);
        }
        for line in report.notes(&tally) {
            print::line(&line);
        }
        print::line(&tally.summary(arguments.yes, report.keep));
    }
    if interrupted {
        print::line("interrupted: every job is either deleted or as it was");
    }
    Ok(match tally.failed == 0 && !interrupted {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Counts jobs by their outcome.
#[derive(Default)]
struct Tally {
    deleted: u64,
    freed: u64,
    refused: u64,
    /// How many of these for each reason.
    reasons: BTreeMap<&'static str, u64>,
    failed: u64,
    /// The locations that copies are deleted in.
    locations: BTreeSet<u8>,
    lines: BTreeMap<JobId, Value>,
    first: FirstJobs,
}

impl Tally {
    fn add(&mut self, report: &Report<'_>, job: &JobId, event: &DeletionEvent) {
        match event {
            DeletionEvent::Would(plan) => self.add_plan(plan),
            DeletionEvent::Deleted(plan, deleted) => {
                self.add_plan(plan);
                let failed = deleted.folders.iter().any(|(_, it)| it.is_err());
                self.failed += u64::from(failed);
            }
            DeletionEvent::Refused(refusal) => {
                self.refused += 1;
                *self.reasons.entry(describe(refusal.reason)).or_default() += 1;
                self.failed += u64::from(report.jobs.is_single(job));
            }
            DeletionEvent::Failed(error) if error.is_cancelled() => {}
            DeletionEvent::Failed(_) => self.failed += 1,
        }
    }

    fn add_plan(&mut self, plan: &DeletionPlan) {
        self.deleted += 1;
        self.freed = self.freed.saturating_add(freed(plan));
        self.locations
            .extend(plan.copies.iter().map(|it| it.location));
    }

    /// `3 jobs would be deleted, 1 kept (pinned); --yes deletes them`
    fn summary(&self, act: bool, keep: Duration) -> String {
        let jobs = match self.deleted {
            1 => "1 job".to_owned(),
            count => format!("{count} jobs"),
        };
        let freed = HumanBytes(self.freed);
        let mut text = match (self.deleted, act) {
            (0, true) => "nothing deleted".to_owned(),
            (0, false) => "nothing to delete".to_owned(),
            (_, true) => format!("{jobs} deleted"),
            (_, false) => format!("{jobs} would be deleted"),
        };
        if self.refused > 0 {
            let reasons = self.reasons.iter();
            let reasons: Vec<String> = match self.reasons.len() {
                1 => reasons.map(|(why, _)| (*why).to_owned()).collect(),
                _ => reasons
                    .map(|(why, count)| format!("{count} {why}"))
                    .collect(),
            };
            let reasons = reasons.join("; ");
            text.push_str(&format!(", {} kept ({reasons})", self.refused));
        }
        if self.deleted > 0 {
            text.push_str(&format!(
                "; {freed} are freed when {} removed from the trash, after {}",
                if self.deleted == 1 {
                    "it is"
                } else {
                    "they are"
                },
                duration(keep)
            ));
            text.push_str(match act {
                true => ". `xpmfs jobs undelete` brings jobs back until then",
                false => ". --yes deletes",
            });
        }
        text
    }
}

/// The bytes that are free when the copies are removed from the trash.
pub(in crate::cli) fn freed(plan: &DeletionPlan) -> u64 {
    let freed = plan.copies.iter().map(|copy| copy.usage.freed);
    freed.fold(0, u64::saturating_add)
}

/// The outcome in a location, by its fixed name, and why it is not complete.
pub(in crate::cli) fn outcome_in(
    copy: &PlannedCopy,
    deleted: Option<&Deleted>,
) -> (&'static str, Option<String>) {
    let Some(deleted) = deleted else {
        return ("present", None);
    };
    let of_folder = |(folder, _): &&(u8, _)| *folder == copy.location;
    match deleted.folders.iter().find(of_folder) {
        None => ("trash", None),
        Some((_, Ok(Completed::Moved | Completed::Nothing))) => ("trash", None),
        Some((_, Ok(Completed::Busy))) => {
            ("pending", Some("another process works on it".to_owned()))
        }
        Some((_, Ok(Completed::Away(why)))) => ("pending", Some(why.clone())),
        Some((_, Err(error))) => ("failed", Some(why(error))),
    }
}

impl Report<'_> {
    fn until(&self) -> Option<Timestamp> {
        self.batch.at().checked_add(self.keep).ok()
    }

    /// What is printed about a job; of those that would be deleted by a task or glob, the first few.
    fn lines(&self, job: &JobId, event: &DeletionEvent, first: &mut FirstJobs) -> Vec<String> {
        let single = self.jobs.is_single(job) && !self.global.quiet;
        let verbose = self.global.verbose > 0;
        match event {
            DeletionEvent::Would(plan) if single || verbose => self.of_plan(plan, None),
            DeletionEvent::Would(plan)
                if !self.global.quiet && !self.global.json && first.lists_next() =>
            {
                self.of_plan(plan, None)
            }
            DeletionEvent::Deleted(plan, deleted) => {
                let mut lines = match single || verbose {
                    true => self.of_plan(plan, Some(deleted)),
                    false => Vec::new(),
                };
                for copy in &plan.copies {
                    if let ("failed", Some(why)) = outcome_in(copy, Some(deleted)) {
                        lines.push(format!(
                            "{job}: its copy in {} does not show any more, but cannot be moved to the trash: {why}",
                            self.session.label(copy.location)
                        ));
                    }
                }
                lines
            }
            DeletionEvent::Refused(refusal) if self.jobs.is_single(job) || verbose => {
                vec![format!("{job}: kept: {}", refusal.why)]
            }
            DeletionEvent::Failed(error) if !error.is_cancelled() => {
                vec![format!("{job}: {}", why(error))]
            }
            _ => Vec::new(),
        }
    }

    fn of_plan(&self, plan: &DeletionPlan, deleted: Option<&Deleted>) -> Vec<String> {
        let job = &plan.job;
        let places = plan.copies.iter().map(|copy| {
            let label = self.session.label(copy.location);
            match &copy.link {
                Some(target) => format!("{label} (a symlink to {})", target.display()),
                None => format!("{label} ({})", HumanBytes(copy.usage.size.bytes)),
            }
        });
        let places: Vec<String> = places.collect();
        let done = match deleted {
            None => "would be deleted",
            Some(_) => "deleted",
        };
        let mut lines = vec![match places.is_empty() {
            true => format!("{job}: {done}"),
            false => format!("{job}: {done} in {}", places.join(", ")),
        }];
        for (folder, why) in &plan.away {
            lines.push(format!(
                "{job}: {} cannot be used now ({why}): a copy there is deleted when it is back",
                self.session.label(*folder)
            ));
        }
        for copy in &plan.copies {
            if let ("pending", Some(why)) = outcome_in(copy, deleted)
                && !plan.away.iter().any(|(away, _)| *away == copy.location)
            {
                lines.push(format!(
                    "{job}: its copy in {} is deleted later: {why}",
                    self.session.label(copy.location)
                ));
            }
        }
        for folder in &plan.stays {
            lines.push(format!(
                "{job}: stays visible: {} has it, and nothing is deleted there",
                self.session.label(*folder)
            ));
        }
        if let (Some(_), Some(until)) = (deleted, self.until()) {
            lines.push(format!(
                "{job}: `xpmfs jobs undelete {job}` brings it back until {}",
                local(until)
            ));
        }
        lines
    }

    /// What is printed about other workspaces, once for each.
    fn notes(&self, tally: &Tally) -> Vec<String> {
        let mut notes = BTreeSet::new();
        for (location, others) in &self.neighbours {
            for other in others.iter().filter(|_| tally.locations.contains(location)) {
                notes.insert(format!(
                    "note: the workspace {} uses {} too{}: what is deleted there is gone from it as well, and it may archive its own copies again",
                    other.workspace,
                    self.session.label(*location),
                    other.how()
                ));
            }
        }
        notes.into_iter().collect()
    }

    /// The entry of a job: docs/json.md lists the keys.
    fn as_json(&self, job: &JobId, event: &DeletionEvent) -> Value {
        let (result, plan, deleted, reason, why) = match event {
            DeletionEvent::Would(plan) => ("would_delete", Some(plan), None, None, None),
            DeletionEvent::Deleted(plan, deleted) => {
                ("deleted", Some(plan), Some(deleted), None, None)
            }
            DeletionEvent::Refused(refusal) => {
                let reason = Some(name(refusal.reason));
                ("kept", None, None, reason, Some(refusal.why.clone()))
            }
            DeletionEvent::Failed(error) if error.is_cancelled() => {
                ("cancelled", None, None, None, None)
            }
            DeletionEvent::Failed(error) => ("failed", None, None, None, Some(why(error))),
        };
        let label = |location: u8| self.session.label(location);
        let copies = plan.into_iter().flat_map(|plan| &plan.copies);
        let copies = copies.map(|copy| {
            let (state, why) = outcome_in(copy, deleted);
            json!({
                "location": label(copy.location),
                "path": copy.path.to_string_lossy(),
                "state": state,
                "target": copy.link.as_ref().map(|target| target.to_string_lossy()),
                "files": copy.usage.size.files,
                "bytes": copy.usage.size.bytes,
                "freed": copy.usage.freed,
                "why": why,
            })
        });
        let away = plan.into_iter().flat_map(|plan| &plan.away);
        let away = away.map(|(folder, why)| json!({ "location": label(*folder), "why": why }));
        let stays = plan.into_iter().flat_map(|plan| &plan.stays);
        let used = plan.into_iter().flat_map(|plan| &plan.copies);
        let used = used.flat_map(|copy| {
            let others = self.neighbours.get(&copy.location).into_iter().flatten();
            others.map(|other| {
                json!({
                    "location": label(copy.location),
                    "workspace": other.workspace,
                    "mode": other.mode.map(|mode| mode.to_string()),
                })
            })
        });
        let path = places::path(self.session.opened.view.primary(), job);
        let until = deleted.and_then(|_| self.until());
        json!({
            "job": job.to_string(),
            "path": path.to_string_lossy(),
            "result": result,
            "reason": reason,
            "freed": plan.map(freed),
            "deleted": deleted.map(|_| self.batch.at().to_string()),
            "until": until.map(|until| until.to_string()),
            "copies": copies.collect::<Vec<_>>(),
            "away": away.collect::<Vec<_>>(),
            "stays_visible": stays.map(|folder| label(*folder)).collect::<Vec<_>>(),
            "used_by": used.collect::<Vec<_>>(),
            "why": why,
        })
    }
}

/// The fixed name of a reason.
/// A reason in the summary.
fn describe(reason: Reason) -> &'static str {
    match reason {
        Reason::Absent => "not in the primary, nor in a `backup` or `move` folder",
        Reason::Pinned => "pinned",
        Reason::Busy => "in use",
        Reason::Changed => "changed meanwhile",
        _ => "-v shows why",
    }
}

fn name(reason: Reason) -> &'static str {
    match reason {
        Reason::Absent => "absent",
        Reason::Pinned => "pinned",
        Reason::Busy => "busy",
        Reason::Changed => "changed",
        _ => "unsafe",
    }
}
