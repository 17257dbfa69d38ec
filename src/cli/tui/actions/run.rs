//! Copies a run and its jobs to another workspace.

use anyhow::bail;

use super::super::order::Order;
use super::outcome::{ActionOutcome, ActionPlan, Lines};
use crate::archive::manual;
use crate::cli::Global;
use crate::cli::experiments::copy::{CopyEnd, summary};
use crate::cli::jobs::session::Session;
use crate::remote::{CopyOptions, CopyResult, Endpoint, copy_experiment};
use crate::settings::{Selection, Settings};

fn copy(
    order: &Order,
    session: &Session,
    global: &Global,
    dry_run: bool,
) -> anyhow::Result<(CopyResult, String)> {
    let Order::CopyRun {
        experiment,
        run,
        to,
    } = order
    else {
        bail!("nothing to copy");
    };
    let settings = Settings::load(global.settings.as_deref())?;
    let selection = Selection {
        workspace: Some(to.clone()),
        ..Selection::default()
    };
    let mut workspace = settings.select(&selection)?;
    if let Some(ssh) = &mut workspace.ssh {
        // It would ask for a password on the terminal that the dashboard has.
        ssh.options.insert(0, "-oBatchMode=yes".to_owned());
    }
    let end = CopyEnd::open(&settings, &workspace, global)?;
    let options = CopyOptions {
        dry_run,
        progress: &session.progress,
        threads: manual::threads(),
    };
    let (from, there) = (Endpoint::Local(session.env()), end.side());
    let result = copy_experiment(&from, &there, experiment, run, &options, &|_| {})?;
    let name = format!("{}/{}", experiment.display(), run.display());
    let ids = (session.opened.workspace.id.as_str(), to.as_str());
    let text = summary(&name, &result, &options, ids);
    Ok((result, text.trim_end_matches("; -y copies").to_owned()))
}

pub(super) fn plan(
    order: &Order,
    session: &Session,
    global: &Global,
) -> anyhow::Result<ActionPlan> {
    let (result, text) = copy(order, session, global, true)?;
    let mut lines = vec![text];
    lines.extend(result.errors.iter().cloned());
    Ok(ActionPlan {
        has_work: result.run_copied || result.jobs_copied > 0,
        lines,
        reasons: Vec::new(),
    })
}

pub(super) fn act(
    order: &Order,
    session: &Session,
    global: &Global,
) -> anyhow::Result<ActionOutcome> {
    let (result, summary) = copy(order, session, global, false)?;
    let mut lines = Lines::default();
    let failed = !result.errors.is_empty();
    result.errors.into_iter().for_each(|why| lines.add(why));
    Ok(ActionOutcome {
        summary,
        lines: lines.into_lines(),
        failed,
    })
}
