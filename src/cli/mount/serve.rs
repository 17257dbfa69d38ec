//! The processes that serve a mount: started in the foreground, by `xpmfs mount`, or by the supervisor of another version.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::arguments::Arguments;
use super::planned::Planned;
use crate::cli::{Global, mount_helper, sentence};
use crate::daemon::background::Parent;
use crate::daemon::limits;
use crate::daemon::log::{self, Destination};
use crate::daemon::plan::Plan;
use crate::daemon::run::Launcher;
use crate::daemon::supervisor::{self, ForkResult, Link, Program, Resumed, SupervisorStart};
use crate::settings::validate_folders;

/// Answers a supervisor whether this program can go on with its mount, and how.
pub(super) fn check_reload(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    let program = Program::from_stdin()
        .context("--check-reload is for the process that serves a mount; use `xpmfs reload`")?;
    let plan = program.check_version().and_then(|()| {
        let mut planned = Planned::new(arguments, global)?;
        let (old, new) = (program.primary(), &planned.plan.primary);
        if old != new {
            bail!(
                "by the settings, the workspace is in {} now, and the mount shows {}: a live mount cannot change its workspace; unmount it and mount it again",
                new.display(),
                old.display()
            );
        }
        limits::check(planned.folders.len())?;
        validate_folders(&planned.workspace, &planned.folders)?;
        planned.add_primary_term();
        Ok(serde_json::to_value(&planned.plan)?)
    });
    program.answer(plan.map_err(|error| sentence(&error)))?;
    Ok(ExitCode::SUCCESS)
}

/// Goes on as the supervisor of a mount that another program has left.
pub(super) fn resume(state: i32, global: &Global) -> anyhow::Result<ExitCode> {
    let mut state = supervisor::receive(state)
        .context("--resume is for the process that serves a mount; use `xpmfs reload`")?;
    let mut plan: Plan = state.plan()?;
    let log = state.take_log().map(|(path, file)| {
        plan.log = Destination::File(path);
        file
    });
    // Without a log, it is served all the same.
    let mountpoint = &plan.attachment.mountpoint;
    let _ = log::resume(&plan.log, mountpoint, log, global.verbosity());
    let in_background = state.is_in_background();
    let served = match supervisor::resume(state) {
        Ok(ForkResult::Ended(code)) => Ok(code),
        Ok(ForkResult::Worker(link)) => work(*link, |link, resumed| {
            plan.serve(Launcher::Resumed { in_background }, link, resumed)
        }),
        Err(error) => Err(error.into()),
    };
    Ok(served.unwrap_or_else(|error| {
        tracing::error!(target: "xpmfs::daemon", "{}", sentence(&error));
        ExitCode::FAILURE
    }))
}

/// Serves a mount as a worker.
fn work(
    link: Link,
    serve: impl FnOnce(&Arc<Link>, Option<Resumed>) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let link = Arc::new(link);
    let resumed = link.take_resumed();
    let continues = resumed.is_some();
    let served = serve(&link, resumed);
    // If this worker could not go on with the mount, the supervisor starts another one.
    if served.is_ok() || !continues || link.is_serving() {
        link.over();
    }
    served.map(|()| ExitCode::SUCCESS)
}

/// The daemon's part. An error is sent to the waiting parent process, which prints it.
pub(super) fn in_background(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    let parent = Parent::from_stdin()
        .context("--in-background is for `xpmfs mount` itself; leave it out")?;
    let other = parent.try_clone()?;
    let served = Planned::new(arguments, global).and_then(|planned| {
        planned.begin_log(global)?;
        supervise(planned, Launcher::Background(parent))
    });
    Ok(match served {
        Ok(code) => code,
        Err(error) => {
            // Here it goes to the log; the parent prints it.
            log::close_stderr();
            let sentence = sentence(&error);
            tracing::error!(target: "xpmfs::daemon", "{sentence}");
            other.failed(&sentence);
            ExitCode::FAILURE
        }
    })
}

/// Divides this process into a supervisor and a worker, which serves the mount. Returns in both.
pub(super) fn supervise(mut planned: Planned, caller: Launcher) -> anyhow::Result<ExitCode> {
    let origin = SupervisorStart {
        arguments: mount_helper::own_arguments(),
        in_background: !matches!(caller, Launcher::Foreground),
    };
    let side = supervisor::start(origin);
    match side.context("cannot start the process that serves the mount")? {
        ForkResult::Ended(code) => Ok(code),
        ForkResult::Worker(link) => work(*link, |link, resumed| {
            // Afterwards, the paths lead into the mount.
            if resumed.is_none() {
                planned.prepare()?;
                planned.add_primary_term();
                for warning in &planned.warnings {
                    tracing::warn!("{warning}");
                }
            }
            planned.plan.serve(caller, link, resumed)
        }),
    }
}
