//! `xpmfs jobs opt-out` and `opt-in`.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueHint};

use super::{expect_jobs, named};
use crate::archive::job::opt_out::{self, Eligibility, OptOuts};
use crate::archive::places;
use crate::cli::open::{More, open};
use crate::cli::{Global, Select, print};
use crate::daemon::archiving;

/// Which jobs.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The jobs: task_id/hash, or the beginning of a hash
    #[arg(value_name = "JOB", value_hint = ValueHint::Other)]
    jobs: Vec<OsString>,
    /// More folders.
    #[command(flatten)]
    more: More,
    /// Which workspace.
    #[command(flatten)]
    select: Select,
}

pub(super) fn run(arguments: &Arguments, out: bool, global: &Global) -> anyhow::Result<ExitCode> {
    let what = if out { "opt out" } else { "opt in" };
    expect_jobs(&arguments.jobs, what, None)?;
    let opened = open(&arguments.select, &arguments.more.folders, global)?;
    for job in named(&opened, &arguments.jobs)? {
        let primary = opened.view.primary();
        let path = places::path(primary, &job);
        let directory = places::job(primary, &job)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let Some(directory) = directory else {
            bail!(
                "{job}: the workspace's own directory does not have it, so that there is nothing to opt {}",
                if out { "out" } else { "in" }
            );
        };
        let config = archiving::config(&opened.tuning, &opened.folders);
        let outs = OptOuts::new(config.exclude, config.folder_exclude);
        let changed = match out {
            true => opt_out::set_file(&directory, true).map_err(Into::into),
            false => outs.opt_in(&opened.view, &job, &directory),
        };
        let changed = changed
            .with_context(|| format!("cannot change whether {} is opted out", path.display()))?;
        if !global.quiet {
            if !out && let Ok(Eligibility::Out(how)) = outs.of(&opened.view, &job, &directory) {
                print::line(&format!("{job} is still opted out, as {how}"));
                continue;
            }
            let said = match (out, changed) {
                (true, true) => "is not archived from now on; copies that there are stay",
                (true, false) => "was opted out already",
                (false, true) => "is archived again",
                (false, false) => "was not opted out",
            };
            print::line(&format!("{job} {said}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
