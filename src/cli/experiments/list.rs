//! `xpmfs experiments list` and `runs`.

use std::ffi::OsStr;
use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Value, json};

use crate::archive::experiments::copies::{self, Ended, ExperimentCopies, RunCopies};
use crate::cli::jobs::session::Session;
use crate::cli::style::local;
use crate::cli::{Global, print, table};
use crate::workspace::runs::Layout;

/// Lists experiments.
pub(super) fn experiments(session: &Session, global: &Global) -> anyhow::Result<ExitCode> {
    let (found, unread) = copies::list(&session.opened.view);
    unread.iter().for_each(|why| print::line(why));
    if global.json {
        let listed: Vec<Value> = found
            .iter()
            .map(|it| experiment_json(session, it))
            .collect();
        print::json(&listed)?;
    } else {
        let mut table = table::plain(&[
            "EXPERIMENT",
            "RUNS",
            "CURRENT",
            "STATE",
            "JOBS",
            "DONE",
            "FAILED",
            "LOCATIONS",
        ]);
        for experiment in &found {
            let newest = experiment.newest();
            let cells = [
                experiment.id.to_string_lossy().into_owned(),
                experiment.runs.len().to_string(),
                newest.map_or_else(String::new, |run| run.id.to_string()),
                newest.map_or_else(String::new, |run| run.state.to_string()),
                newest.map_or_else(String::new, jobs),
                ended(newest, |ended| ended.done),
                ended(newest, |ended| ended.failed),
                locations(session, experiment).join(", "),
            ];
            table::row(&mut table, cells.iter().map(String::as_str));
        }
        print::text(&table::text(&table))?;
    }
    Ok(status(&unread))
}

/// Lists the runs of an experiment, or of all.
pub(super) fn runs(
    session: &Session,
    id: Option<&OsStr>,
    global: &Global,
) -> anyhow::Result<ExitCode> {
    let (mut found, unread) = copies::list(&session.opened.view);
    unread.iter().for_each(|why| print::line(why));
    if let Some(id) = id {
        found.retain(|experiment| experiment.id == id);
        if found.is_empty() {
            bail!(
                "there is no experiment {}: `xpmfs experiments list` names all",
                id.display()
            );
        }
    }
    let runs = || {
        found
            .iter()
            .flat_map(|experiment| experiment.runs.iter().map(move |run| (experiment, run)))
    };
    if global.json {
        let listed: Vec<Value> = runs().map(|(it, run)| run_json(session, it, run)).collect();
        print::json(&listed)?;
    } else {
        let titles = [
            "EXPERIMENT",
            "RUN",
            "CURRENT",
            "STATE",
            "STARTED",
            "JOBS",
            "DONE",
            "FAILED",
            "LOCATIONS",
        ];
        let mut table = table::plain(&titles);
        for (experiment, run) in runs() {
            let started = run.status.as_ref().and_then(|status| status.started);
            let cells = [
                experiment.id.to_string_lossy().into_owned(),
                run.id.to_string(),
                if is_current(experiment, run) {
                    "yes"
                } else {
                    ""
                }
                .to_owned(),
                run.state.to_string(),
                started.map_or_else(|| by_name(run), local),
                jobs(run),
                ended(Some(run), |ended| ended.done),
                ended(Some(run), |ended| ended.failed),
                labels(session, &run.locations).join(", "),
            ];
            table::row(&mut table, cells.iter().map(String::as_str));
        }
        print::text(&table::text(&table))?;
    }
    Ok(status(&unread))
}

fn status(unread: &[String]) -> ExitCode {
    match unread.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn jobs(run: &RunCopies) -> String {
    run.jobs
        .map_or_else(|| "?".to_owned(), |jobs| jobs.to_string())
}

/// When a run without a status started, by its name: in the time zone of its machine.
fn by_name(run: &RunCopies) -> String {
    let started = run.id.started();
    started.map_or_else(String::new, |it| it.strftime("%Y-%m-%d %H:%M").to_string())
}

/// How many jobs of a run ended in one way, if that is known.
fn ended(run: Option<&RunCopies>, count: impl Fn(&Ended) -> usize) -> String {
    let ended = run.and_then(|run| run.ended.as_ref());
    ended.map_or_else(String::new, |ended| count(ended).to_string())
}

fn is_current(experiment: &ExperimentCopies, run: &RunCopies) -> bool {
    experiment.current.as_ref() == Some(&run.id)
}

/// The locations of the runs of an experiment.
fn locations(session: &Session, experiment: &ExperimentCopies) -> Vec<String> {
    let runs = experiment.runs.iter();
    let mut all: Vec<u8> = runs.flat_map(|run| run.locations.clone()).collect();
    all.sort_unstable();
    all.dedup();
    labels(session, &all)
}

fn labels(session: &Session, locations: &[u8]) -> Vec<String> {
    locations
        .iter()
        .map(|location| session.label(*location))
        .collect()
}

/// An entry of `experiments list --json`: docs/json.md lists the keys.
fn experiment_json(session: &Session, experiment: &ExperimentCopies) -> Value {
    let newest = experiment.newest();
    json!({
        "experiment": experiment.id.to_string_lossy(),
        "layout": match experiment.layout {
            Layout::V1 => "v1",
            Layout::V2 => "v2",
        },
        "runs": experiment.runs.len(),
        "current": experiment.current.as_ref().map(ToString::to_string),
        "state": newest.map(|run| run.state.to_string()),
        "hostname": newest.and_then(|run| run.status.as_ref()?.hostname.clone()),
        "jobs": newest.and_then(|run| run.jobs),
        "done": newest.and_then(|run| run.ended).map(|ended| ended.done),
        "failed": newest.and_then(|run| run.ended).map(|ended| ended.failed),
        "locations": locations(session, experiment),
    })
}

/// An entry of `experiments runs --json`: docs/json.md lists the keys.
fn run_json(session: &Session, experiment: &ExperimentCopies, run: &RunCopies) -> Value {
    let status = run.status.as_ref();
    let time = |time: Option<jiff::Timestamp>| time.map(|time| time.to_string());
    json!({
        "experiment": experiment.id.to_string_lossy(),
        "run": run.id.to_string(),
        "current": is_current(experiment, run),
        "state": run.state.to_string(),
        "started": time(status.and_then(|status| status.started)),
        "ended": time(status.and_then(|status| status.ended)),
        "hostname": status.and_then(|status| status.hostname.clone()),
        "jobs": run.jobs,
        "done": run.ended.map(|ended| ended.done),
        "failed": run.ended.map(|ended| ended.failed),
        "locations": labels(session, &run.locations),
    })
}
