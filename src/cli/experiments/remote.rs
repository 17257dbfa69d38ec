//! `xpmfs experiments list` and `runs` of a workspace on another machine: names alone, without states and jobs.

use std::ffi::OsStr;
use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Value, json};

use crate::cli::{Global, print, table};
use crate::remote::site::{Site, SiteExperiment};

/// Lists experiments.
pub(super) fn experiments(site: &Site, global: &Global) -> anyhow::Result<ExitCode> {
    let found = site.experiments()?;
    if global.json {
        let listed: Vec<Value> = found.iter().map(experiment_json).collect();
        print::json(&listed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = table::plain(&["EXPERIMENT", "RUNS", "CURRENT"]);
    for (id, runs, current) in &found {
        let (id, runs) = (id.to_string_lossy(), runs.len().to_string());
        let current = current.as_deref().unwrap_or_default().to_string_lossy();
        table::row(&mut table, [&*id, &runs, &current]);
    }
    print::text(&table::text(&table))?;
    Ok(ExitCode::SUCCESS)
}

/// Lists the runs of an experiment, or of all.
pub(super) fn runs(site: &Site, id: Option<&OsStr>, global: &Global) -> anyhow::Result<ExitCode> {
    let mut found = site.experiments()?;
    if let Some(id) = id {
        found.retain(|(experiment, _, _)| experiment == id);
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
            .flat_map(|it| it.1.iter().map(move |run| (it, run)))
    };
    if global.json {
        let listed: Vec<Value> = runs().map(|(it, run)| run_json(it, run)).collect();
        print::json(&listed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = table::plain(&["EXPERIMENT", "RUN", "CURRENT"]);
    for ((id, _, current), run) in runs() {
        let is_current = if current.as_ref() == Some(run) {
            "yes"
        } else {
            ""
        };
        let (id, run) = (id.to_string_lossy(), run.to_string_lossy());
        table::row(&mut table, [&*id, &run, is_current]);
    }
    print::text(&table::text(&table))?;
    Ok(ExitCode::SUCCESS)
}

/// An entry of `experiments list --json`, with null for what is not known.
fn experiment_json((id, runs, current): &SiteExperiment) -> Value {
    json!({
        "experiment": id.to_string_lossy(),
        "layout": "v2",
        "runs": runs.len(),
        "current": current.as_ref().map(|current| current.to_string_lossy()),
        "state": null,
        "jobs": null,
        "locations": ["primary"],
    })
}

/// An entry of `experiments runs --json`, with null for what is not known.
fn run_json((id, _, current): &SiteExperiment, run: &OsStr) -> Value {
    json!({
        "experiment": id.to_string_lossy(),
        "run": run.to_string_lossy(),
        "current": current.as_deref() == Some(run),
        "state": "unknown",
        "started": null,
        "ended": null,
        "hostname": null,
        "jobs": null,
        "locations": ["primary"],
    })
}
