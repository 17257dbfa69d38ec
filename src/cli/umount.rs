//! `xpmfs umount`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueHint};
use clap_complete::engine::ArgValueCompleter;

use super::{Global, Select, candidates, drain, print};
use crate::daemon::attach::{DetachError, How};
use crate::daemon::control::Client;
use crate::daemon::drain::Drained;
use crate::daemon::health::MountHealth;
use crate::daemon::inventory::{self, Mounted};
use crate::daemon::mounts::MountInfo;
use crate::daemon::sharing::caller::caller;
use crate::daemon::sharing::command::release;
use crate::daemon::sharing::holder::{Given, HolderError};
use crate::daemon::sharing::register::{HolderReport, UnmountAnswer};
use crate::daemon::unmount::{Unmounted, mount_at, unmount};
use crate::settings::Settings;
use crate::sys::namespaces;
use crate::sys::shell_word::shell_word;

/// What to unmount, and how.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The mount point [default: the workspace's own directory, or the only place where it is mounted]
    #[arg(add = ArgValueCompleter::new(candidates::mountpoints), conflicts_with_all = ["workspace", "workdir", "experiment"])]
    mountpoint: Option<PathBuf>,
    /// Which workspace.
    #[command(flatten)]
    select: Select,
    /// Detach at once, also if it is in use or other programs hold it: open files are served until they are closed
    #[arg(short, long)]
    lazy: bool,
    /// The holder of a shared mount whose hold ends: pid:N, session:N or cgroup:DIRECTORY [default: as of `mount --shared`]
    #[arg(long, value_name = "HOLDER", value_hint = ValueHint::Other, conflicts_with = "lazy")]
    holder: Option<Given>,
    /// Wait until every finished job is archived (changes that bypassed the mount in jobs already archived are not searched for)
    #[arg(long, conflicts_with = "lazy")]
    drain: bool,
}

