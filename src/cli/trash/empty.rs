//! `xpmfs trash empty`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use indicatif::HumanBytes;
use serde_json::{Value, json};

use crate::archive::job::trash::empty;
use crate::archive::job::trash::list::{InTrash, Listed, list_trash};
use crate::archive::places;
use crate::cli::first_jobs::FirstJobs;
use crate::cli::jobs::find_among;
use crate::cli::jobs::interrupt::{Destinations, Interrupt};
use crate::cli::jobs::meter::Meter;
use crate::cli::jobs::session::{Session, Which};
use crate::cli::{Global, Listing, print};
use crate::workspace::jobs::JobId;

/// Which jobs.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Remove them; without this, only print what would be removed
    #[arg(short, long)]
    yes: bool,
    /// How the outcome is printed.
    #[command(flatten)]
    pub(super) listing: Listing,
    /// The jobs; without any, all that were deleted.
    #[command(flatten)]
    which: Which,
}

pub(super) fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    let session = Session::open(&arguments.which, &[], global)?;
    let env = session.env();
    let Listed { jobs, unseen } = list_trash(&env);
    let jobs: Vec<InTrash> = match arguments.which.jobs.is_empty() {
        true => jobs,
        false => {
            let known: BTreeSet<JobId> = jobs.iter().map(|it| it.job.clone()).collect();
            let mut named = BTreeSet::new();
            for text in &arguments.which.jobs {
                named.extend(find_among(&session.opened, text, &known)?);
            }
            let jobs = jobs.into_iter();
            jobs.filter(|it| named.contains(&it.job)).collect()
        }
    };
    let interrupt = Interrupt::cancels(&session, Destinations::default());
    let meter = Meter::new(jobs.len(), &session.progress, global);
    let (mut lines, mut count, mut freed, mut failed) = (Vec::new(), 0_u64, 0_u64, 0_u64);
    let mut first = FirstJobs::default();
    for deleted in &jobs {
        if env.progress.is_cancelled() {
            break;
        }
        let mut entry = Removal::default();
        for copy in &deleted.copies {
            let usage = copy.usage(&env, deleted);
            let own = usage.map_or(0, |(_, freed)| freed);
            entry.freed = entry.freed.saturating_add(own);
        }
        if arguments.yes
            && let Err(why) = remove(&session, deleted)
        {
            meter.say(&format!("{}: {why}", deleted.job));
            (entry.why, entry.freed) = (Some(why), 0);
        }
        meter.job();
        match entry.why.is_some() {
            true => failed += 1,
            false => count += u64::from(!deleted.copies.is_empty()),
        }
        freed = freed.saturating_add(entry.freed);
        let line = |what: &str| format!("{}: {what} ({})", deleted.job, HumanBytes(entry.freed));
        let line = match (arguments.yes, global.verbose > 0) {
            (true, true) => Some(line("removed")),
            (true, false) => None,
            (false, true) => Some(line("would be removed")),
            (false, false) if global.quiet || global.json => None,
            (false, false) => first.lists_next().then(|| line("would be removed")),
        };
        if let Some(line) = line {
            meter.say(&line);
        }
        lines.push(entry.as_json(deleted, arguments.yes));
    }
    if arguments.yes {
        for location in env.view.locations() {
            // The next call tries again.
            let _ = empty::sweep(location);
        }
    }
    meter.end();
    let interrupted = interrupt.came();
    drop(interrupt);
    for unseen in unseen.iter().filter(|_| !global.quiet) {
        print::line(&format!("note: {unseen}"));
    }
    if global.json {
        print::json(&lines)?;
    } else if !global.quiet {
        if let Some(rest) = first.rest() {
            print::line(&rest);
        }
        print::line(&summary(count, freed, arguments.yes));
    }
    if interrupted {
        print::line("interrupted: the other jobs are still in the trash");
    }
    Ok(match failed == 0 && !interrupted {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Removes what every location that can be used has of a deleted job, also where only records of it are left.
fn remove(session: &Session, deleted: &InTrash) -> Result<(), String> {
    let view = &session.opened.view;
    let locations = std::iter::once(view.primary()).chain(places::archives(view));
    let mut first = Ok(());
    for location in locations.filter(|location| location.root().is_ok()) {
        let removed = empty::remove(location, &deleted.batch, &deleted.job);
        if let Err(error) = removed
            && first.is_ok()
        {
            let path = location.path().display();
            first = Err(format!(
                "cannot remove it from the trash of {path}: {error}"
            ));
        }
    }
    first
}

/// What became of a job.
#[derive(Default)]
struct Removal {
    freed: u64,
    why: Option<String>,
}

impl Removal {
    /// The entry of a job: docs/json.md lists the keys.
    fn as_json(&self, deleted: &InTrash, act: bool) -> Value {
        let result = match (&self.why, act) {
            (Some(_), _) => "failed",
            _ if deleted.copies.is_empty() => "pending",
            (None, true) => "removed",
            (None, false) => "would_remove",
        };
        json!({
            "job": deleted.job.to_string(),
            "deleted": deleted.batch.at().to_string(),
            "result": result,
            "freed": self.freed,
            "why": self.why,
        })
    }
}

fn summary(count: u64, freed: u64, act: bool) -> String {
    let jobs = match count {
        1 => "1 deleted job".to_owned(),
        count => format!("{count} deleted jobs"),
    };
    let freed = HumanBytes(freed);
    match (count, act) {
        (0, _) => "nothing to remove from the trash".to_owned(),
        (_, true) => format!("{jobs} removed for good ({freed} freed)"),
        (_, false) => {
            format!("{jobs} would be removed for good ({freed} freed); --yes removes them")
        }
    }
}
