//! `xpmfs jobs recover`.

use std::ffi::OsString;
use std::path::{PathBuf, absolute};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueHint};
use indicatif::HumanBytes;
use serde_json::json;

use super::meter::Meter;
use super::{bandwidth, env, expect_jobs, label, named, why};
use crate::archive::{Env, Recovered, Retired, by_hand, leftovers, places};
use crate::cli::open::{More, open};
use crate::cli::{Global, Listing, Select, print};
use crate::settings::{Folder, Mode};
use crate::transfer::Progress;

/// Which jobs, and from where.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The jobs: task_id/hash, or the beginning of a hash
    #[arg(value_name = "JOB", value_hint = ValueHint::Other)]
    jobs: Vec<OsString>,
    /// From this directory: a folder of the workspace, or another workspace [default: the first folder that has the job]
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
    expect_jobs(&arguments.jobs, "recover", None)?;
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
            {
                let mut more = arguments.more.folders.clone();
                more.push(Folder::new(Mode::Use, path));
                open(&arguments.select, &more, global)?
            }
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
    let jobs = named(&opened, &arguments.jobs)?;
    let progress = Arc::new(Progress::new());
    let (retired, limit) = (Retired::default(), bandwidth(&opened));
    let threads = arguments.threads.unwrap_or_else(by_hand::threads);
    let env = Env {
        force: arguments.force,
        ..env(&opened, &progress, &retired, limit.as_ref(), threads)
    };
    let meter = Meter::new(jobs.len(), &progress, global);
    let mut lines = Vec::new();
    let mut failed = false;
    leftovers::clear_of(&env, &jobs);
    for job in &jobs {
        let recovered = by_hand::recover(&env, job, from);
        let path = places::path(opened.view.primary(), job);
        let mut line = json!({ "job": job.to_string(), "path": path.to_string_lossy() });
        match recovered {
            Ok(Recovered::Copied {
                folder,
                files,
                bytes,
                finished,
            }) => {
                let place = label(&opened, folder);
                line["result"] = "recovered".into();
                line["folder"] = place.clone().into();
                line["finished"] = finished.into();
                if !global.quiet {
                    meter.say(&format!(
                        "{job}: recovered from {place} ({files} files, {})",
                        HumanBytes(bytes)
                    ));
                }
                if !finished {
                    tracing::warn!(
                        "{job}: the copy has no `.done`: the job had not finished when it was made"
                    );
                }
            }
            Ok(Recovered::Present) => {
                line["result"] = "present".into();
                if !global.quiet {
                    meter.say(&format!(
                        "{job}: the workspace's own directory has it already, and it is left alone"
                    ));
                }
            }
            Err(error) => {
                failed = true;
                line["result"] = "failed".into();
                line["why"] = why(&error).into();
                meter.say(&format!("{job}: {}", why(&error)));
            }
        }
        lines.push(line);
        meter.job();
    }
    meter.end();
    if global.json {
        print::json(&lines)?;
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
