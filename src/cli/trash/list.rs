//! `xpmfs trash list`.

use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use indicatif::HumanBytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::archive::job::trash::list::{InTrash, Listed, list_trash};
use crate::cli::jobs::session::{Session, Which};
use crate::cli::open::More;
use crate::cli::style::local;
use crate::cli::{Global, Listing, Select, print, table};
use crate::transfer::Size;

/// Which workspace.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How it is printed.
    #[command(flatten)]
    pub(super) listing: Listing,
    /// More folders.
    #[command(flatten)]
    more: More,
    /// Which workspace.
    #[command(flatten)]
    select: Select,
}

pub(super) fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    let which = Which {
        more: arguments.more.clone(),
        select: arguments.select.clone(),
        ..Which::default()
    };
    let session = Session::open(&which, &[], global)?;
    let Listed { jobs, unseen } = list_trash(&session.env());
    for unseen in &unseen {
        print::line(unseen);
    }
    if global.json {
        let jobs: Vec<Value> = jobs.iter().map(|job| as_json(&session, job)).collect();
        print::json(&jobs)?;
    } else if jobs.is_empty() {
        if !global.quiet {
            print::line("no deleted jobs");
        }
    } else {
        print::text(&text(&session, &jobs))?;
    }
    Ok(match unseen.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn text(session: &Session, jobs: &[InTrash]) -> String {
    let mut table = table::plain(&["DELETED", "UNTIL", "SIZE", "JOB", "WHERE"]);
    for deleted in jobs {
        let size = sizes(session, deleted).into_iter().flatten();
        let bytes = size
            .map(|(size, _)| size.bytes)
            .fold(0, u64::saturating_add);
        let places = deleted.copies.iter().map(|it| session.label(it.location));
        let waits = deleted.waits.iter();
        let waits = waits.map(|it| format!("{} (waiting for it)", session.label(*it)));
        let places: Vec<String> = places.chain(waits).collect();
        let cells = [
            local(deleted.batch.at()),
            until(session, deleted).map_or_else(|| "?".to_owned(), local),
            HumanBytes(bytes).to_string(),
            deleted.job.to_string(),
            places.join(", "),
        ];
        table::row(&mut table, cells.iter().map(String::as_str));
    }
    table::text(&table)
}

fn sizes(session: &Session, deleted: &InTrash) -> Vec<Option<(Size, u64)>> {
    let env = session.env();
    let copies = deleted.copies.iter();
    copies.map(|copy| copy.usage(&env, deleted)).collect()
}

fn until(session: &Session, deleted: &InTrash) -> Option<Timestamp> {
    let until: SystemTime = deleted.until(session.opened.tuning.trash());
    Timestamp::try_from(until).ok()
}

/// The entry of a job: docs/json.md lists the keys.
fn as_json(session: &Session, deleted: &InTrash) -> Value {
    let copies = deleted.copies.iter().zip(sizes(session, deleted));
    let copies = copies.map(|(copy, usage)| {
        json!({
            "location": session.label(copy.location),
            "path": copy.path.to_string_lossy(),
            "files": usage.map(|(size, _)| size.files),
            "bytes": usage.map(|(size, _)| size.bytes),
            "freed": usage.map(|(_, freed)| freed),
        })
    });
    let waits = deleted.waits.iter().map(|it| session.label(*it));
    json!({
        "job": deleted.job.to_string(),
        "deleted": deleted.batch.at().to_string(),
        "until": until(session, deleted).map(|until| until.to_string()),
        "copies": copies.collect::<Vec<_>>(),
        "pending": waits.collect::<Vec<_>>(),
    })
}
