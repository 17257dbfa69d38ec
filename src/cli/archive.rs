//! `xpmfs archive`: archives a workspace without a mount.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::open::{More, Opened, open};
use super::{Global, Listing, Select, jobs, print};
use crate::archive::engine::{Archiver, Config};
use crate::archive::env::Hooks;
use crate::archive::{fresh_records, trash_upkeep};
use crate::daemon::{archiver, archiving, limits, service_manager};

/// How often a workspace without a mount is scanned, unless the settings say otherwise.
const SCAN_INTERVAL: Duration = Duration::from_secs(10);

/// For how long.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Keep running, and archive jobs as they finish
    #[arg(long)]
    watch: bool,
    /// How the outcome is printed.
    #[command(flatten)]
    pub(super) listing: Listing,
    /// More folders.
    #[command(flatten)]
    more: More,
    /// Which workspace.
    #[command(flatten)]
    select: Select,
}

/// Archives a workspace: once, or until it is interrupted.
///
/// # Errors
///
/// The workspace cannot be opened, or has nowhere to archive to.
pub fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    if !arguments.watch {
        return jobs::archive_all(
            &arguments.listing,
            (&arguments.select, &arguments.more),
            global,
        );
    }
    limits::raise_descriptor_limit();
    let opened = open(&arguments.select, &arguments.more.folders, global)?;
    if !archiving::is_wanted(&opened.folders) {
        bail!(
            "the workspace has no `backup` or `move` folder to archive to: add one in {}",
            opened.settings.display()
        );
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot handle signals")?;
    let config = Config {
        scan_interval: opened.tuning.scan_interval.unwrap_or(SCAN_INTERVAL),
        ..archiving::config(&opened.tuning, &opened.folders)
    };
    let Opened {
        view,
        peers,
        workspace,
        tuning,
        ..
    } = opened;
    view.watch(Duration::from_secs(1));
    view.record_jobs();
    fresh_records::start(&view);
    let hooks: Arc<dyn Hooks> = Arc::new(peers);
    let trash = trash_upkeep::start(&view, tuning.trash(), &hooks);
    let archiver =
        Archiver::start(view.clone(), config, hooks).context("cannot start archiving")?;
    let control = archiver::listen(&view, &archiver, trash, &workspace.id);
    let path = workspace.path.display();
    tracing::info!("archiving {path}");
    service_manager::ready(&format!("archiving {path}"));
    if !global.quiet {
        print::line(&format!("archiving {path}, until it is interrupted"));
    }
    // The first signal ends it.
    let _ = signals.forever().next();
    service_manager::stopping("interrupted");
    drop(control);
    archiver.stop();
    Ok(ExitCode::SUCCESS)
}
