//! `xpmfs jobs undelete`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use clap::Args;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::interrupt::{Destinations, Interrupt};
use super::named::find_among;
use super::session::{Session, Work, why};
use crate::archive::deletions::undelete_jobs;
use crate::archive::job::trash::batch::Batch;
use crate::archive::job::trash::list::list_trash;
use crate::archive::job::trash::undelete::{NotUndeleted, UndeletionOutcome};
use crate::archive::places;
use crate::cli::{Global, print};
use crate::workspace::jobs::JobId;

/// Which jobs.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The jobs.
    #[command(flatten)]
    pub(super) work: Work,
}

pub(super) fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    arguments.work.which.expect_jobs("bring back", None)?;
    let session = Session::open_to_work(&arguments.work, &[], global)?;
    let env = session.env();
    let listed = list_trash(&env);
    for unseen in listed.unseen.iter().filter(|_| !global.quiet) {
        print::line(&format!("note: {unseen}"));
    }
    // The last deletion of each job.
    let deletions = listed.jobs.into_iter();
    let last: BTreeMap<JobId, Batch> = deletions
        .filter(|it| !it.copies.is_empty() || !it.waits.is_empty())
        .map(|it| (it.job, it.batch))
        .collect();
    let known: BTreeSet<JobId> = last.keys().cloned().collect();
    let (mut named, mut seen) = (Vec::new(), BTreeSet::new());
    for text in &arguments.work.which.jobs {
        for job in find_among(&session.opened, text, &known)? {
            if let Some(batch) = last.get(&job)
                && seen.insert(job.clone())
            {
                named.push((job, batch.clone()));
            }
        }
    }
    let interrupt = Interrupt::cancels(&session, Destinations::default());
    let results: Mutex<BTreeMap<JobId, Value>> = Mutex::default();
    let failed = Mutex::new(0_u64);
    undelete_jobs(&env, &named, &|job, outcome| {
        if !matches!(outcome, Ok(Ok(_))) {
            *failed.lock() += 1;
        }
        for line in lines(&session, job, &outcome) {
            if !global.quiet || !matches!(outcome, Ok(Ok(_))) {
                print::line(&line);
            }
        }
        let entry = as_json(&session, job, &outcome);
        results.lock().insert(job.clone(), entry);
    });
    let interrupted = interrupt.came();
    drop(interrupt);
    let results = results.into_inner();
    if global.json {
        let listed: Vec<&Value> = named
            .iter()
            .filter_map(|(job, _)| results.get(job))
            .collect();
        print::json(&listed)?;
    }
    if named.len() > 1 && !global.quiet && !global.json {
        let entries = results.values();
        let back = entries.filter(|it| it["result"] == "undeleted").count();
        print::line(&summary(back, named.len() - back));
    }
    if interrupted {
        print::line("interrupted: every job is either back or in the trash");
    }
    Ok(match failed.into_inner() == 0 && !interrupted {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// `3 jobs are back, 1 is not`
fn summary(back: usize, failed: usize) -> String {
    let back = match back {
        1 => "1 job is back".to_owned(),
        count => format!("{count} jobs are back"),
    };
    match failed {
        0 => back,
        1 => format!("{back}, 1 is not"),
        count => format!("{back}, {count} are not"),
    }
}

/// What is printed about a job.
pub(in crate::cli) fn lines(
    session: &Session,
    job: &JobId,
    outcome: &UndeletionOutcome,
) -> Vec<String> {
    match outcome {
        Ok(Ok(undeleted)) => {
            let labels = undeleted.restored.iter().map(|it| session.label(*it));
            let labels: Vec<String> = labels.collect();
            let mut lines = vec![format!("{job}: is back in {}", labels.join(", "))];
            for (folder, why) in &undeleted.away {
                lines.push(format!(
                    "{job}: {} cannot be used now ({why}): a copy in its trash stays there, and expires",
                    session.label(*folder)
                ));
            }
            lines
        }
        Ok(Err(refusal)) => vec![format!("{job}: not brought back: {}", refusal.why())],
        Err(error) => vec![format!("{job}: {}", why(error))],
    }
}

/// The entry of a job: docs/json.md lists the keys.
fn as_json(session: &Session, job: &JobId, outcome: &UndeletionOutcome) -> Value {
    let label = |location: &u8| session.label(*location);
    let (result, undeleted, reason, why) = match outcome {
        Ok(Ok(undeleted)) => ("undeleted", Some(undeleted), None, None),
        Ok(Err(refusal)) => {
            let reason = match refusal {
                NotUndeleted::Exists(_) => "exists",
                NotUndeleted::Absent(_) => "absent",
                NotUndeleted::Busy(_) => "busy",
            };
            let why = refusal.why().to_owned();
            ("kept", None, Some(reason), Some(why))
        }
        Err(error) if error.is_cancelled() => ("cancelled", None, None, None),
        Err(error) => ("failed", None, None, Some(why(error))),
    };
    let restored = undeleted.into_iter().flat_map(|it| &it.restored);
    let away = undeleted.into_iter().flat_map(|it| &it.away);
    let away = away.map(|(folder, why)| json!({ "location": label(folder), "why": why }));
    json!({
        "job": job.to_string(),
        "path": places::path(session.opened.view.primary(), job).to_string_lossy(),
        "result": result,
        "reason": reason,
        "locations": restored.map(label).collect::<Vec<_>>(),
        "away": away.collect::<Vec<_>>(),
        "why": why,
    })
}
