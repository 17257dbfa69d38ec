//! Gathers the status of mounts, folders and archiving.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::recorded::WorkspaceRecords;
use crate::archive::engine::{DamagedCopy, Report, VerifiedFolder};
use crate::cli::{Global, Listing, Select, candidates};
use crate::daemon::archiver::{self, Archiving};
use crate::daemon::control::Identity;
use crate::daemon::health::MountHealth;
use crate::daemon::inventory::{self, LocationReport, Mounted};
use crate::daemon::mounts::group_name;
use crate::daemon::sharing::register::HolderReport;
use crate::daemon::unmount::mount_at;
use crate::mount::RunningRecovery;
use crate::settings::{Settings, Workspace};
use crate::sys::shell_word::shell_word;
use crate::view::location::{OTHER_DISK, why_not};

/// What to show.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only the mount here
    #[arg(add = ArgValueCompleter::new(candidates::mountpoints), conflicts_with_all = ["workspace", "workdir", "experiment"])]
    pub(in crate::cli) mountpoint: Option<PathBuf>,
    /// Update it every second, until Ctrl-C
    #[arg(long, conflicts_with = "check")]
    pub(in crate::cli) watch: bool,
    /// Exit with 1 if a mount is dead or does not answer, a folder cannot be used, jobs could not be found or archived, or a copy
    /// is damaged or missing
    #[arg(long)]
    pub(in crate::cli) check: bool,
    /// How it is printed.
    #[command(flatten)]
    pub(in crate::cli) listing: Listing,
    /// Which workspace.
    #[command(flatten)]
    pub(in crate::cli) select: Select,
}

impl Arguments {
    /// The arguments that ask for one workspace.
    pub(in crate::cli) fn of(select: Select) -> Arguments {
        Arguments {
            mountpoint: None,
            watch: false,
            check: false,
            listing: Listing::default(),
            select,
        }
    }
}

