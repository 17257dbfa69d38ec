//! `mount --shared`: joins a mount that is there, or makes it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::daemon::background::answers_in_time;
use crate::daemon::mounts::MountInfo;
use crate::daemon::sharing::command;
use crate::daemon::sharing::holder::Holder;
use crate::daemon::sharing::launch_lock::LaunchLock;
use crate::daemon::sharing::register::Hold;
use crate::daemon::sharing::terms::Terms;
use crate::daemon::unmount::mount_at;

/// How long all of it may take while other programs mount and unmount at the same place.
const TIMEOUT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(20);

/// What a program asks for.
pub(super) struct MountRequest<'a> {
    /// The mount point, absolute.
    pub(super) mountpoint: &'a Path,
    /// Who is to hold the mount.
    pub(super) holder: &'a Holder,
    /// How it is to be made.
    pub(super) terms: &'a Terms,
    pub(super) read_only: bool,
}

/// Registers a holder at a live mount, which `launch` makes if there is none; `probe` is the command that ends when the mount answers.
/// Returns whether the mount was there before.
///
/// # Errors
///
/// Why nothing is mounted, or how the mount differs from what is asked for.
pub(super) fn mount(
    wanted: &MountRequest<'_>,
    probe: impl Fn() -> Command,
    mut launch: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let place = wanted.mountpoint.display();
    let _lock = LaunchLock::wait(wanted.mountpoint);
    let deadline = Instant::now() + TIMEOUT;
    let mut was_there = true;
    while Instant::now() < deadline {
        let Ok(mount) = mount_at(wanted.mountpoint) else {
            was_there = false;
            launch_or_find(wanted.mountpoint, &mut launch)?;
            continue;
        };
        expect_own(&mount)?;
        let held = command::hold(&mount, wanted.holder, wanted.terms)
            .map_err(|error| error.of(&mount))
            .with_context(|| format!("cannot share the mount at {place}"))?;
        match held {
            // Dead: the next mount clears it.
            None => {
                was_there = false;
                launch_or_find(wanted.mountpoint, &mut launch)?;
            }
            // Another program has permission to unmount: it has gone in a moment, or stays.
            Some(Hold::Unmounting) => std::thread::sleep(PAUSE),
            Some(Hold::Held) => {
                expect_same_flag(&mount, wanted)?;
                // The daemon registers holders before the kernel has accepted it.
                if answers_in_time(probe(), &mount.mountpoint)? {
                    return Ok(was_there);
                }
            }
            Some(Hold::Different(differences)) => bail!(
                "{place} is mounted differently: {}; use the same settings and options, or mount elsewhere",
                differences.join("; ")
            ),
            Some(Hold::Absent) => bail!(
                "the daemon of the mount at {place} does not see {}: name a holder with --holder",
                wanted.holder.description()
            ),
            Some(Hold::Full) => bail!("the mount at {place} has too many holders"),
        }
    }
    bail!("other programs keep mounting and unmounting at {place}: try again")
}

/// Mounts. It is not an error if another program has mounted meanwhile.
fn launch_or_find(
    mountpoint: &Path,
    launch: &mut impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let launched = launch();
    match mount_at(mountpoint) {
        Ok(_) => Ok(()),
        Err(_) => launched,
    }
}

/// Checks that the mount was made by this user: another user's daemon answers only that user.
fn expect_own(mount: &MountInfo) -> anyhow::Result<()> {
    if let Some(user) = mount.other_owner() {
        bail!(
            "{} already has an xpmfs mount of the user `{user}`, and only programs of that user can share it: mount elsewhere",
            mount.mountpoint.display()
        );
    }
    Ok(())
}

/// Checks that the mount was not remounted with another `ro` or `rw`; ends the hold otherwise.
fn expect_same_flag(mount: &MountInfo, wanted: &MountRequest<'_>) -> anyhow::Result<()> {
    if mount.is_read_only() == wanted.read_only {
        return Ok(());
    }
    // Without the reply, the hold ends with the holder.
    let _ = command::release(mount, Some(wanted.holder));
    let flag = |read_only| if read_only { "ro" } else { "rw" };
    bail!(
        "{} was remounted `{}`, asked for is `{}`: remount it, or mount elsewhere",
        mount.mountpoint.display(),
        flag(mount.is_read_only()),
        flag(wanted.read_only)
    )
}
