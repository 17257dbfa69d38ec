//! `xpmfs orphans`: jobs that no run of an experiment refers to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueHint};
use indicatif::HumanBytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::columns::{Column, Columns, terminal_width};
use super::jobs::interrupt::{Destinations, Interrupt};
use super::jobs::meter::Meter;
use super::jobs::session::{Session, Which, why};
use super::neighbours::neighbours;
use super::open::More;
use super::style::{Colours, Tone, age, duration};
use super::{Global, Listing, Select, print};
use crate::archive::job::trash::batch::Batch;
use crate::archive::orphans::clean::CleanEvent;
use crate::archive::orphans::{self, Orphan, Orphans, Search};
use crate::archive::places;
use crate::archive::relocate::retire::Retired;
use crate::archive::relocate::unfinished;
use crate::daemon::inventory;
use crate::settings::Mode;
use crate::view::PRIMARY;
use crate::workspace::jobs::JobId;

/// Which workspace, and what is shown.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Show the sizes: looks at every file
    #[arg(long, display_order = 1)]
    size: bool,
    /// Also jobs that a `backup` or `move` folder has
    #[arg(long, display_order = 2)]
    no_folders: bool,
    /// Remove them: into the trash, from where `xpmfs jobs undelete` brings them back. Only prints what would be removed, without --yes
    ///
    /// A job that a process uses or that is pinned stays, and so does what a folder has: of a symlink, only the symlink goes.
    #[arg(long, display_order = 3)]
    clean: bool,
    /// With --clean: do it
    #[arg(short, long, requires = "clean", display_order = 4)]
    yes: bool,
    /// With --clean: also if another workspace of the settings has this one as a `use` folder, if this one has lost its experiments, or if
    /// some runs cannot be read
    #[arg(long, requires = "clean", display_order = 5)]
    force: bool,
    /// Accepted and ignored: folders count unless --no-folders is given.
    #[arg(long, hide = true, conflicts_with = "no_folders")]
    include_folders: bool,
    /// The directory of the workspace, or a mount of it, as --workdir
    #[arg(value_name = "PATH", value_hint = ValueHint::DirPath, conflicts_with = "workdir")]
    path: Option<PathBuf>,
    /// How they are printed.
    #[command(flatten)]
    pub(super) listing: Listing,
    /// More folders.
    #[command(flatten)]
    more: More,
    /// Which workspace.
    #[command(flatten)]
    select: Select,
}

