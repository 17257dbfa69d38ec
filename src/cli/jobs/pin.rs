//! `xpmfs jobs pin` and `unpin`.

use std::process::ExitCode;

use clap::Args;

use super::session::{Session, Which};
use crate::archive::pins;
use crate::cli::{Global, print};

/// Which jobs.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The jobs.
    #[command(flatten)]
    which: Which,
}

/// Pins jobs (`pinned`), or removes their pins.
pub(super) fn run(
    arguments: &Arguments,
    pinned: bool,
    global: &Global,
) -> anyhow::Result<ExitCode> {
    let what = if pinned { "pin" } else { "unpin" };
    arguments.which.expect_jobs(what, None)?;
    let session = Session::open(&arguments.which, &[], global)?;
    let jobs = session.named(&arguments.which)?;
    let primary = session.opened.view.primary();
    let mut status = ExitCode::SUCCESS;
    for job in jobs.jobs.iter() {
        let changed = pins::set_pinned(primary, job, pinned);
        let done = match (changed, pinned) {
            (Ok(true), true) => "pinned".to_owned(),
            (Ok(false), true) => "was already pinned".to_owned(),
            (Ok(true), false) => "no longer pinned".to_owned(),
            (Ok(false), false) => "was not pinned".to_owned(),
            (Err(error), _) => {
                status = ExitCode::FAILURE;
                print::line(&format!("{job}: {}", pins::explain(primary, job, error)));
                continue;
            }
        };
        if !global.quiet {
            print::line(&format!("{job}: {done}"));
        }
    }
    Ok(status)
}
