//! `xpmfs experiments copy`.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use dialoguer::Select as Choice;
use indicatif::HumanBytes;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::archive::experiments::copies;
use crate::archive::manual;
use crate::cli::errors::Usage;
use crate::cli::jobs::interrupt::{Destinations, Interrupt};
use crate::cli::jobs::meter::Meter;
use crate::cli::jobs::session::{Session, Which};
use crate::cli::{Global, Listing, Select, candidates, print, table};
use crate::remote::site::{Site, SiteExperiment};
use crate::remote::{CopyEvent, CopyOptions, CopyOutcome, CopyResult, Endpoint, copy_experiment};
use crate::settings::{Selection, Settings, Workspace};
use crate::sys::printable::printable;
use crate::transfer::Progress;
use crate::workspace::jobs::JobId;
use crate::workspace::runs::Layout;

/// Which run, from where to where.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The workspace to copy from: its id in the settings
    #[arg(long, value_name = "ID", add = ArgValueCompleter::new(candidates::workspaces))]
    from_workspace: Option<String>,
    /// The workspace to copy to
    #[arg(long, value_name = "ID", add = ArgValueCompleter::new(candidates::workspaces))]
    to_workspace: Option<String>,
    /// Copy; without this, only print what would be copied, and how large it is
    #[arg(short, long)]
    yes: bool,
    /// How the outcome is printed.
    #[command(flatten)]
    pub(super) listing: Listing,
    /// The experiment
    #[arg(value_name = "EXPERIMENT", add = ArgValueCompleter::new(candidates::experiments))]
    experiment: Option<OsString>,
    /// The run [default: the only one, or a choice at a terminal; `current` for the current one]
    #[arg(value_name = "RUN", requires = "experiment", add = ArgValueCompleter::new(candidates::runs))]
    run: Option<OsString>,
}

