//! `xpmfs orphans`: jobs that no run of an experiment refers to.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueHint};
use indicatif::HumanBytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::columns::{Column, Columns, terminal_width};
use super::jobs::session::{Session, Which};
use super::open::More;
use super::style::{Colours, Tone, age};
use super::{Global, Listing, Select, print};
use crate::archive::orphans::{self, Orphan, Orphans, Search};
use crate::archive::places;
use crate::daemon::inventory;

/// Which workspace, and what is shown.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Show the sizes: looks at every file
    #[arg(long, display_order = 1)]
    size: bool,
    /// Also jobs that a `backup` or `move` folder has
    #[arg(long, display_order = 2)]
    no_folders: bool,
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
            "warning: {} has no experiments, so that each of its jobs seems to be an orphan: if they were lost, `xpmfs experiments recover --all` brings back those that a folder has",
            session.opened.workspace.path.display()
        ));
    }
    match global.json {
        true => {
            let jobs = found.jobs.iter().map(|job| as_json(&session, job));
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
fn as_json(session: &Session, job: &Orphan) -> Value {
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
    })
}
