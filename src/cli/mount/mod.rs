//! `xpmfs mount`.
//!
//! - `arguments`: its arguments
//! - `planned`: the plan of a mount, its checks, and the start of a daemon
//! - `serve`: the daemon itself

mod arguments;
mod planned;
mod serve;

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::bail;

pub use self::arguments::Arguments;
pub(super) use self::arguments::PRIVATE_FLAG;
pub(super) use self::planned::own_command;
use self::planned::{PRIMARY_TERM, Planned, primary_term};
use self::serve::{check_reload, in_background, resume, supervise};
use super::errors::Usage;
use super::shared_mount::{self, MountRequest};
use super::{Global, mount_helper, print};
use crate::daemon::REPLY_TIMEOUT;
use crate::daemon::attach::{RemountError, expect_no_silent_mount, remount};
use crate::daemon::log;
use crate::daemon::options;
use crate::daemon::run::Launcher;
use crate::daemon::sharing::caller::caller;
use crate::sys::deadline::within;
use crate::sys::shell_word::shell_word;

/// Mounts, and returns when the mount answers; in the foreground, when it has been unmounted.
///
/// # Errors
///
/// Why nothing is mounted, and what to do.
pub fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    if arguments.check_reload {
        return check_reload(arguments, global);
    }
    if let Some(state) = arguments.resume {
        return resume(state, global);
    }
    if arguments.in_background {
        return in_background(arguments, global);
    }
    if (arguments.options.iter()).any(|options| options::asks_to_remount(options)) {
        if arguments.shared {
            return Err(Usage(
                "`remount` changes a live mount, and --shared joins one: leave one of them out"
                    .to_owned(),
            )
            .into());
        }
        change_live_mount(arguments)?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.shared {
        mount_shared(arguments, global)?;
        return Ok(ExitCode::SUCCESS);
    }
    let planned = Planned::new(arguments, global)?;
    if arguments.foreground {
        planned.begin_log(global)?;
        return supervise(planned, Launcher::Foreground);
    } else {
        log::to_terminal(global.verbosity());
        let planned = planned.launch()?;
        report(&planned, global, false);
    }
    Ok(ExitCode::SUCCESS)
}

/// Joins a live mount, or makes it.
fn mount_shared(arguments: &Arguments, global: &Global) -> anyhow::Result<()> {
    let holder = match &arguments.holder {
        Some(given) => given.identify()?,
        None => caller()?,
    };
    let planned = Planned::new(arguments, global)?;
    log::to_terminal(global.verbosity());
    let mountpoint = planned.plan.attachment.mountpoint.clone();
    let primary = planned.plan.primary.clone();
    for path in [&primary, &mountpoint] {
        expect_no_silent_mount(path)?;
    }
    let mut terms = planned.plan.terms.clone();
    let resolved = within(REPLY_TIMEOUT, move || primary_term(&primary));
    terms.add(PRIMARY_TERM, resolved.unwrap_or_default());
    let wanted = MountRequest {
        mountpoint: &mountpoint,
        holder: &holder,
        terms: &terms,
        read_only: planned.plan.attachment.read_only,
    };
    let joined = shared_mount::mount(
        &wanted,
        || {
            own_command(vec![
                "__answers".into(),
                "--".into(),
                mountpoint.clone().into(),
            ])
        },
        || Planned::new(arguments, global)?.launch().map(drop),
    )?;
    report(&planned, global, joined);
    Ok(())
}

/// Changes the flags of a live mount (`-o remount,ro`), and nothing that its daemon was started with.
fn change_live_mount(arguments: &Arguments) -> anyhow::Result<()> {
    let Some(mountpoint) = &arguments.mountpoint else {
        bail!("`remount` needs the mount point: xpmfs mount -o remount,OPTIONS MOUNTPOINT");
    };
    let mut given: Vec<&OsStr> = arguments.options.iter().map(OsString::as_os_str).collect();
    if arguments.read_only {
        given.push(OsStr::new("ro"));
    }
    remount(mountpoint, &given, arguments.sloppy).map_err(|error| match error {
        // Wrong usage, which has an exit status of its own.
        RemountError::Options(error) => error.into(),
        error => error.into(),
    })
}

/// Prints at a terminal what is mounted now; mount(8) prints nothing.
fn report(planned: &Planned, global: &Global, joined: bool) {
    let plan = &planned.plan;
    let quiet = global.quiet || plan.attachment.private || mount_helper::has_called();
    if quiet || !std::io::stderr().is_terminal() {
        return;
    }
    let mountpoint = plan.attachment.mountpoint.display();
    let place = if plan.attachment.mountpoint == plan.primary {
        format!("in place at {mountpoint}")
    } else {
        format!("at {mountpoint}")
    };
    let folders = match plan.folders.len() {
        0 => String::new(),
        1 => ", with 1 folder,".to_owned(),
        count => format!(", with {count} folders,"),
    };
    let name = match plan.workspace.as_str() {
        "" => "the workspace",
        id => id,
    };
    let umount = shell_word(&plan.attachment.mountpoint);
    let umount = format!("`xpmfs umount {umount}`");
    let end = match (joined, plan.shared) {
        (true, _) => {
            format!("it was mounted before and is shared: {umount} ends this program's hold")
        }
        (false, true) => format!("{umount} unmounts it unless another program holds it"),
        (false, false) => format!("{umount} unmounts it"),
    };
    print::line(&format!("{name}{folders} is mounted {place}; {end}"));
}