pub(super) fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(global.settings.as_deref())?;
    let from = workspace(
        &settings,
        &arguments.from_workspace,
        "--from-workspace",
        None,
    )?;
    let to = workspace(
        &settings,
        &arguments.to_workspace,
        "--to-workspace",
        Some(&from),
    )?;
    let ends = Ends {
        from: CopyEnd::open(&settings, &from, global)?,
        to: CopyEnd::open(&settings, &to, global)?,
    };
    let experiment = ends.from.experiment(arguments.experiment.as_deref())?;
    let run = ends.from.run(&experiment, arguments.run.as_deref())?;
    let progress = Arc::new(Progress::new());
    let options = CopyOptions {
        dry_run: !arguments.yes,
        progress: &progress,
        threads: manual::threads(),
    };
    let interrupt = Interrupt::of(&progress, Destinations::default());
    let meter = Meter::new(0, &progress, global);
    let seen = Mutex::new(Seen::default());
    let report = |event: CopyEvent<'_>| seen.lock().add(&event, &meter, global);
    let (source, destination) = (ends.from.side(), ends.to.side());
    let copied = copy_experiment(&source, &destination, &experiment, &run, &options, &report);
    meter.end();
    let interrupted = interrupt.came();
    drop(interrupt);
    let (seen, result) = (seen.into_inner(), copied?);
    let name = format!("{}/{}", experiment.display(), run.display());
    if global.json {
        let mut json = as_json(&result, seen.lines);
        json["experiment"] = experiment.to_string_lossy().into();
        json["run"] = run.to_string_lossy().into();
        (json["from"], json["to"]) = (from.id.into(), to.id.into());
        (json["dry_run"], json["interrupted"]) = (options.dry_run.into(), interrupted.into());
        print::json(&json)?;
    } else {
        if options.dry_run {
            print::text(&seen.table(&name))?;
        }
        result.errors.iter().for_each(|why| print::line(why));
        if !global.quiet {
            print::line(&summary(&name, &result, &options, (&from.id, &to.id)));
        }
    }
    if interrupted {
        print::line("interrupted: the jobs that were copied stay; the same command continues");
    }
    Ok(match result.errors.is_empty() && !interrupted {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The workspace that an option names, or that a person chooses.
fn workspace(
    settings: &Settings,
    id: &Option<String>,
    option: &str,
    not: Option<&Workspace>,
) -> anyhow::Result<Workspace> {
    if let Some(id) = id {
        let selection = Selection {
            workspace: Some(id.clone()),
            ..Selection::default()
        };
        return Ok(settings.select(&selection)?);
    }
    let others = settings.workspaces.iter();
    let others: Vec<&Workspace> = others
        .filter(|other| not.is_none_or(|not| not.id != other.id))
        .collect();
    let names = others.iter().map(|workspace| {
        let remote = if workspace.is_remote() {
            ", remote"
        } else {
            ""
        };
        format!("{} ({}{remote})", workspace.id, workspace.raw_path)
    });
    let title = match not {
        None => "Copy from",
        Some(_) => "Copy to",
    };
    let missing = format!("name the workspace with {option} ID");
    let chosen = choose(title, &names.collect::<Vec<_>>(), 0, &missing)?;
    let chosen = others.get(chosen).context("no workspace was chosen")?;
    Ok((*chosen).clone())
}

/// Asks a person at a terminal to choose; elsewhere, `missing` is the error.
fn choose(title: &str, names: &[String], default: usize, missing: &str) -> anyhow::Result<usize> {
    let is_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !is_terminal || names.is_empty() {
        return Err(Usage(missing.to_owned()).into());
    }
    let shown = names.iter().map(|name| printable(name));
    let chosen = Choice::new()
        .with_prompt(title)
        .items(shown)
        .default(default)
        .max_length(20)
        .interact_opt();
    match chosen.context("cannot ask at the terminal")? {
        Some(chosen) => Ok(chosen),
        None => bail!("nothing was chosen"),
    }
}

/// The two workspaces.
struct Ends {
    from: CopyEnd,
    to: CopyEnd,
}

/// An opened workspace.
pub(in crate::cli) enum CopyEnd {
    Local(Box<Session>),
    Remote(Box<Site>),
}

impl CopyEnd {
    pub(in crate::cli) fn open(
        settings: &Settings,
        workspace: &Workspace,
        global: &Global,
    ) -> anyhow::Result<CopyEnd> {
        if workspace.is_remote() {
            let folders = settings.folders_of(workspace);
            return Ok(CopyEnd::Remote(Box::new(Site::new(workspace, folders)?)));
        }
        let which = Which {
            select: Select {
                workspace: Some(workspace.id.clone()),
                ..Select::default()
            },
            ..Which::default()
        };
        Ok(CopyEnd::Local(Box::new(Session::open(
            &which,
            &[],
            global,
        )?)))
    }

    pub(in crate::cli) fn side(&self) -> Endpoint<'_> {
        match self {
            CopyEnd::Local(session) => Endpoint::Local(session.env()),
            CopyEnd::Remote(site) => Endpoint::Remote(site),
        }
    }

    /// The experiments that have runs, each with its runs and which one is the current one.
    fn experiments(&self) -> anyhow::Result<Vec<SiteExperiment>> {
        let session = match self {
            CopyEnd::Local(session) => session,
            CopyEnd::Remote(site) => return Ok(site.experiments()?),
        };
        let (found, unread) = copies::list(&session.opened.view);
        unread.iter().for_each(|why| print::line(why));
        let found = found.into_iter().filter(|it| it.layout == Layout::V2);
        let experiments = found.map(|it| {
            let current = it.newest().map(|run| run.id.as_os_str().to_owned());
            let runs = it.runs.iter().map(|run| run.id.as_os_str().to_owned());
            (it.id.clone(), runs.collect(), current)
        });
        Ok(experiments.collect())
    }

    /// The workspace's directory, for messages.
    fn path(&self) -> PathBuf {
        match self {
            CopyEnd::Local(session) => session.opened.workspace.path.clone(),
            CopyEnd::Remote(site) => site.shown(Path::new("")),
        }
    }

    fn experiment(&self, named: Option<&OsStr>) -> anyhow::Result<OsString> {
        if let Some(named) = named {
            return Ok(named.to_owned());
        }
        let mut found = self.experiments()?;
        found.retain(|(_, runs, _)| !runs.is_empty());
        let names = found.iter().map(|(id, runs, _)| {
            let runs = runs.len();
            format!(
                "{} ({runs} {})",
                id.display(),
                if runs == 1 { "run" } else { "runs" }
            )
        });
        let missing = "name the experiment to copy: `xpmfs experiments list` lists them";
        let chosen = choose("Experiment", &names.collect::<Vec<_>>(), 0, missing)?;
        let chosen = found.into_iter().nth(chosen);
        Ok(chosen.context("no experiment was chosen")?.0)
    }

    /// The named run, or the only one, or the one that a person chooses.
    fn run(&self, experiment: &OsStr, named: Option<&OsStr>) -> anyhow::Result<OsString> {
        let is_current = named.is_some_and(|run| run == "current");
        if let Some(named) = named.filter(|_| !is_current) {
            return Ok(named.to_owned());
        }
        let found = self
            .experiments()?
            .into_iter()
            .find(|(id, _, _)| id == experiment);
        let Some((_, runs, current)) = found else {
            bail!(
                "unknown experiment {} in {}: `xpmfs experiments list` lists those that are known",
                experiment.display(),
                self.path().display()
            );
        };
        if let (true, Some(current)) = (is_current, &current) {
            return Ok(current.clone());
        }
        if let [only] = &*runs {
            return Ok(only.clone());
        }
        let default = runs.iter().position(|run| Some(run) == current.as_ref());
        let names = runs.iter().enumerate().map(|(index, run)| {
            let current = if Some(index) == default {
                ", current"
            } else {
                ""
            };
            format!("{}{current}", run.display())
        });
        let missing = format!(
            "name the run of {} to copy, or `current`: `xpmfs experiments runs` lists them",
            experiment.display()
        );
        let chosen = choose(
            "Run",
            &names.collect::<Vec<_>>(),
            default.unwrap_or(0),
            &missing,
        )?;
        runs.into_iter().nth(chosen).context("no run was chosen")
    }
}

/// What was reported of the jobs.
#[derive(Default)]
struct Seen {
    /// For JSON.
    lines: Vec<Value>,
    /// For the table of a dry run: job, location, size.
    rows: Vec<[String; 3]>,
}

impl Seen {
    fn add(&mut self, event: &CopyEvent<'_>, meter: &Meter, global: &Global) {
        let (job, outcome) = match event {
            CopyEvent::Planned { run, jobs, .. } => {
                meter.jobs(*jobs as u64);
                if let Some(run) = run {
                    let size = HumanBytes(run.size.bytes).to_string();
                    self.rows.push([String::new(), run.location.clone(), size]);
                }
                return;
            }
            CopyEvent::Job(job, outcome) => (job, outcome),
        };
        match outcome {
            CopyOutcome::Planned(found) if !global.json => {
                let size = HumanBytes(found.size.bytes).to_string();
                let row = [job.to_string(), found.location.clone(), size];
                self.rows.push(row);
            }
            CopyOutcome::Copied(_) | CopyOutcome::Failed(_) => meter.job(),
            _ => {}
        }
        if global.json {
            self.lines.push(job_json(job, outcome));
        } else if global.verbose > 0 {
            match outcome {
                CopyOutcome::Copied(found) => meter.say(&format!(
                    "{job}: copied from {} ({} files, {})",
                    found.location,
                    found.size.files,
                    HumanBytes(found.size.bytes)
                )),
                CopyOutcome::Present => meter.say(&format!("{job}: already there")),
                _ => {}
            }
        }
    }

    /// What a dry run lists: the run, then its jobs.
    fn table(mut self, run: &str) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let mut table = table::plain(&["RUN OR JOB", "FROM", "SIZE"]);
        for row in &mut self.rows {
            if let [name, ..] = row
                && name.is_empty()
            {
                run.clone_into(name);
            }
            table::row(&mut table, row.iter().map(String::as_str));
        }
        table::text(&table)
    }
}

