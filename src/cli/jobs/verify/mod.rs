//! `xpmfs jobs verify`: prints what is wrong with archived copies, and how many are right.
//!
//! `tally`: counts; `differences`: those of contents, and names of entries; `json`: the lines for programs; `experiments`: runs and partials

mod differences;
mod experiments;
mod json;
mod tally;

use std::collections::HashSet;
use std::process::ExitCode;

use clap::Args;
use indicatif::HumanBytes;
use jiff::Timestamp;
use rustix::io::Errno;
use serde_json::Value;

use self::differences::{contents, name};
use self::experiments::Items;
use self::tally::Tally;
use super::interrupt::{Destinations, Interrupt};
use super::meter::Meter;
use super::session::{Jobs, Session, Which, why};
use crate::archive::archived_jobs::{self, FoundJobs, Unseen};
use crate::archive::error::{self, JobError};
use crate::archive::job::verify::{self, Unread, Verified, manifest_remedy, remedy};
use crate::archive::last_verify::{self, LastVerify};
use crate::archive::{amount, state_dir};
use crate::cli::advice::with_advice;
use crate::cli::{Global, Listing, print};
use crate::sys::printable::printable;
use crate::transfer::{Difference, What};
use crate::view::Location;
use crate::workspace::jobs::JobId;

/// The state of a copy that another user may read.
const DENIED: &str = "cannot be read by this user";

/// Which jobs.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Every job that a `backup` or `move` folder has, and every run and partial
    #[arg(long, conflicts_with = "jobs")]
    all: bool,
    /// How it is printed.
    #[command(flatten)]
    pub(super) listing: Listing,
    /// The jobs.
    #[command(flatten)]
    which: Which,
}