/// Everything that is shown.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct Status {
    pub(in crate::cli) mounts: Vec<MountStatus>,
    /// Processes that archive a workspace and mount nothing.
    pub(in crate::cli) archivers: Vec<ArchiverStatus>,
    /// Workspaces of the settings that are neither mounted nor archived by one of these; a dead mount does not count.
    pub(in crate::cli) workspaces: Vec<WorkspaceStatus>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct MountStatus {
    pub(in crate::cli) mountpoint: String,
    pub(in crate::cli) workspace: Option<String>,
    pub(in crate::cli) primary: Option<String>,
    /// `ok`, `dead`, `does not answer`, `of another user`, `closed to this group`
    pub(in crate::cli) state: Cow<'static, str>,
    /// The user who mounted it, if that is another user.
    pub(in crate::cli) user: Option<String>,
    pub(in crate::cli) advice: Option<String>,
    pub(in crate::cli) pid: Option<i32>,
    /// The process that would start another one if that one died.
    pub(in crate::cli) supervisor: Option<u32>,
    /// The version of xpmfs that serves it.
    pub(in crate::cli) version: Option<String>,
    pub(in crate::cli) since: Option<Timestamp>,
    pub(in crate::cli) read_only: bool,
    pub(in crate::cli) log: Option<String>,
    pub(in crate::cli) locations: Vec<LocationReport>,
    /// Whether it was made with `mount --shared`.
    pub(in crate::cli) shared: bool,
    /// The programs that hold it.
    pub(in crate::cli) holders: Vec<HolderStatus>,
    /// The recoveries that programs wait for.
    pub(in crate::cli) recoveries: Vec<RunningRecovery>,
    /// The state of archiving, if anything is archived.
    pub(in crate::cli) archive: Option<Report>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct HolderStatus {
    /// In the form of the command line.
    pub(in crate::cli) holder: String,
    /// For people.
    pub(in crate::cli) description: String,
    pub(in crate::cli) since: Option<Timestamp>,
    /// How many `mount --shared` were not followed by `umount`.
    pub(in crate::cli) holds: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct ArchiverStatus {
    pub(in crate::cli) workspace: Option<String>,
    pub(in crate::cli) primary: String,
    pub(in crate::cli) pid: Option<i32>,
    pub(in crate::cli) since: Option<Timestamp>,
    pub(in crate::cli) locations: Vec<LocationReport>,
    pub(in crate::cli) archive: Option<Report>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct WorkspaceStatus {
    pub(in crate::cli) workspace: String,
    pub(in crate::cli) primary: String,
    pub(in crate::cli) locations: Vec<LocationReport>,
    /// Copies that `verify` found damaged or missing: the first few.
    pub(in crate::cli) damaged: Vec<DamagedCopy>,
    /// How many there are of these in all.
    pub(in crate::cli) damages: usize,
    /// When all copies of each folder were verified last.
    pub(in crate::cli) verified: Vec<VerifiedFolder>,
}

/// Asks the mounts, the archivers and the workspaces of the settings.
///
/// # Errors
///
/// The settings or the table of mounts cannot be read, or the mount or workspace that was named does not exist.
pub(in crate::cli) fn gather(arguments: &Arguments, global: &Global) -> anyhow::Result<Status> {
    if let Some(mountpoint) = &arguments.mountpoint {
        let mounted = inventory::ask(mount_at(mountpoint)?);
        return Ok(Status {
            mounts: vec![MountStatus::of(&mounted)],
            archivers: Vec::new(),
            workspaces: Vec::new(),
        });
    }
    let settings = Settings::load(global.settings.as_deref())?;
    let mut mounts = inventory::take()?;
    let mut archivers = archiver::take();
    let mut workspaces: Vec<Workspace> = settings.workspaces.clone();
    if arguments.select.is_given() {
        let chosen = settings.select(&arguments.select.selection())?;
        mounts.retain(|mounted| shows(mounted, &chosen));
        archivers.retain(|archiver| archiver.is_of(&chosen.path));
        workspaces = vec![chosen];
    }
    workspaces.retain(|workspace| {
        !workspace.is_remote()
            && !mounts
                .iter()
                .any(|mounted| !is_dead(mounted) && shows(mounted, workspace))
            && !archivers
                .iter()
                .any(|archiver| archiver.is_of(&workspace.path))
    });
    let mut seen = HashSet::new();
    workspaces.retain(|workspace| seen.insert(workspace.path.clone()));
    let dead: Vec<&Path> = mounts
        .iter()
        .filter(|mounted| is_dead(mounted))
        .map(|mounted| mounted.mount.mountpoint.as_path())
        .collect();
    Ok(Status {
        mounts: mounts.iter().map(MountStatus::of).collect(),
        archivers: archivers.iter().map(ArchiverStatus::of).collect(),
        workspaces: workspaces
            .iter()
            .map(|workspace| WorkspaceStatus::of(&settings, workspace, &dead))
            .collect(),
    })
}

/// The state of a directory that a dead mount hides.
pub(super) const BELOW_DEAD_MOUNT: &str = "below a dead mount";

/// A dead mount shows no folder, and only its name says of which workspace it was: another workspace may have that name.
fn is_dead(mounted: &Mounted) -> bool {
    matches!(mounted.health, MountHealth::Dead)
}

fn shows(mounted: &Mounted, workspace: &Workspace) -> bool {
    let id = Some(workspace.id.as_str()).filter(|id| !id.is_empty());
    mounted.shows(id, &workspace.path)
}

impl MountStatus {
    /// Whether nothing can be read in it.
    pub(in crate::cli) fn is_down(&self) -> bool {
        matches!(&*self.state, "dead" | "does not answer")
    }

    fn of(mounted: &Mounted) -> Self {
        let Mounted {
            mount,
            health,
            identity,
            service,
            sharing,
        } = mounted;
        let place = shell_word(&mount.mountpoint);
        let user = mount.other_owner();
        let (state, pid, advice) = match health {
            MountHealth::Serving { pid } => ("ok", *pid, None),
            MountHealth::Dead => (
                "dead",
                None,
                Some(format!(
                    "its daemon was killed: `xpmfs umount {place}` clears it, or mount again"
                )),
            ),
            MountHealth::Silent { pid } => (
                "does not answer",
                *pid,
                Some(format!(
                    "see its log; `xpmfs umount --lazy {place}` detaches it"
                )),
            ),
            MountHealth::Foreign => (
                "of another user",
                None,
                user.as_ref().map(|user| {
                    format!(
                        "the user `{user}` mounted it, and for no other: ask for a mount with `-o allow_other`"
                    )
                }),
            ),
        };
        // A daemon answers only its own user and root.
        let advice = advice.or_else(|| {
            user.as_ref().filter(|_| identity.is_none()).map(|user| {
                format!("the user `{user}` mounted it: `xpmfs status` shows its folders to that user only")
            })
        });
        let (state, advice) = match (health, mount.shut_to_group()) {
            (MountHealth::Serving { .. } | MountHealth::Foreign, Some(group)) => {
                let mounted = group_name(group);
                let own = group_name(rustix::process::getegid().as_raw());
                let advice = format!(
                    "it was mounted in the group `{mounted}`, and this shell is in the group `{own}`, as after `newgrp` or `sg`: the \
                     kernel refuses it; use a shell in the group `{mounted}` (`sg {mounted}`), or mount again in this one or with `-o allow_other`"
                );
                ("closed to this group", Some(advice))
            }
            _ => (state, advice),
        };
        let identity = identity.as_ref();
        let version = identity.map(|identity| identity.version.as_str());
        let advice = advice.or_else(|| other_version(version, env!("CARGO_PKG_VERSION"), &place));
        Self {
            mountpoint: mount.mountpoint.to_string_lossy().into_owned(),
            workspace: identity
                .and_then(|identity| identity.workspace.clone())
                .or_else(|| {
                    // Of a dead mount, only its name is left.
                    let source = mount.source.to_string_lossy();
                    (identity.is_none()).then(|| source.into_owned())
                }),
            primary: identity.map(|identity| identity.primary.to_string_lossy().into_owned()),
            state: Cow::Borrowed(state),
            user,
            advice,
            pid,
            supervisor: identity.and_then(|identity| identity.supervisor),
            version: identity.map(|identity| identity.version.clone()),
            since: identity.and_then(since),
            read_only: mount.is_read_only(),
            log: identity.map(|identity| identity.log.clone()),
            locations: service
                .as_ref()
                .map(inventory::locations)
                .unwrap_or_default(),
            shared: sharing.shared,
            holders: sharing.holders.iter().map(HolderStatus::of).collect(),
            recoveries: service.as_ref().map(recoveries).unwrap_or_default(),
            archive: service.as_ref().and_then(report),
        }
    }
}

impl HolderStatus {
    fn of(report: &HolderReport) -> Self {
        Self {
            holder: report.holder.clone(),
            description: report.description.clone(),
            since: Timestamp::from_second(report.since).ok(),
            holds: report.holds,
        }
    }
}

/// What to do about a mount that another version of xpmfs serves.
fn other_version(serving: Option<&str>, own: &str, place: &str) -> Option<String> {
    let serving = serving.filter(|serving| *serving != own)?;
    Some(format!(
        "xpmfs {serving} serves it, and this is xpmfs {own}: `xpmfs reload {place}` makes it go on with this one"
    ))
}

impl ArchiverStatus {
    fn of(archiving: &Archiving) -> Self {
        let Archiving {
            identity,
            pid,
            service,
        } = archiving;
        Self {
            workspace: identity.workspace.clone(),
            primary: identity.primary.to_string_lossy().into_owned(),
            pid: *pid,
            since: since(identity),
            locations: inventory::locations(service),
            archive: report(service),
        }
    }
}

/// When a daemon began.
fn since(identity: &Identity) -> Option<Timestamp> {
    Timestamp::from_second(identity.since).ok()
}

/// A daemon's report of archiving.
fn report(service: &Value) -> Option<Report> {
    serde_json::from_value(service.get("archive")?.clone()).ok()
}

/// A daemon's report of recoveries, without those that cannot be understood.
fn recoveries(service: &Value) -> Vec<RunningRecovery> {
    let listed = service.get("recoveries").cloned();
    listed
        .and_then(|listed| serde_json::from_value(listed).ok())
        .unwrap_or_default()
}

impl WorkspaceStatus {
    fn of(settings: &Settings, workspace: &Workspace, dead: &[&Path]) -> Self {
        let mut asked = vec![("primary".to_owned(), workspace.path.clone())];
        let folders = settings.folders_of(workspace);
        asked.extend(
            folders
                .iter()
                .map(|folder| (folder.mode.to_string(), folder.path.clone())),
        );
        let mut locations = inventory::look_at(asked);
        for place in &mut locations {
            if dead.contains(&Path::new(&place.path)) {
                place.state = BELOW_DEAD_MOUNT.to_owned();
                place.why = Some(format!(
                    "`xpmfs umount {}` clears the dead mount",
                    shell_word(Path::new(&place.path))
                ));
            }
        }
        let there = locations.first().is_some_and(|place| place.state == "ok");
        let recorded = there.then(|| WorkspaceRecords::read(workspace, folders));
        let WorkspaceRecords {
            trash,
            other_disks,
            report,
        } = recorded.unwrap_or_default();
        for place in &mut locations {
            let path = Path::new(&place.path);
            place.trash = trash.get(path).copied();
            if let Some(why) = other_disks.get(path) {
                (place.state, place.why) = (why_not(OTHER_DISK), Some(why.clone()));
                // That is of the disk in its place.
                (place.free, place.total) = (None, None);
            }
        }
        let Report {
            damaged,
            damages,
            verified,
            ..
        } = report;
        Self {
            workspace: workspace.id.clone(),
            primary: workspace.path.to_string_lossy().into_owned(),
            locations,
            damaged,
            damages,
            verified,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_named_with_the_remedy() {
        assert_eq!(other_version(Some("1.2.0"), "1.2.0", "/mnt"), None);
        assert_eq!(other_version(None, "1.2.0", "/mnt"), None);
        let advice = other_version(Some("1.1.0"), "1.2.0", "/mnt").unwrap();
        assert!(
            advice.contains("1.1.0") && advice.contains("`xpmfs reload /mnt`"),
            "{advice}"
        );
    }
}