/// An entry of `jobs` in `experiments copy --json`: docs/json.md lists the keys.
fn job_json(job: &JobId, outcome: &CopyOutcome) -> Value {
    let (result, found, why) = match outcome {
        CopyOutcome::Present => ("present", None, None),
        CopyOutcome::Planned(found) => ("would_copy", Some(found), None),
        CopyOutcome::Copied(found) => ("copied", Some(found), None),
        CopyOutcome::Failed(why) => ("failed", None, Some(why)),
        CopyOutcome::Cancelled => ("cancelled", None, None),
    };
    json!({
        "job": job.to_string(),
        "result": result,
        "location": found.map(|found| &found.location),
        "files": found.map(|found| found.size.files),
        "bytes": found.map(|found| found.size.bytes),
        "why": why,
    })
}

/// `experiments copy --json`, without what the arguments say: docs/json.md lists the keys.
fn as_json(result: &CopyResult, jobs: Vec<Value>) -> Value {
    json!({
        "run_copied": result.run_copied,
        "jobs_copied": result.jobs_copied,
        "jobs_skipped": result.jobs_skipped,
        "files": result.size.files,
        "bytes": result.size.bytes,
        "errors": result.errors,
        "jobs": jobs,
    })
}

/// `copied xp/20260101_000000 and 12 jobs (5.00 MiB) from a to b: 3 already there, 1 failed`
pub(in crate::cli) fn summary(
    name: &str,
    result: &CopyResult,
    options: &CopyOptions<'_>,
    (from, to): (&str, &str),
) -> String {
    let jobs = match result.jobs_copied {
        1 => "1 job".to_owned(),
        jobs => format!("{jobs} jobs"),
    };
    let what = match (result.run_copied, result.jobs_copied) {
        (true, 0) => Some(name.to_owned()),
        (true, _) => Some(format!("{name} and {jobs}")),
        (false, 0) => None,
        (false, _) => Some(format!("{jobs} of {name}")),
    };
    let size = HumanBytes(result.size.bytes);
    let text = match (&what, options.dry_run) {
        (None, _) => format!("nothing to copy of {name} from {from} to {to}"),
        (Some(what), true) => format!("would copy {what} ({size}) from {from} to {to}"),
        (Some(what), false) => format!("copied {what} ({size}) from {from} to {to}"),
    };
    let others = [
        (result.jobs_skipped, "already there"),
        (result.errors.len(), "failed"),
    ];
    let others = others.iter().filter(|(count, _)| *count > 0);
    let others: Vec<String> = others
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let text = match others.is_empty() {
        true => text,
        false => format!("{text}: {}", others.join(", ")),
    };
    match what.is_some() && options.dry_run {
        true => format!("{text}; -y copies"),
        false => text,
    }
}
