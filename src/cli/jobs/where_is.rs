//! `xpmfs jobs where`.

use std::process::ExitCode;

use clap::Args;
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::session::{Jobs, Session, Which};
use crate::archive::copies::{CopySearch, CopyState, JobCopies, JobCopy};
use crate::archive::job::opt_out::{OptOut, OptOuts};
use crate::cli::style::local;
use crate::cli::{Global, Listing, print, table};
use crate::daemon::archiving;
use crate::view::PRIMARY;
use crate::view::inventory::Wanted;
use crate::workspace::jobs::JobId;

/// Which jobs.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Every job that the workspace or a folder has
    #[arg(long, conflicts_with = "jobs")]
    all: bool,
    /// How they are printed.
    #[command(flatten)]
    pub(super) listing: Listing,
    /// The jobs.
    #[command(flatten)]
    which: Which,
}

pub(super) fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    if !arguments.all {
        let all = "every job that the workspace or a folder has";
        arguments.which.expect_jobs("find", Some(all))?;
    }
    let session = Session::open(&arguments.which, &[], global)?;
    let (jobs, unlisted) = match arguments.all {
        true => {
            let inventory = session.opened.view.inventory(&Wanted::All, |_| ());
            let jobs = inventory.jobs.into_iter().map(|job| job.id);
            (Jobs::from(jobs.collect::<Vec<JobId>>()), inventory.unlisted)
        }
        false => (session.named(&arguments.which)?, Vec::new()),
    };
    unlisted.iter().for_each(|why| print::line(why));
    let opened = &session.opened;
    let config = archiving::config(&opened.tuning, &opened.folders);
    let out = OptOuts::new(config.exclude, config.folder_exclude);
    let search = CopySearch::new(&opened.view, &out);
    let (mut lines, mut table) = (Vec::new(), table::plain(&TITLES));
    for job in jobs.jobs.iter() {
        let found = search.of(job);
        for why in &found.unknown {
            print::line(&format!("{job}: {why}"));
        }
        match global.json {
            true => lines.push(as_json(&session, job, &found)),
            false => rows(&session, &mut table, job, &found, global.verbose > 0),
        }
    }
    match global.json {
        true => print::json(&lines)?,
        false => print::text(&table::text(&table))?,
    }
    Ok(match unlisted.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

const TITLES: [&str; 6] = ["JOB", "LOCATION", "STATE", "FILES", "SIZE", "NOTES"];

/// Adds a row for each location that has the job or cannot be asked, and for the primary; for all with `verbose`.
fn rows(
    session: &Session,
    table: &mut comfy_table::Table,
    job: &JobId,
    found: &JobCopies,
    verbose: bool,
) {
    let mut name = job.to_string();
    for copy in &found.copies {
        if copy.state == CopyState::Absent && copy.location != PRIMARY && !verbose {
            continue;
        }
        let count = |count: &dyn Fn(crate::transfer::Size) -> String| match copy.state {
            CopyState::Present | CopyState::Purged | CopyState::Lost => {
                copy.size.map_or("?".to_owned(), count)
            }
            _ => String::new(),
        };
        let cells = [
            std::mem::take(&mut name),
            session.label(copy.location),
            shown(copy),
            count(&|size| size.files.to_string()),
            count(&|size| HumanBytes(size.bytes).to_string()),
            notes(found, copy).join(", "),
        ];
        table::row(table, cells.iter().map(String::as_str));
    }
}

/// The state of a copy, for a person.
fn shown(copy: &JobCopy) -> String {
    match &copy.state {
        CopyState::Link(target) => format!("-> {}", target.display()),
        CopyState::Offline(why) => why.clone(),
        _ => state(copy).to_owned(),
    }
}

/// The fixed name of a copy's state.
fn state(copy: &JobCopy) -> &'static str {
    match &copy.state {
        CopyState::Absent => "absent",
        CopyState::Present => "present",
        CopyState::Purged => "purged",
        CopyState::Link(_) => "symlink",
        CopyState::File => "obstacle",
        CopyState::Lost => "missing",
        CopyState::Offline(_) => "offline",
    }
}

/// What else is to be known of a copy.
fn notes(found: &JobCopies, copy: &JobCopy) -> Vec<String> {
    let mut notes = Vec::new();
    if found.served == Some(copy.location) {
        notes.push("served".to_owned());
    }
    if copy.state == CopyState::Present {
        if !copy.finished {
            notes.push("not finished".to_owned());
        }
        if copy.location != PRIMARY {
            notes.push(match copy.manifest {
                true => "manifest".to_owned(),
                false => "no manifest".to_owned(),
            });
        }
    }
    if copy.recorded {
        notes.push("has it on record".to_owned());
    }
    if let Some(damage) = &copy.damage {
        notes.push(damage.clone());
    }
    if let Some(verified) = copy.verified {
        notes.push(format!("verified {}", local(verified)));
    }
    if copy.location == PRIMARY {
        if found.pinned {
            notes.push("pinned".to_owned());
        }
        if found.kept {
            notes.push("kept: recovered on request".to_owned());
        }
        if let Some(removed) = &found.removed {
            let removed = removed.display();
            notes.push(format!("stays here: {removed} was removed on purpose"));
        }
        if let Some(out) = found.opted_out {
            notes.push(format!("opted out: {out}"));
        }
    }
    notes
}

/// The entry of a job: docs/json.md lists the keys.
fn as_json(session: &Session, job: &JobId, found: &JobCopies) -> Value {
    let copies = found.copies.iter().map(|copy| {
        let target = match &copy.state {
            CopyState::Link(target) => Some(target.to_string_lossy()),
            _ => None,
        };
        let why = match &copy.state {
            CopyState::Offline(why) => Some(why),
            _ => copy.damage.as_ref(),
        };
        json!({
            "location": session.label(copy.location),
            "path": copy.path.to_string_lossy(),
            "state": state(copy),
            "target": target,
            "served": found.served == Some(copy.location),
            "finished": copy.finished,
            "recorded": copy.recorded,
            "manifest": copy.manifest,
            "files": copy.size.map(|size| size.files),
            "bytes": copy.size.map(|size| size.bytes),
            "verified": copy.verified.map(|at| at.to_string()),
            "damaged": copy.damage.is_some(),
            "why": why,
        })
    });
    json!({
        "job": job.to_string(),
        "served": found.served.map(|location| session.label(location)),
        "pinned": found.pinned,
        "kept": found.kept,
        "removed": found.removed.as_ref().map(|path| path.to_string_lossy()),
        "opted_out": found.opted_out.map(|out| match out {
            OptOut::Tag => "tag",
            OptOut::File => "file",
            OptOut::Pattern => "pattern",
        }),
        "copies": copies.collect::<Vec<_>>(),
    })
}
