//! `xpmfs jobs verify`.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueHint};
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::meter::Meter;
use super::{bandwidth, env, expect_jobs, label, named, why};
use crate::archive::env::Env;
use crate::archive::job::select::is_of_content;
use crate::archive::job::verify::{self, Unread, Verified, remedy};
use crate::archive::lost::{self, Listed};
use crate::archive::{error, manual, places, state_dir};
use crate::cli::open::{More, Opened, open};
use crate::cli::{Global, Listing, Select, print};
use crate::printable::printable;
use crate::transfer::{Difference, Progress, What};
use crate::view::Location;
use crate::workspace::jobs::JobId;

/// What is said of a copy that another user may read.
const DENIED: &str = "cannot be read by this user";

/// Which jobs.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The jobs: task_id/hash, or the beginning of a hash
    #[arg(value_name = "JOB", value_hint = ValueHint::Other, conflicts_with = "all")]
    jobs: Vec<OsString>,
    /// Every job that a `backup` or `move` folder has
    #[arg(long)]
    all: bool,
    /// How it is printed.
    #[command(flatten)]
    listing: Listing,
    /// More folders.
    #[command(flatten)]
    more: More,
    /// Which workspace.
    #[command(flatten)]
    select: Select,
}

impl Arguments {
    pub(super) fn listing(&self) -> &Listing {
        &self.listing
    }
}

pub(super) fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    if !arguments.all {
        expect_jobs(
            &arguments.jobs,
            "verify",
            Some("every job that a folder has"),
        )?;
    }
    let opened = open(&arguments.select, &arguments.more.folders, global)?;
    let progress = Arc::new(Progress::new());
    let limit = bandwidth(&opened);
    let env = env(&opened, &progress, limit.as_ref(), manual::threads());
    let folders: Vec<u8> = places::archives(&opened.view)
        .map(Location::index)
        .collect();
    let Listed { jobs, unseen } = match arguments.all {
        true => lost::recorded(&env, &folders),
        false => Listed {
            jobs: named(&opened, &arguments.jobs)?,
            unseen: missing(&opened, &env, &folders),
        },
    };
    for why in &unseen {
        print::line(why);
    }
    let meter = Meter::new(jobs.len(), &progress, global);
    let mut lines: Vec<Value> = unseen
        .iter()
        .map(|why| entry(None, None, "unlisted", Some(why)))
        .collect();
    // Told at once: reading everything takes hours where there is much.
    let mut told = Ok(());
    let mut tell = |text: String| {
        if !global.json && told.is_ok() {
            told = meter.print(&text);
        }
    };
    let (mut damaged, mut whole, mut unknown, mut absent) = (0_u64, 0_u64, 0_u64, 0_u64);
    let (mut incomplete, mut vanished, mut unread) = (0_u64, 0_u64, 0_u64);
    let mut unrecorded = None;
    for job in &jobs {
        let mut found = false;
        for folder in &folders {
            let verified = verify::verify(&env, *folder, job);
            if let Err(why) = record(&env, *folder, job, &verified)
                && unrecorded.is_none()
            {
                unrecorded = Some(why);
            }
            match verified {
                Ok(None) => {}
                Ok(Some(verified)) => {
                    found = true;
                    match verified.is_whole() {
                        _ if verified.is_incomplete() => incomplete += 1,
                        _ if !verified.present => vanished += 1,
                        _ if verified.is_denied() => unread += 1,
                        Some(true) => whole += 1,
                        Some(false) => damaged += 1,
                        None => unknown += 1,
                    }
                    if !global.quiet || verified.is_whole() == Some(false) || verified.is_denied() {
                        tell(shown(&opened, job, &verified, global.quiet));
                    }
                    lines.push(as_json(&opened, job, &verified));
                }
                Err(error) => {
                    found = true;
                    let place = label(&opened, *folder);
                    let (state, whole) = match verify::unread(&error) {
                        Some(Unread::Denied) => (DENIED, None),
                        Some(Unread::Unavailable) => ("FAILED", None),
                        None => ("FAILED", Some(false)),
                    };
                    match whole {
                        Some(_) => damaged += 1,
                        None => unread += 1,
                    }
                    let why = why(&error);
                    tell(line(&format!("{job} in {place}: {state}: {why}")));
                    let mut failed = entry(Some(job), Some(place), "failed", Some(&why));
                    failed["whole"] = whole.into();
                    lines.push(failed);
                }
            }
        }
        if !found {
            absent += 1;
            tell(line(&format!("{job}: no `backup` or `move` folder has it")));
            lines.push(entry(Some(job), None, "absent", None));
        }
        meter.job();
    }
    meter.end();
    told?;
    if let Some(why) = unrecorded {
        print::line(&format!("`xpmfs status` will not show all of this: {why}"));
    }
    if global.json {
        print::json(&lines)?;
    } else {
        if !global.quiet {
            let copies = if whole == 1 { "copy is" } else { "copies are" };
            let are = |count| if count == 1 { "is" } else { "are" };
            let mut said = format!("{whole} {copies} whole, {damaged} {} not", are(damaged));
            if incomplete > 0 {
                let are = are(incomplete);
                said.push_str(&format!(", {incomplete} {are} incomplete"));
            }
            if vanished > 0 {
                let are = are(vanished);
                said.push_str(&format!(", {vanished} {are} missing"));
            }
            if unread > 0 {
                said.push_str(&format!(", {unread} could not be read"));
            }
            if unknown > 0 {
                let have = if unknown == 1 { "has" } else { "have" };
                said.push_str(&format!(
                    ", {unknown} {have} no manifest, so that nothing says what should be in it"
                ));
            }
            if absent > 0 {
                let jobs = if absent == 1 { "job" } else { "jobs" };
                said.push_str(&format!(", {absent} {jobs} {} in no folder", are(absent)));
            }
            let read = HumanBytes(progress.bytes());
            print::line(&format!("{said}; {read} were read"));
        }
    }
    Ok(
        if damaged + incomplete + vanished + unread + absent > 0 || !unseen.is_empty() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        },
    )
}

