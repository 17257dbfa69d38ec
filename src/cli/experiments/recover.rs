//! `xpmfs experiments recover`.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::shared_arguments::SharedArguments;
use crate::archive::error::Cause;
use crate::archive::experiments::copies::{self, ExperimentCopies};
use crate::archive::experiments::recover::{RecoveredItem, recover};
use crate::archive::experiments::{Item, RunName};
use crate::cli::advice::advice_about;
use crate::cli::errors::Usage;
use crate::cli::jobs::interrupt::{Destinations, Interrupt};
use crate::cli::jobs::meter::Meter;
use crate::cli::jobs::session::Session;
use crate::cli::{Global, candidates, print};
use crate::view::PRIMARY;
use crate::workspace::runs::Layout;

/// Which runs.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Every run that a `backup` folder has
    #[arg(long, conflicts_with = "id")]
    all: bool,
    /// Also copies that differ from their manifests
    #[arg(long)]
    force: bool,
    /// The experiment
    #[arg(value_name = "EXPERIMENT", add = ArgValueCompleter::new(candidates::experiments))]
    id: Option<OsString>,
    /// One of its runs [default: all that a folder has]
    #[arg(value_name = "RUN", requires = "id")]
    run: Option<OsString>,
    /// The options of every command.
    #[command(flatten)]
    pub(super) shared: SharedArguments,
}

pub(super) fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    if !arguments.all && arguments.id.is_none() {
        let message = "name the experiment to recover, or --all for every run that a folder has";
        return Err(Usage(message.to_owned()).into());
    }
    let session = arguments.shared.open(global)?.forcing(arguments.force);
    let (found, unread) = copies::list(&session.opened.view);
    unread.iter().for_each(|why| print::line(why));
    let runs = runs(arguments, &found)?;
    let interrupt = Interrupt::cancels(&session, Destinations::of([], &Arc::default()));
    let meter = Meter::new(0, &session.progress, global);
    let mut tally = Tally::default();
    recover(&session.env(), &runs, &mut |item, recovered| {
        tally.add(&session, item, recovered, &meter, global);
    });
    meter.end();
    let interrupted = interrupt.came();
    drop(interrupt);
    if global.json {
        let unlisted = unread.iter().map(|why| entry(None, "unlisted", Some(why)));
        tally.lines.extend(unlisted);
        print::json(&tally.lines)?;
    } else if !global.quiet {
        print::line(&tally.summary());
    }
    Ok(
        match tally.failed == 0 && unread.is_empty() && !interrupted {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        },
    )
}

/// The runs that the arguments name and a folder has.
fn runs(arguments: &Arguments, found: &[ExperimentCopies]) -> anyhow::Result<Vec<RunName>> {
    let experiments = found.iter().filter(|experiment| {
        let is_named = arguments.id.as_ref().is_none_or(|id| *id == experiment.id);
        experiment.layout == Layout::V2 && is_named
    });
    let runs = experiments.flat_map(|experiment| {
        let runs = experiment.runs.iter().filter(|run| {
            let is_named = arguments
                .run
                .as_ref()
                .is_none_or(|name| name == run.id.as_os_str());
            is_named && run.locations.iter().any(|location| *location != PRIMARY)
        });
        runs.map(|run| experiment.name(run))
    });
    let runs: Vec<RunName> = runs.collect();
    if let (true, Some(id)) = (runs.is_empty(), &arguments.id) {
        let run = arguments.run.as_ref();
        let run = run.map_or_else(String::new, |run| format!(" {}", run.display()));
        bail!(
            "no `backup` folder has a run of {}{run}: `xpmfs experiments runs` lists those that are known",
            id.display()
        );
    }
    Ok(runs)
}

/// Counts items by their outcome.
#[derive(Default)]
struct Tally {
    runs: u64,
    partials: u64,
    bytes: u64,
    present: u64,
    failed: u64,
    lines: Vec<Value>,
}

impl Tally {
    fn add(
        &mut self,
        session: &Session,
        item: &Item,
        recovered: Result<RecoveredItem, Cause>,
        meter: &Meter,
        global: &Global,
    ) {
        match recovered {
            Ok(RecoveredItem::Copied {
                folder,
                files,
                bytes,
            }) => {
                match item {
                    Item::Run(_) => self.runs += 1,
                    Item::Partial(_) => self.partials += 1,
                }
                self.bytes += bytes;
                let folder = session.label(folder);
                if global.verbose > 0 {
                    let size = HumanBytes(bytes);
                    meter.say(&format!(
                        "{item}: recovered from {folder} ({files} files, {size})"
                    ));
                }
                let mut line = entry(Some(item), "recovered", None);
                line["folder"] = folder.into();
                (line["files"], line["bytes"]) = (files.into(), bytes.into());
                self.lines.push(line);
            }
            Ok(RecoveredItem::Present) => {
                self.present += 1;
                if global.verbose > 0 {
                    meter.say(&format!("{item}: already in the primary; nothing to do"));
                }
                self.lines.push(entry(Some(item), "present", None));
            }
            Ok(RecoveredItem::Absent) => {
                if global.verbose > 0 {
                    meter.say(&format!(
                        "{item}: in no folder: none of its jobs was archived"
                    ));
                }
                self.lines.push(entry(Some(item), "absent", None));
            }
            Err(Cause::Cancelled) => self.lines.push(entry(Some(item), "cancelled", None)),
            Err(cause) => {
                self.failed += 1;
                let why = match advice_about(&cause) {
                    Some(advice) => format!("{cause}: {advice}"),
                    None => cause.to_string(),
                };
                meter.say(&format!("{item}: not recovered: {why}"));
                self.lines.push(entry(Some(item), "failed", Some(&why)));
            }
        }
    }

    /// `2 runs and 1 partial recovered (5.00 MiB): 3 already in the primary`
    fn summary(&self) -> String {
        let text = match self.runs + self.partials {
            0 if self.failed > 0 => "nothing recovered".to_owned(),
            0 => "nothing to recover".to_owned(),
            _ => format!(
                "{} and {} recovered ({})",
                counted(self.runs, "run"),
                counted(self.partials, "partial"),
                HumanBytes(self.bytes)
            ),
        };
        let others = [
            (self.present, "already in the primary"),
            (self.failed, "failed"),
        ];
        let others: Vec<String> = others
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        match others.is_empty() {
            true => text,
            false => format!("{text}: {}", others.join(", ")),
        }
    }
}

fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// An entry of `--json`: docs/json.md lists the keys.
fn entry(item: Option<&Item>, result: &str, why: Option<&str>) -> Value {
    json!({
        "item": item.map(ToString::to_string),
        "result": result,
        "folder": null,
        "files": null,
        "bytes": null,
        "why": why,
    })
}