pub(super) fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    if !arguments.all {
        let all = "every job that a folder has";
        arguments.which.expect_jobs("verify", Some(all))?;
    }
    let since = Timestamp::now();
    let session = Session::open(&arguments.which, &[], global)?;
    let env = session.env();
    let folders = session.archives();
    let (jobs, unseen) = match arguments.all {
        true => {
            let FoundJobs { jobs, unseen } = archived_jobs::expected(&env, &folders);
            (Jobs::from(jobs), unseen)
        }
        false => (
            session.named(&arguments.which)?,
            missing(&session, &folders),
        ),
    };
    let unseen: Vec<String> = unseen.iter().map(with_advice).collect();
    for why in &unseen {
        print::line(why);
    }
    // Nothing is copied: nothing can remain.
    let interrupt = Interrupt::cancels(&session, Destinations::default());
    let meter = Meter::new(jobs.jobs.len(), &session.progress, global);
    let size = |job: &JobId| {
        let folders = folders.iter();
        folders
            .map(|folder| amount::to_verify(&env, *folder, job))
            .sum()
    };
    let mut run = Run::new(&session, &meter, arguments.all, global);
    run.lines
        .extend(unseen.iter().map(|why| json::unlisted(why)));
    meter.measured(&jobs.jobs, size, || {
        for job in jobs.jobs.iter() {
            run.verify(job, &folders, jobs.is_single(job) || arguments.all);
            if session.progress.is_cancelled() {
                break;
            }
            meter.job();
        }
    });
    let items = match arguments.all && !session.progress.is_cancelled() {
        true => experiments::verify_all(&session, &meter, global),
        false => Items::default(),
    };
    let Run {
        printed,
        unrecorded,
        tallies,
        total,
        lines,
        ..
    } = run;
    let interrupted = interrupt.came();
    let verified = meter.done();
    meter.end();
    drop(interrupt);
    printed?;
    let mut unrecorded = unrecorded;
    if arguments.all && !interrupted && unseen.is_empty() {
        unrecorded = unrecorded
            .or(set_last(&session, since, &tallies))
            .or(forget_others(&session, &folders, &jobs.jobs));
    }
    if let Some(why) = unrecorded.or(items.unrecorded.clone()) {
        print::line(&format!("`xpmfs status` will not show all of this: {why}"));
    }
    if global.json {
        let lines: Vec<Value> = lines.into_iter().chain(items.lines.clone()).collect();
        print::json(&lines)?;
    } else if !global.quiet {
        let read = HumanBytes(session.progress.bytes());
        print::line(&format!(
            "{} ({read} read)",
            total.summary(global.verbose > 0)
        ));
        if let Some(summary) = items.summary() {
            print::line(&summary);
        }
    }
    if interrupted && !global.json {
        let jobs = jobs.jobs.len();
        print::line(&format!(
            "interrupted: {verified} of {jobs} jobs verified; nothing was changed"
        ));
    }
    Ok(match total.wrong() + total.absent + items.wrong {
        0 if unseen.is_empty() && !interrupted => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// What one run of the command has found.
struct Run<'a> {
    session: &'a Session,
    meter: &'a Meter,
    /// Whether every job is verified: the end is then recorded once, and not for each copy.
    all: bool,
    global: &'a Global,
    total: Tally,
    /// For each folder, by its number.
    tallies: Vec<(u8, Tally)>,
    lines: Vec<Value>,
    printed: anyhow::Result<()>,
    /// Why `status` cannot show a finding, if so.
    unrecorded: Option<String>,
}

impl<'a> Run<'a> {
    fn new(session: &'a Session, meter: &'a Meter, all: bool, global: &'a Global) -> Run<'a> {
        let folders = session.archives();
        Run {
            session,
            meter,
            all,
            global,
            total: Tally::default(),
            tallies: folders
                .into_iter()
                .map(|folder| (folder, Tally::default()))
                .collect(),
            lines: Vec::new(),
            printed: Ok(()),
            unrecorded: None,
        }
    }

    /// Verifies a job's copies. `expected`: whether it is an error that no folder has the job.
    fn verify(&mut self, job: &JobId, folders: &[u8], expected: bool) {
        let env = self.session.env();
        let mut found = false;
        for folder in folders {
            let since = Timestamp::now();
            let verified = verify::verify(&env, *folder, job);
            let since = (!self.all).then_some(since);
            if let Err(why) = record(self.session, *folder, job, &verified, since) {
                self.unrecorded.get_or_insert(why);
            }
            match verified {
                Ok(None) => {}
                Ok(Some(verified)) => {
                    found = true;
                    self.read(job, &verified);
                }
                Err(error) if error.is_cancelled() => return,
                Err(error) => {
                    found = true;
                    self.failed(job, *folder, &error);
                }
            }
        }
        if !found && expected {
            self.total.absent += 1;
            self.print(line(&format!("{job}: no `backup` or `move` folder has it")));
            self.lines
                .push(json::entry(Some(job), None, "absent", None));
        }
    }

    /// Counts and prints a copy that was read.
    fn read(&mut self, job: &JobId, verified: &Verified) {
        self.count(verified.folder, |tally| tally.add(verified));
        let wrong = verified.is_whole() == Some(false) || verified.is_denied();
        if wrong || self.global.verbose > 0 {
            self.print(shown(self.session, job, verified, self.all, self.global));
        }
        let place = self.session.label(verified.folder);
        self.lines.push(json::copy(job, place, verified));
    }

    /// Counts and prints a copy that could not be read.
    fn failed(&mut self, job: &JobId, folder: u8, error: &JobError) {
        let (state, whole) = match verify::unread(error) {
            Some(Unread::Denied) => (DENIED, None),
            Some(Unread::Unavailable) => ("FAILED", None),
            None => ("FAILED", Some(false)),
        };
        self.count(folder, |tally| match whole {
            Some(_) => tally.damaged += 1,
            None => tally.unread += 1,
        });
        let (place, why) = (self.session.label(folder), why(error));
        let mut text = line(&format!("{job} in {place}: {state}: {why}"));
        if whole.is_some() {
            text.push_str(&self.remedy(job, folder));
        }
        self.print(text);
        let mut failed = json::entry(Some(job), Some(place), "failed", Some(&why));
        failed["whole"] = whole.into();
        self.lines.push(failed);
    }

    fn remedy(&self, job: &JobId, folder: u8) -> String {
        match self.global.quiet {
            true => String::new(),
            false => remedy_line(self.session, job, folder),
        }
    }

    fn count(&mut self, folder: u8, add: impl Fn(&mut Tally)) {
        add(&mut self.total);
        if let Some((_, tally)) = self.tallies.iter_mut().find(|(it, _)| *it == folder) {
            add(tally);
        }
    }

    /// Prints at once: to read everything takes hours where there is much.
    fn print(&mut self, text: String) {
        if !self.global.json && self.printed.is_ok() {
            self.printed = self.meter.print(&text);
        }
    }
}

/// Records in the primary what is wrong with a copy, for `status` and `umount --drain`; or that nothing is any more, and with `since`, when
/// that was found, for `jobs where`.
pub(in crate::cli) fn record(
    session: &Session,
    folder: u8,
    job: &JobId,
    verified: &error::Result<Option<Verified>>,
    since: Option<Timestamp>,
) -> Result<(), String> {
    let primary = session.opened.view.primary();
    let Some(location) = session.opened.view.location(folder) else {
        return Ok(());
    };
    let finding = match verified {
        Ok(None) => return Ok(()),
        // An earlier finding stands.
        Ok(Some(verified)) if verified.is_denied() => return Ok(()),
        Ok(Some(verified)) => verified.finding(),
        Err(error) if error.is_cancelled() || verify::unread(error).is_some() => return Ok(()),
        Err(error) => Some(error.cause.to_string()),
    };
    state_dir::set_damaged(primary, location, job, finding.as_deref())
        .map_err(|error| state_dir::explain(primary, error))?;
    let intact = matches!(verified, Ok(Some(verified)) if verified.is_whole() == Some(true));
    let Some(since) = since.filter(|_| intact) else {
        return Ok(());
    };
    match last_verify::set_copy(primary, location, job, since) {
        // Another user's workspace: the copy is intact all the same.
        Ok(()) | Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Ok(()),
        Err(error) => Err(state_dir::explain(primary, error)),
    }
}

/// Removes the records about jobs of which the folders have neither a copy nor a manifest any more. Returns why that failed, if so.
fn forget_others(session: &Session, folders: &[u8], jobs: &[JobId]) -> Option<String> {
    let view = &session.opened.view;
    let jobs: HashSet<&JobId> = jobs.iter().collect();
    let locations = folders.iter().filter_map(|folder| view.location(*folder));
    let mut forgotten = locations
        .map(|folder| state_dir::retain_damaged(view.primary(), folder, |job| jobs.contains(job)));
    let failed = forgotten.find_map(Result::err);
    failed.map(|error| state_dir::explain(view.primary(), error))
}

/// Records when every copy of each folder was verified, for `status`. Returns why that failed, if so.
fn set_last(session: &Session, since: Timestamp, tallies: &[(u8, Tally)]) -> Option<String> {
    let primary = session.opened.view.primary();
    // Whole seconds, which are enough.
    let at = Timestamp::from_second(Timestamp::now().as_second()).ok()?;
    let mut why = None;
    for (folder, tally) in tallies {
        let Some(location) = session.opened.view.location(*folder) else {
            continue;
        };
        let last = LastVerify {
            since: Some(since),
            at,
            copies: tally.ok + tally.wrong(),
            wrong: tally.wrong(),
            unread: Some(tally.unread),
            no_manifest: Some(tally.no_manifest),
        };
        if let Err(error) = last_verify::set(primary, location, &last) {
            why = why.or_else(|| Some(state_dir::explain(primary, error)));
        }
    }
    why
}

/// Why some of these folders cannot be verified.
fn missing(session: &Session, folders: &[u8]) -> Vec<Unseen> {
    let (env, view) = (session.env(), &session.opened.view);
    let folders = folders.iter().filter_map(|folder| view.location(*folder));
    let missing = |folder: &Location| {
        let (path, why) = (folder.path(), archived_jobs::why_not(&env, folder)?);
        let text = format!("{} cannot be verified: {why}", path.display());
        Some(Unseen::new(text, path, folder.root().err()))
    };
    folders.filter_map(missing).collect()
}

/// The lines of a copy: its state, its differences and the remedy; with `-v` also how the workspace's job differs.
fn shown(
    session: &Session,
    job: &JobId,
    verified: &Verified,
    all: bool,
    global: &Global,
) -> String {
    let of_primary = verified.primary.as_deref();
    let is_same = of_primary.is_some_and(|found| contents(found).next().is_none());
    let place = session.label(verified.folder);
    let state = match verified.is_whole() {
        _ if verified.is_incomplete() => "INCOMPLETE: it has neither a manifest nor its `.done`",
        _ if !verified.present && verified.manifest => {
            "MISSING: the manifest is there, the copy is not"
        }
        _ if !verified.present => "MISSING: the folder had the copy before",
        Some(false) => "DAMAGED",
        None if verified.is_denied() => DENIED,
        None if is_same => "no manifest, the same as in the workspace",
        None => "no manifest",
        Some(true) => "ok",
    };
    let size = match verified.present || verified.manifest {
        true => format!(
            " ({} files, {})",
            verified.files,
            HumanBytes(verified.bytes)
        ),
        false => String::new(),
    };
    let mut text = line(&format!("{job} in {place}: {state}{size}"));
    for Difference { path, what } in &verified.differences {
        text.push_str(&line(&format!("  {} {what}", name(path).display())));
    }
    if verified.is_whole() == Some(false) && !global.quiet {
        text.push_str(&remedy_line(session, job, verified.folder));
    } else if verified.lacks_manifest() && !global.quiet && !(all && is_same) {
        // With --all, the summary has the remedy of these.
        let remedy = manifest_remedy(&session.opened.view, job);
        text.push_str(&line(&format!("  {remedy}")));
    }
    if global.verbose == 0 {
        return text;
    }
    for Difference { path, what } in contents(verified.primary.as_deref().unwrap_or_default()) {
        let path = name(path).display();
        text.push_str(&line(&match what {
            What::Extra => format!("  the workspace has {path}, which the copy lacks"),
            What::Missing => format!("  the copy has {path}, which the workspace lacks"),
            what => format!("  in the workspace, {path} {what}"),
        }));
    }
    text
}

/// The command that makes a copy anew.
fn remedy_line(session: &Session, job: &JobId, folder: u8) -> String {
    let view = &session.opened.view;
    let location = view.location(folder);
    location.map_or_else(String::new, |folder| {
        line(&format!("  {}", remedy(view, folder, job)))
    })
}

/// A line; control characters in names are escaped.
fn line(line: &str) -> String {
    format!("{}\n", printable(line))
}