/// Records in the primary what is wrong with a copy, for `status` and `umount --drain`; or that nothing is any more.
fn record(
    env: &Env<'_>,
    folder: u8,
    job: &JobId,
    verified: &error::Result<Option<Verified>>,
) -> Result<(), String> {
    let primary = env.view.primary();
    let Some(location) = env.view.location(folder) else {
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
        .map_err(|error| state_dir::explain(primary, error))
}

/// Why some of these folders cannot be looked at.
fn missing(opened: &Opened, env: &Env<'_>, folders: &[u8]) -> Vec<String> {
    let folders = folders
        .iter()
        .filter_map(|folder| opened.view.location(*folder));
    let missing = folders.filter_map(|folder| Some((folder.path(), lost::why_not(env, folder)?)));
    missing
        .map(|(path, why)| format!("{} cannot be verified: {why}", path.display()))
        .collect()
}

fn shown(opened: &Opened, job: &JobId, verified: &Verified, quiet: bool) -> String {
    let place = label(opened, verified.folder);
    let state = match verified.is_whole() {
        _ if verified.is_incomplete() => "INCOMPLETE: it has neither a manifest nor its `.done`",
        _ if !verified.present => "MISSING: there is a manifest of it, and no copy",
        Some(false) => "DAMAGED",
        None if verified.is_denied() => DENIED,
        None => "no manifest",
        Some(true) => "ok",
    };
    let mut text = line(&format!(
        "{job} in {place}: {state} ({} files, {})",
        verified.files,
        HumanBytes(verified.bytes)
    ));
    for Difference { path, what } in &verified.differences {
        text.push_str(&line(&format!("  {} {what}", name(path).display())));
    }
    if verified.is_whole() == Some(false)
        && !quiet
        && let Some(folder) = opened.view.location(verified.folder)
    {
        let remedy = remedy(&opened.view, folder, job);
        text.push_str(&line(&format!("  {remedy}")));
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

/// The name of an entry, in manifests as well: the job's own directory is `.`.
fn name(path: &Path) -> &Path {
    match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    }
}

/// A line of what is printed, whatever is named in it.
fn line(line: &str) -> String {
    format!("{}\n", printable(line))
}

fn contents(differences: &[Difference]) -> impl Iterator<Item = &Difference> {
    differences
        .iter()
        .filter(|difference| is_of_content(difference))
}

fn as_json(opened: &Opened, job: &JobId, verified: &Verified) -> Value {
    let list = |differences: &mut dyn Iterator<Item = &Difference>| -> Vec<Value> {
        differences
            .map(|difference| {
                json!({
                    "path": name(&difference.path).to_string_lossy(),
                    "kind": kind(&difference.what),
                    "what": difference.what.to_string(),
                })
            })
            .collect()
    };
    let result = match verified.is_whole() {
        _ if verified.is_incomplete() => "incomplete",
        _ if !verified.present => "missing",
        _ if verified.is_denied() => "unreadable",
        Some(true) => "ok",
        Some(false) => "damaged",
        None => "no_manifest",
    };
    let place = label(opened, verified.folder);
    let mut line = entry(Some(job), Some(place), result, None);
    line["whole"] = verified.is_whole().into();
    line["present"] = verified.present.into();
    line["manifest"] = verified.manifest.into();
    line["finished"] = verified.finished.into();
    line["files"] = verified.files.into();
    line["bytes"] = verified.bytes.into();
    line["differences"] = list(&mut verified.differences.iter()).into();
    line["in_workspace"] = verified
        .primary
        .as_ref()
        .map(|found| list(&mut contents(found)))
        .into();
    line
}

/// An entry of `--json` with every key; docs/json.md lists them.
fn entry(job: Option<&JobId>, folder: Option<String>, result: &str, why: Option<&str>) -> Value {
    json!({
        "job": job.map(JobId::to_string),
        "folder": folder,
        "result": result,
        "whole": false,
        "present": null,
        "manifest": null,
        "finished": null,
        "files": null,
        "bytes": null,
        "differences": [],
        "in_workspace": null,
        "why": why,
    })
}

/// The fixed name of a difference, for `--json`.
fn kind(what: &What) -> &'static str {
    match what {
        What::Missing => "missing",
        What::Extra => "extra",
        What::Fifo => "fifo",
        What::Kind => "type",
        What::Size { .. } => "size",
        What::Content => "content",
        What::Target => "target",
        What::Links => "links",
        What::Mode => "mode",
        What::Mtime => "mtime",
        What::Unreadable(_) => "unreadable",
    }
}