/// Lists the orphans of a workspace.
///
/// # Errors
///
/// The workspace cannot be opened.
pub fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    let mut select = arguments.select.clone();
    if let Some(path) = &arguments.path {
        // A mount at another path than the workspace's own shows the jobs of folders, too.
        let primary = inventory::primary_of(path);
        select.workdir = Some(primary.unwrap_or_else(|| path.clone()));
    }
    let which = Which {
        jobs: Vec::new(),
        more: arguments.more.clone(),
        select,
    };
    let session = Session::open(&which, &[], global)?;
    let search = Search {
        ignore_folders: arguments.no_folders,
        sizes: arguments.size,
    };
    let found = orphans::find(&session.opened.view, search);
    found.unread.iter().for_each(|why| print::line(why));
    if found.lacks_experiments {
        print::line(&format!(
            "warning: {} has no experiments, so that no run refers to its jobs: if the experiments were lost, `xpmfs experiments recover --all` brings back those that a folder has",
            session.opened.workspace.path.display()
        ));
    }
    if arguments.clean {
        return clean(arguments, &session, &found, global);
    }
    match global.json {
        true => {
            let jobs = found.jobs.iter().map(|job| as_json(&session, job, None));
            print::json(&jobs.collect::<Vec<_>>())?;
        }
        false if found.jobs.is_empty() => {}
        false => print::text(&table(arguments, &found))?,
    }
    if !global.json && !global.quiet {
        print::line(&summary(&found));
    }
    Ok(match found.unread.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Why the orphans are not removed without --force.
pub(super) fn why_not(
    session: &Session,
    found: &Orphans,
    global: &Global,
) -> anyhow::Result<Vec<String>> {
    let mut reasons = Vec::new();
    let others = neighbours(&session.opened, global)?;
    let others = others.get(&PRIMARY).into_iter().flatten();
    for other in others.filter(|other| other.mode == Some(Mode::Use)) {
        reasons.push(format!(
            "the workspace {} has this one as a `use` folder, and may need jobs that are orphans here",
            other.workspace
        ));
    }
    if found.lacks_experiments {
        reasons.push("the workspace has no experiments: every job would be removed".to_owned());
    }
    if !found.unread.is_empty() {
        reasons.push(
            "some runs or folders cannot be read, and may have or need these jobs".to_owned(),
        );
    }
    Ok(reasons)
}

/// Removes the orphans, or prints what would be removed.
fn clean(
    arguments: &Arguments,
    session: &Session,
    found: &Orphans,
    global: &Global,
) -> anyhow::Result<ExitCode> {
    let reasons = why_not(session, found, global)?;
    if !arguments.force && arguments.yes && !reasons.is_empty() && !found.jobs.is_empty() {
        bail!(
            "nothing removed: {}; --force removes them all the same",
            reasons.join("; ")
        );
    }
    let env = session.env();
    let ids: Vec<JobId> = found.jobs.iter().map(|job| job.id.clone()).collect();
    unfinished::clear_of(&env, &Retired::default(), &ids);
    let interrupt = Interrupt::cancels(session, Destinations::default());
    let meter = Meter::new(ids.len(), &session.progress, global);
    let batch = Batch::now();
    let tally = Mutex::new(Tally::default());
    let act = arguments.yes.then_some(&batch);
    orphans::clean::clean(&env, &found.jobs, act, &|orphan, event| {
        meter.job();
        let (result, why) = outcome(session, &event);
        let mut tally = tally.lock();
        tally.add(&event);
        if let Some(why) = &why {
            meter.say(&format!("{}: kept: {why}", orphan.id));
        } else if global.verbose > 0 && !global.json {
            meter.say(&format!("{}: {}", orphan.id, result.replace('_', " ")));
        }
        if global.json {
            let line = as_json(session, orphan, Some((result, why)));
            tally.lines.insert(orphan.id.clone(), line);
        }
    });
    meter.end();
    let interrupted = interrupt.came();
    drop(interrupt);
    let tally = tally.into_inner();
    if global.json {
        print::json(&tally.lines.values().collect::<Vec<_>>())?;
    } else if !global.quiet {
        if !arguments.yes {
            for reason in reasons {
                print::line(&format!("note: {reason}; --yes needs --force for that"));
            }
        }
        print::line(&tally.summary(arguments.yes, session.opened.tuning.trash()));
    }
    Ok(match tally.failed == 0 && !interrupted {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// What became of an orphan, by its fixed name, and why it stays.
pub(super) fn outcome(session: &Session, event: &CleanEvent) -> (&'static str, Option<String>) {
    match event {
        CleanEvent::Would(_) => ("would_remove", None),
        CleanEvent::Removed(_) => ("removed", None),
        CleanEvent::Archived => {
            let why = "a folder has it, too: `xpmfs jobs release` frees its place in the workspace";
            ("kept", Some(why.to_owned()))
        }
        CleanEvent::Away(folder, why) => {
            let folder = session.label(*folder);
            (
                "kept",
                Some(format!(
                    "{folder} cannot be used now, and may hold a copy ({why})"
                )),
            )
        }
        CleanEvent::Refused(refusal) => ("kept", Some(refusal.why.clone())),
        CleanEvent::Failed(error) => ("failed", Some(why(error))),
    }
}

/// Counts orphans by what became of them.
#[derive(Default)]
struct Tally {
    removed: u64,
    in_trash: u64,
    freed: u64,
    kept: u64,
    failed: u64,
    lines: BTreeMap<JobId, Value>,
}

impl Tally {
    fn add(&mut self, event: &CleanEvent) {
        match event {
            CleanEvent::Would(removal) | CleanEvent::Removed(removal) => {
                self.removed += 1;
                self.in_trash += u64::from(removal.in_trash);
                self.freed = self.freed.saturating_add(removal.freed);
            }
            CleanEvent::Archived | CleanEvent::Away(..) | CleanEvent::Refused(_) => self.kept += 1,
            CleanEvent::Failed(_) => self.failed += 1,
        }
    }

    /// `3 orphans would be removed, 1 kept; --yes removes them`
    fn summary(&self, act: bool, keep: Duration) -> String {
        let count = match self.removed {
            1 => "1 orphan".to_owned(),
            count => format!("{count} orphans"),
        };
        let mut text = match (self.removed, act) {
            (0, true) => "nothing removed".to_owned(),
            (0, false) => "nothing to remove".to_owned(),
            (_, true) => format!("{count} removed"),
            (_, false) => format!("{count} would be removed"),
        };
        for (count, what) in [(self.kept, "kept"), (self.failed, "failed")] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        if self.in_trash > 0 {
            text.push_str(&format!(
                "; {} are freed when the trash is emptied, after {}",
                HumanBytes(self.freed),
                duration(keep)
            ));
        }
        if self.removed > 0 {
            text.push_str(match act {
                true => ". `xpmfs jobs undelete` brings jobs back until then",
                false => ". --yes removes",
            });
        }
        text
    }
}

fn table(arguments: &Arguments, found: &Orphans) -> String {
    let mut titles = vec![Column::text("STATE"), Column::text("JOB")];
    if arguments.size {
        titles.push(Column::number("SIZE"));
    }
    titles.push(Column::number("AGE"));
    let has_links = found.jobs.iter().any(|job| job.link.is_some());
    if has_links {
        titles.push(Column::cut("SYMLINK TO", 12));
    }
    let mut columns = Columns::new(titles);
    let now = Timestamp::now();
    for job in &found.jobs {
        let mut cells = vec![job.state.to_string(), job.id.to_string()];
        if arguments.size {
            let bytes = job.usage.map(|usage| HumanBytes(usage.size.bytes));
            cells.push(bytes.map_or_else(|| "?".to_owned(), |bytes| bytes.to_string()));
        }
        cells.push(job.changed.map_or_else(String::new, |time| age(time, now)));
        if has_links {
            let target = job.link.as_ref();
            cells.push(target.map_or_else(String::new, |it| it.to_string_lossy().into_owned()));
        }
        columns.row(cells.into_iter().map(|cell| (cell, Tone::Plain)));
    }
    columns.text(Colours::of_stdout(), terminal_width())
}

/// `3 orphans of 20 jobs (5.00 GiB)`
fn summary(found: &Orphans) -> String {
    let count = match found.jobs.len() {
        0 => "no orphans".to_owned(),
        1 => "1 orphan".to_owned(),
        count => format!("{count} orphans"),
    };
    let of = match found.candidates {
        1 => "1 job".to_owned(),
        count => format!("{count} jobs"),
    };
    // What a symlink leads to is not freed with it.
    let own = found.jobs.iter().filter(|job| job.link.is_none());
    let usages: Vec<_> = own.filter_map(|job| job.usage).collect();
    match usages.is_empty() {
        true => format!("{count} of {of}"),
        false => {
            let bytes = usages.iter().map(|usage| usage.freed).sum();
            format!("{count} of {of} ({} on the disk)", HumanBytes(bytes))
        }
    }
}

/// The entry of an orphan: docs/json.md lists the keys.
fn as_json(
    session: &Session,
    job: &Orphan,
    outcome: Option<(&'static str, Option<String>)>,
) -> Value {
    let (result, why) = outcome.unwrap_or(("found", None));
    let primary = session.opened.view.primary();
    let time = job.changed.map(|time| time.to_string());
    let freed = job.usage.map(|usage| match job.link {
        Some(_) => 0,
        None => usage.freed,
    });
    json!({
        "job": job.id.to_string(),
        "path": places::path(primary, &job.id).to_string_lossy(),
        "target": job.link.as_ref().map(|target| target.to_string_lossy()),
        "state": job.state.to_string(),
        "changed": time,
        "files": job.usage.map(|usage| usage.size.files),
        "bytes": job.usage.map(|usage| usage.size.bytes),
        "freed": freed,
        "result": result,
        "why": why,
    })
}
