//! `xpmfs jobs recover`.

use std::ffi::OsString;
use std::path::{PathBuf, absolute};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueHint};
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::interrupt::Interrupt;
use super::meter::Meter;
use super::{bandwidth, env, expect_jobs, label, named, why};
use crate::archive::env::Env;
use crate::archive::error::JobError;
use crate::archive::job::recover::Recovered;
use crate::archive::lost::{self, Listed};
use crate::archive::{manual, places};
use crate::cli::open::{More, Opened, open};
use crate::cli::{Global, Listing, Select, print};
use crate::settings::{Folder, Mode};
use crate::transfer::Progress;
use crate::workspace::jobs::JobId;

/// Which jobs, and from where.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The jobs: task_id/hash, or the beginning of a hash
    #[arg(value_name = "JOB", value_hint = ValueHint::Other, conflicts_with = "all")]
    jobs: Vec<OsString>,
    /// Every job that a `backup` folder has, no `move` folder has, and the workspace's own directory lacks; with --from, every
    /// job there that it lacks
    #[arg(long)]
    all: bool,
    /// From this directory: a folder of the workspace, or another workspace [default: the first folder with a finished copy that has a manifest; else the first with a finished copy; else the first]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::DirPath)]
    from: Option<PathBuf>,
    /// Also if a copy is not what its manifest says
    #[arg(long)]
    force: bool,
    /// Threads that copy [default: two per processor, from 4 to 16]
    #[arg(long, value_name = "N", hide = true)]
    threads: Option<usize>,
    /// Nothing asks: recovering loses nothing.
    #[arg(short, long, hide = true)]
    yes: bool,
    /// How the outcome is printed.
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
        let all = "every job that a `backup` folder has and the workspace has lost";
        expect_jobs(&arguments.jobs, "recover", Some(all))?;
    }
    let from = match &arguments.from {
        Some(path) => {
            Some(absolute(path).with_context(|| format!("cannot use {}", path.display()))?)
        }
        None => None,
    };
    let plain = open(&arguments.select, &arguments.more.folders, global)?;
    let known = |path: &PathBuf| {
        plain
            .view
            .folders()
            .iter()
            .any(|folder| folder.path() == path)
    };
    let opened = match &from {
        Some(path) if !known(path) => {
            let metadata = std::fs::metadata(path)
                .with_context(|| format!("cannot recover from {}", path.display()))?;
            if !metadata.is_dir() {
                anyhow::bail!(
                    "cannot recover from {}: it is not a directory",
                    path.display()
                );
            }
            let mut more = arguments.more.folders.clone();
            more.push(Folder::new(Mode::Use, path));
            open(&arguments.select, &more, global)?
        }
        _ => plain,
    };
    let from = from.and_then(|path| {
        let folder = opened
            .view
            .folders()
            .iter()
            .find(|folder| *folder.path() == path);
        folder.map(|folder| folder.index())
    });
    let progress = Arc::new(Progress::new());
    let limit = bandwidth(&opened);
    let threads = arguments.threads.unwrap_or_else(manual::threads);
    let env = Env {
        force: arguments.force,
        ..env(&opened, &progress, limit.as_ref(), threads)
    };
    let Listed { jobs, unseen } = match arguments.all {
        true => lost::lost(&env, from).map_err(anyhow::Error::msg)?,
        false => Listed {
            jobs: named(&opened, &arguments.jobs)?,
            unseen: Vec::new(),
        },
    };
    for why in &unseen {
        print::line(why);
    }
    let interrupt = Interrupt::cancels(&progress);
    let meter = Meter::new(jobs.len(), &progress, global);
    let recovered = manual::recover_all(&env, &jobs, from, &|job, recovered| {
        tell(&opened, job, recovered, &meter, arguments.all, global);
        meter.job();
    });
    meter.end();
    let mut tally = Tally::default();
    recovered.iter().for_each(|recovered| tally.add(recovered));
    let interrupted = interrupt.came();
    drop(interrupt);
    if global.json {
        let mut lines: Vec<Value> = unseen
            .iter()
            .map(|why| line(None, None, "unlisted", Some(why.clone())))
            .collect();
        let jobs = jobs.iter().zip(&recovered);
        lines.extend(jobs.map(|(job, recovered)| as_json(&opened, job, recovered)));
        print::json(&lines)?;
    } else if (arguments.all || interrupted) && !global.quiet {
        print::line(&tally.summary());
    }
    Ok(
        if tally.failed + tally.cancelled > 0 || !unseen.is_empty() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        },
    )
}

/// What became of all.
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

    fn summary(&self) -> String {
        let mut text = match self.copied {
            0 => "nothing was to be recovered".to_owned(),
            copied => format!(
                "{copied} {} recovered ({} files, {})",
                if copied == 1 { "job was" } else { "jobs were" },
                self.files,
                HumanBytes(self.bytes)
            ),
        };
        if self.present > 0 {
            text.push_str(&format!("; {} came back meanwhile", self.present));
        }
        if self.cancelled > 0 {
            text.push_str(&format!(
                "; {} not recovered, of which nothing is left in the workspace",
                self.cancelled
            ));
        }
        if self.failed > 0 {
            text.push_str(&format!("; {} failed", self.failed));
        }
        text
    }
}

/// Tells of one job: of each that is named, and of all only what is out of the ordinary.
fn tell(
    opened: &Opened,
    job: &JobId,
    recovered: &Result<Recovered, JobError>,
    meter: &Meter,
    all: bool,
    global: &Global,
) {
    let told = !global.quiet && (!all || global.verbose > 0);
    match recovered {
        Ok(Recovered::Copied {
            folder,
            files,
            bytes,
            finished,
            passed_over,
        }) => {
            if told {
                let passed = passed_over.iter();
                let passed = passed.map(|(folder, why)| {
                    format!("; {} comes first, but {why}", label(opened, *folder))
                });
                meter.say(&format!(
                    "{job}: recovered from {} ({files} files, {}){}",
                    label(opened, *folder),
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
        Ok(Recovered::Present) if told => meter.say(&format!(
            "{job}: the workspace's own directory has it already, and it is left alone"
        )),
        Ok(Recovered::Present) => {}
        Err(error) if error.is_cancelled() => {}
        Err(error) => meter.say(&format!("{job}: {}", why(error))),
    }
}

fn as_json(opened: &Opened, job: &JobId, recovered: &Result<Recovered, JobError>) -> Value {
    let path = places::path(opened.view.primary(), job);
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
            line["folder"] = label(opened, *folder).into();
            line["files"] = (*files).into();
            line["bytes"] = (*bytes).into();
            line["finished"] = (*finished).into();
            let passed = passed_over.iter();
            let passed =
                passed.map(|(folder, why)| json!({ "folder": label(opened, *folder), "why": why }));
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