/// Unmounts, and returns when the daemon has ended.
///
/// # Errors
///
/// What is still mounted, why, and what to do.
pub fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    let mount = find_mount(
        arguments.mountpoint.as_deref(),
        &arguments.select,
        global,
        MountUse::Unmount,
    )?;
    let how = if arguments.lazy {
        How::Lazy
    } else {
        How::Clean
    };
    let mountpoint = mount.mountpoint.display();
    if arguments.drain {
        if mount.other_owner().is_some() && !rustix::process::geteuid().is_root() {
            return Err(DetachError::NotYours(mount.mountpoint.clone()).into());
        }
        arguments.drain(&mount, global)?;
    }
    if namespaces::is_of_one_user() && !rustix::process::geteuid().is_root() {
        let why = format!(
            "{mountpoint} is mounted by `xpmfs run`, and is unmounted when its command ends"
        );
        if !arguments.drain {
            bail!(why);
        }
        print::line(&format!("note: {why}"));
        return Ok(ExitCode::SUCCESS);
    }
    // Connected until the mount has gone: until then, the daemon registers no holder.
    let _permission = match how {
        How::Lazy => None,
        How::Clean => match arguments.release(&mount, global)? {
            Released::Unmount(client) => client,
            Released::Stays => return Ok(ExitCode::SUCCESS),
        },
    };
    let waiting = |pid: i32| {
        tracing::warn!("{mountpoint} is unmounted; waiting for its daemon, process {pid}, to end");
    };
    match unmount(&mount, how, waiting)? {
        Unmounted::Ended => {}
        Unmounted::WasDead => {
            tracing::warn!(
                "{mountpoint} was dead, as its daemon had been killed: it is cleared away"
            );
        }
        Unmounted::Stuck { pid } => {
            tracing::warn!(
                "{mountpoint} is unmounted; process {pid} waits for a folder that does not answer, and keeps files open until then"
            );
        }
        Unmounted::StillServing { pid, supervisor } => {
            let process =
                pid.map_or_else(|| "its daemon".to_owned(), |pid| format!("process {pid}"));
            let end = pid.map_or_else(String::new, |pid| {
                let both =
                    supervisor.map_or_else(|| pid.to_string(), |other| format!("{other} {pid}"));
                format!(": if it does not answer any more, `kill -9 {both}` ends it")
            });
            tracing::warn!(
                "{mountpoint} is unmounted here, but {process} may go on serving what is still open, or another mount namespace{end}"
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the daemon permits.
enum Released {
    /// To unmount, as long as this is connected.
    Unmount(Option<Client>),
    /// The hold has ended, and the mount stays.
    Stays,
}

impl Arguments {
    /// Ends this program's hold of a shared mount.
    fn release(&self, mount: &MountInfo, global: &Global) -> anyhow::Result<Released> {
        let place = mount.mountpoint.display();
        let word = shell_word(&mount.mountpoint);
        if mount.other_owner().is_some() && !rustix::process::geteuid().is_root() {
            // Unmounting fails, and explains why.
            return Ok(Released::Unmount(None));
        }
        let holder = match &self.holder {
            Some(given) => match given.identify() {
                // It has ended, and its holds with it.
                Err(HolderError::Absent(_)) => None,
                identified => Some(identified?),
            },
            // Without a holder, the mount can still be unmounted if no program holds it.
            None => caller().ok(),
        };
        let asked = release(mount, holder.as_ref()).map_err(|error| error.of(mount));
        let asked = asked.with_context(|| {
            format!("it is not known whether other programs hold {place} (`xpmfs umount --lazy {word}` detaches it in any case)")
        })?;
        match asked {
            None => Ok(Released::Unmount(None)),
            Some((UnmountAnswer::Unmount, client)) => Ok(Released::Unmount(Some(client))),
            Some((UnmountAnswer::Released(others), _)) => {
                if !global.quiet {
                    let why = match others.is_empty() {
                        true => "it was mounted without --shared".to_owned(),
                        false => format!("held by {}", listed(&others)),
                    };
                    print::line(&format!("{place} stays mounted: {why}"));
                }
                Ok(Released::Stays)
            }
            Some((UnmountAnswer::Held(others), _)) if self.holder.is_some() && holder.is_none() => {
                if !global.quiet {
                    print::line(&format!(
                        "{place} stays mounted: held by {}",
                        listed(&others)
                    ));
                }
                Ok(Released::Stays)
            }
            Some((UnmountAnswer::Held(others), _)) => bail!(
                "{place} stays mounted: held by {}; this program does not hold it: see --holder, or `xpmfs umount --lazy {word}` to detach it in any case",
                listed(&others)
            ),
        }
    }

    /// Waits until all that is finished is archived.
    fn drain(&self, mount: &MountInfo, global: &Global) -> anyhow::Result<()> {
        let place = mount.mountpoint.display();
        let word = shell_word(&mount.mountpoint);
        let drained = drain::wait(mount, None, global).with_context(|| {
            format!("cannot wait for what {place} archives (`xpmfs umount {word}` does not wait)")
        })?;
        match drained {
            Drained::Stuck(report) => bail!(
                "{}, and {place} stays mounted: {}; `xpmfs status` shows more; `xpmfs umount {word}` unmounts without waiting",
                drain::what_is_left(&report),
                drain::why(&report)
            ),
            Drained::Yes | Drained::Late(_) => Ok(()),
        }
    }
}

/// What a mount is searched for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MountUse {
    Unmount,
    Reload,
}

impl MountUse {
    /// The command that does it.
    fn command(self) -> &'static str {
        match self {
            MountUse::Unmount => "umount",
            MountUse::Reload => "reload",
        }
    }
}

/// The mount that a command names.
pub(super) fn find_mount(
    mountpoint: Option<&Path>,
    select: &Select,
    global: &Global,
    mount_use: MountUse,
) -> anyhow::Result<MountInfo> {
    if let Some(mountpoint) = mountpoint {
        return Ok(mount_at(mountpoint)?);
    }
    let settings = Settings::load(global.settings.as_deref())?;
    let workspace = settings.select(&select.selection())?;
    if let Ok(mount) = mount_at(&workspace.path) {
        return Ok(mount);
    }
    let id = Some(workspace.id.as_str()).filter(|id| !id.is_empty());
    let mut shown = inventory::take()?;
    shown.retain(|mounted| mounted.shows(id, &workspace.path));
    let is_dead = |mounted: &Mounted| mounted.health == MountHealth::Dead;
    // A dead mount cannot be reloaded, and may be of another workspace with this id.
    if mount_use == MountUse::Reload && !shown.iter().all(is_dead) {
        shown.retain(|mounted| !is_dead(mounted));
    }
    let mut mounts: Vec<MountInfo> = shown.into_iter().map(|mounted| mounted.mount).collect();
    let name = id.map_or_else(|| workspace.path.display().to_string(), str::to_owned);
    match (mounts.pop(), mounts.as_slice()) {
        (Some(mount), []) => Ok(mount),
        (None, _) => {
            bail!("the workspace {name} is not mounted: `xpmfs status` lists all mounts")
        }
        (Some(last), others) => {
            let places: Vec<String> = others
                .iter()
                .chain([&last])
                .map(|mount| mount.mountpoint.display().to_string())
                .collect();
            bail!(
                "the workspace {name} is mounted at {}: say which one, `xpmfs {} MOUNTPOINT`",
                places.join(" and "),
                mount_use.command()
            )
        }
    }
}

/// How many holders a message names.
const MOST_NAMED: usize = 8;

/// The holders of a mount in one line.
fn listed(holders: &[HolderReport]) -> String {
    let mut names: Vec<&str> = holders
        .iter()
        .take(MOST_NAMED)
        .map(|one| one.description.as_str())
        .collect();
    let more = holders.len().saturating_sub(MOST_NAMED);
    let more = format!("{more} more");
    if holders.len() > MOST_NAMED {
        names.push(&more);
    }
    names.join(", ")
}
