//! `xpmfs jobs recover`.

use std::path::{PathBuf, absolute};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueHint};
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::interrupt::{Destinations, Interrupt};
use super::meter::Meter;
use super::session::{Jobs, Session, Work, why};
use crate::archive::archived_jobs::{self, FoundJobs};
use crate::archive::env::Env;
use crate::archive::error::JobError;
use crate::archive::experiments::copies;
use crate::archive::job::recover::Recovered;
use crate::archive::{amount, manual, places};
use crate::cli::advice::with_advice;
use crate::cli::{Global, print};
use crate::settings::{Folder, Mode};
use crate::transfer::Size;
use crate::workspace::jobs::JobId;

/// Which jobs, and from where.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Every job that a `backup` folder has, no `move` folder has, and the primary lacks; with --from, every job there that the
    /// primary lacks
    #[arg(long, conflicts_with = "jobs")]
    all: bool,
    /// From this directory: a folder of the workspace, or another workspace [default: the first folder with a finished copy that has a manifest; else the first with a finished copy; else the first]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::DirPath)]
    from: Option<PathBuf>,
    /// Also copies that differ from their manifests
    #[arg(long)]
    force: bool,
    /// Accepted and ignored: recovering loses nothing, so it asks nothing.
    #[arg(short, long, hide = true)]
    yes: bool,
    /// The jobs.
    #[command(flatten)]
    pub(super) work: Work,
}

pub(super) fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    if !arguments.all {
        let all = "every job that a `backup` folder has and the workspace has lost";
        arguments.work.which.expect_jobs("recover", Some(all))?;
    }
    let (session, from) = open(arguments, global)?;
    let session = session.forcing(arguments.force);
    let env = session.env();
    let (jobs, unseen) = match arguments.all {
        true => {
            let FoundJobs { jobs, unseen } = archived_jobs::lost(&env, from)
                .map_err(|unseen| anyhow::Error::msg(with_advice(&unseen)))?;
            (Jobs::from(jobs), unseen)
        }
        false => (session.named(&arguments.work.which)?, Vec::new()),
    };
    let unseen: Vec<String> = unseen.iter().map(with_advice).collect();
    for why in &unseen {
        print::line(why);
    }
    if arguments.all && !jobs.jobs.is_empty() && !global.quiet {
        announce(&env, &jobs, from);
    }
    let destination = Destinations::of([session.opened.view.primary()], &jobs.jobs);
    let interrupt = Interrupt::cancels(&session, destination.clone());
    let meter = Meter::new(jobs.jobs.len(), &session.progress, global);
    let size = |job: &JobId| amount::to_recover(&env, job, from);
    let recovered = meter.measured(&jobs.jobs, size, || {
        manual::recover_all(&env, &jobs.jobs, from, &|job, recovered| {
            let single = jobs.is_single(job) || global.verbose > 0;
            report(&session, job, recovered, &meter, single && !global.quiet);
            meter.job();
        })
    });
    meter.end();
    let mut tally = Tally::default();
    recovered.iter().for_each(|recovered| tally.add(recovered));
    let interrupted = interrupt.came();
    drop(interrupt);
    let several = jobs.jobs.iter().any(|job| !jobs.is_single(job));
    if global.json {
        let mut lines: Vec<Value> = unseen
            .iter()
            .map(|why| line(None, None, "unlisted", Some(why.clone())))
            .collect();
        let jobs = jobs.jobs.iter().zip(&recovered);
        lines.extend(jobs.map(|(job, recovered)| as_json(&session, job, recovered)));
        print::json(&lines)?;
    } else if (arguments.all || several || interrupted) && !global.quiet {
        print::line(&tally.summary());
    }
    if arguments.all && !global.quiet {
        hint(&session);
    }
    if interrupted {
        destination.describe().iter().for_each(|it| print::line(it));
    }
    Ok(
        if tally.failed + tally.cancelled > 0 || !unseen.is_empty() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        },
    )
}

/// Prints how to bring back the experiments that the primary has lost.
fn hint(session: &Session) {
    let experiments = match copies::lost(&session.opened.view) {
        0 => return,
        1 => "1 experiment is in a folder and not".to_owned(),
        count => format!("{count} experiments are in a folder and not"),
    };
    print::line(&format!(
        "note: {experiments} in the primary: `xpmfs experiments recover --all` brings them back, with partials and tags"
    ));
}

/// Prints how much `--all` is going to copy.
fn announce(env: &Env<'_>, jobs: &Jobs, from: Option<u8>) {
    let sizes = jobs
        .jobs
        .iter()
        .map(|job| amount::to_recover(env, job, from));
    let (mut size, mut unknown) = (Size::default(), 0);
    for one in sizes {
        unknown += u64::from(one == Size::default());
        size = [size, one].into_iter().sum();
    }
    let bytes = HumanBytes(size.bytes);
    let known = match unknown {
        0 => format!("{bytes}"),
        _ => format!("{bytes}, and {unknown} of unknown size"),
    };
    let count = match jobs.jobs.len() {
        1 => "1 job".to_owned(),
        count => format!("{count} jobs"),
    };
    let primary = env.view.primary_path().display();
    print::line(&format!("recovering {count} into {primary} ({known})"));
}

