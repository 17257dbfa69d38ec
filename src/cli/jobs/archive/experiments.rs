//! Archives the runs of experiments and the partials of their jobs, for `xpmfs archive`.

use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::super::meter::Meter;
use super::super::session::Session;
use crate::archive::env::Env;
use crate::archive::error::Cause;
use crate::archive::experiments::Item;
use crate::archive::experiments::manual::{self, Archived};
use crate::archive::experiments::pass::ItemOutcome;
use crate::archive::job::ready::Judge;
use crate::archive::job::store::Stored;
use crate::cli::Global;
use crate::cli::advice::advice_about;

/// What was archived.
#[derive(Default)]
pub(super) struct Items {
    pub(super) failed: u64,
    pub(super) lines: Vec<Value>,
    pub(super) summary: Option<String>,
    runs: u64,
    partials: u64,
    bytes: u64,
}

/// Archives what has ended, in each `backup` folder, and prints what could not be archived.
pub(super) fn archive(session: &Session, judge: &Judge, meter: &Meter, global: &Global) -> Items {
    let env = Env {
        out: Some(&judge.out),
        ..session.env()
    };
    let mut items = Items::default();
    manual::archive(&env, &mut |folder, archived| {
        items.add(&session.label(folder), archived, meter, global);
    });
    let counts = [(items.runs, "run"), (items.partials, "partial")];
    let counts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| match count {
            1 => format!("1 {what}"),
            count => format!("{count} {what}s"),
        })
        .collect();
    items.summary = (!counts.is_empty()).then(|| {
        let size = HumanBytes(items.bytes);
        format!("{} archived ({size})", counts.join(" and "))
    });
    items
}

impl Items {
    fn add(&mut self, folder: &str, archived: Archived, meter: &Meter, global: &Global) {
        let (item, outcome) = match archived {
            Archived::Item(item, outcome) => (item, outcome),
            Archived::NoPlace => {
                if !global.quiet {
                    meter.say(&format!("note: {folder} names a `jobs` directory: it receives jobs, and no runs or partials"));
                }
                return;
            }
            Archived::Folder(Cause::Cancelled) => return,
            Archived::Folder(cause) => {
                return self.wrong(None, (folder, "failed"), explain(&cause), meter);
            }
            Archived::Unread(why) => return self.wrong(None, (folder, "unlisted"), why, meter),
        };
        match outcome {
            ItemOutcome::Stored(Stored::Copied { files, bytes }) => {
                self.copied(&item, (folder, "copied"), (files, bytes), meter, global);
            }
            ItemOutcome::Stored(Stored::Replaced { files, bytes }) => {
                self.copied(&item, (folder, "replaced"), (files, bytes), meter, global);
            }
            ItemOutcome::Stored(Stored::Already | Stored::Skipped(_)) => {}
            ItemOutcome::Waiting(why) => {
                self.wrong(Some(&item), (folder, "not_archived"), why, meter)
            }
            ItemOutcome::InUse(why) => {
                if !global.quiet {
                    meter.say(&format!("{item}: skipped: {why}"));
                }
                let line = entry(Some(&item), (folder, "skipped"), Some("busy"), Some(why));
                self.lines.push(line);
            }
            ItemOutcome::Failed(cause) => {
                self.wrong(Some(&item), (folder, "failed"), explain(&cause), meter);
            }
        }
    }

    fn copied(
        &mut self,
        item: &Item,
        (folder, result): (&str, &str),
        (files, bytes): (u64, u64),
        meter: &Meter,
        global: &Global,
    ) {
        match item {
            Item::Run(_) => self.runs += 1,
            Item::Partial(_) => self.partials += 1,
        }
        self.bytes += bytes;
        if global.verbose > 0 {
            meter.say(&format!("{item}: {result} to {folder}"));
        }
        let mut line = entry(Some(item), (folder, result), None, None);
        (line["files"], line["bytes"]) = (files.into(), bytes.into());
        self.lines.push(line);
    }

    fn wrong(
        &mut self,
        item: Option<&Item>,
        (folder, result): (&str, &str),
        why: String,
        meter: &Meter,
    ) {
        self.failed += 1;
        let what = item.map_or_else(String::new, |item| format!("{item}: "));
        meter.say(&format!("{what}not archived in {folder}: {why}"));
        let reason = (result == "not_archived").then_some("settling");
        self.lines
            .push(entry(item, (folder, result), reason, Some(why)));
    }
}

fn explain(cause: &Cause) -> String {
    match advice_about(cause) {
        Some(advice) => format!("{cause}: {advice}"),
        None => cause.to_string(),
    }
}

/// An entry of `--json`: docs/json.md lists the keys.
fn entry(
    item: Option<&Item>,
    (folder, result): (&str, &str),
    reason: Option<&str>,
    why: Option<String>,
) -> Value {
    json!({
        "job": null,
        "item": item.map(ToString::to_string),
        "folder": folder,
        "result": result,
        "reason": reason,
        "files": null,
        "bytes": null,
        "why": why,
    })
}