/// Opens the workspace, with the directory of `--from` as one more folder unless it is one. Returns that folder's number.
fn open(arguments: &Arguments, global: &Global) -> anyhow::Result<(Session, Option<u8>)> {
    let session = Session::open_to_work(&arguments.work, &[], global)?;
    let Some(path) = &arguments.from else {
        return Ok((session, None));
    };
    let path = absolute(path).with_context(|| format!("cannot use {}", path.display()))?;
    let number = |session: &Session| {
        let mut folders = session.opened.view.folders().iter();
        let folder = folders.find(|folder| *folder.path() == path);
        folder.map(|folder| folder.index())
    };
    if let Some(number) = number(&session) {
        return Ok((session, Some(number)));
    }
    let metadata = std::fs::metadata(&path)
        .with_context(|| format!("cannot recover from {}", path.display()))?;
    if !metadata.is_dir() {
        anyhow::bail!(
            "cannot recover from {}: it is not a directory",
            path.display()
        );
    }
    let folder = Folder::new(Mode::Use, &path);
    let session = Session::open_to_work(&arguments.work, &[folder], global)?;
    let number = number(&session);
    Ok((session, number))
}

/// Counts jobs by their outcome.
#[derive(Default)]
struct Tally {
    copied: u64,
    files: u64,
    bytes: u64,
    present: u64,
    failed: u64,
    cancelled: u64,
}

impl Tally {
    fn add(&mut self, recovered: &Result<Recovered, JobError>) {
        match recovered {
            Ok(Recovered::Copied { files, bytes, .. }) => {
                self.copied += 1;
                self.files += files;
                self.bytes += bytes;
            }
            Ok(Recovered::Present) => self.present += 1,
            Err(error) if error.is_cancelled() => self.cancelled += 1,
            Err(_) => self.failed += 1,
        }
    }

    /// `3 jobs recovered (12 files, 5.00 MiB): 1 already in the primary`
    fn summary(&self) -> String {
        let size = format!("({} files, {})", self.files, HumanBytes(self.bytes));
        let text = match self.copied {
            0 if self.failed > 0 => "nothing recovered".to_owned(),
            0 => "nothing to recover".to_owned(),
            1 => format!("1 job recovered {size}"),
            copied => format!("{copied} jobs recovered {size}"),
        };
        let mut others = Vec::new();
        if self.present > 0 {
            others.push(format!("{} already in the primary", self.present));
        }
        if self.failed > 0 {
            others.push(format!("{} failed", self.failed));
        }
        let mut text = match others.is_empty() {
            true => text,
            false => format!("{text}: {}", others.join(", ")),
        };
        if self.cancelled > 0 {
            text.push_str(&format!("; interrupted: {} not recovered", self.cancelled));
        }
        text
    }
}

/// Prints the outcome for one job: what went wrong, and if `verbose` also what went right.
fn report(
    session: &Session,
    job: &JobId,
    recovered: &Result<Recovered, JobError>,
    meter: &Meter,
    verbose: bool,
) {
    match recovered {
        Ok(Recovered::Copied {
            folder,
            files,
            bytes,
            finished,
            passed_over,
        }) => {
            if verbose {
                let passed = passed_over.iter();
                let passed = passed.map(|(folder, why)| {
                    format!("; {} comes first, but {why}", session.label(*folder))
                });
                meter.say(&format!(
                    "{job}: recovered from {} ({files} files, {}){}",
                    session.label(*folder),
                    HumanBytes(*bytes),
                    passed.collect::<String>()
                ));
            }
            if !finished {
                tracing::warn!(
                    "{job}: the copy has no `.done`: the job had not finished when it was made"
                );
            }
        }
        Ok(Recovered::Present) if verbose => {
            meter.say(&format!("{job}: already in the primary; nothing to do"));
        }
        Ok(Recovered::Present) => {}
        Err(error) if error.is_cancelled() => {}
        Err(error) => meter.say(&format!("{job}: {}", why(error))),
    }
}

fn as_json(session: &Session, job: &JobId, recovered: &Result<Recovered, JobError>) -> Value {
    let path = places::path(session.opened.view.primary(), job);
    let path = Some(path.to_string_lossy().into_owned());
    let entry = |result, why| line(Some(job), path, result, why);
    match recovered {
        Ok(Recovered::Copied {
            folder,
            files,
            bytes,
            finished,
            passed_over,
        }) => {
            let mut line = entry("recovered", None);
            line["folder"] = session.label(*folder).into();
            line["files"] = (*files).into();
            line["bytes"] = (*bytes).into();
            line["finished"] = (*finished).into();
            let passed = passed_over.iter();
            let passed =
                passed.map(|(folder, why)| json!({ "folder": session.label(*folder), "why": why }));
            line["passed_over"] = passed.collect();
            line
        }
        Ok(Recovered::Present) => entry("present", None),
        Err(error) if error.is_cancelled() => entry("cancelled", None),
        Err(error) => entry("failed", Some(why(error))),
    }
}

/// An entry of `--json` with every key; docs/json.md lists them.
fn line(job: Option<&JobId>, path: Option<String>, result: &str, why: Option<String>) -> Value {
    json!({
        "job": job.map(JobId::to_string),
        "path": path,
        "result": result,
        "folder": null,
        "files": null,
        "bytes": null,
        "finished": null,
        "passed_over": [],
        "why": why,
    })
}
