//! `xpmfs status`: here what is mounted; [`archive`]: how archiving does; [`recorded`]: damaged copies of a workspace that is not
//! mounted; [`mod@json`]: for programs; [`watch`]: again and again.

mod archive;
mod json;
mod recorded;
mod watch;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueHint};
use nix::unistd::{Gid, Group};
use serde::Serialize;
use serde_json::Value;

use super::{Global, Listing, Select, print, table};
use crate::archive::engine::{DamagedCopy, Report};
use crate::daemon::alone::{self, Archiving};
use crate::daemon::control::Identity;
use crate::daemon::health::Health;
use crate::daemon::inventory::{self, Mounted, Place};
use crate::daemon::unmount::find;
use crate::printable::printable;
use crate::settings::{Settings, Workspace};
use crate::view::location::NO_JOBS;

/// What to show.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only the mount here
    #[arg(value_hint = ValueHint::DirPath, conflicts_with_all = ["workspace", "workdir", "experiment"])]
    mountpoint: Option<PathBuf>,
    /// Show it anew every second, until it is interrupted
    #[arg(long)]
    watch: bool,
    /// How it is printed.
    #[command(flatten)]
    pub(super) listing: Listing,
    /// Which workspace.
    #[command(flatten)]
    select: Select,
}

/// What is listed.
#[derive(Debug, Serialize)]
struct Status {
    mounts: Vec<MountStatus>,
    /// Processes that archive a workspace and mount nothing.
    archivers: Vec<ArchiverStatus>,
    /// Workspaces of the settings that are neither mounted nor archived by one of these.
    workspaces: Vec<WorkspaceStatus>,
}

#[derive(Debug, Serialize)]
struct MountStatus {
    mountpoint: String,
    workspace: Option<String>,
    primary: Option<String>,
    /// `ok`, `dead`, `does not answer`, `of another user`, `closed to this group`
    state: &'static str,
    /// Who mounted it, if that is somebody else.
    user: Option<String>,
    advice: Option<String>,
    pid: Option<i32>,
    /// RFC 3339.
    since: Option<String>,
    read_only: bool,
    log: Option<String>,
    locations: Vec<Place>,
    /// How archiving does, if anything is archived.
    archive: Option<Report>,
}

#[derive(Debug, Serialize)]
struct ArchiverStatus {
    workspace: Option<String>,
    primary: String,
    pid: Option<i32>,
    /// RFC 3339.
    since: Option<String>,
    locations: Vec<Place>,
    archive: Option<Report>,
}

#[derive(Debug, Serialize)]
struct WorkspaceStatus {
    workspace: String,
    primary: String,
    locations: Vec<Place>,
    /// Copies that `verify` found damaged or missing: the first few.
    damaged: Vec<DamagedCopy>,
    /// How many there are of these in all.
    damages: usize,
}

/// Prints mounts and folders, and workspaces of the settings that are not mounted.
///
/// # Errors
///
/// The settings or the table of mounts cannot be read, or what was asked for is not there.
pub fn run(arguments: &Arguments, global: &Global) -> anyhow::Result<ExitCode> {
    if arguments.watch {
        watch::watch(arguments, global)?;
    }
    let status = gather(arguments, global)?;
    if global.json {
        print::json(&json::json(&status)?)?;
    } else {
        print::text(&status.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn gather(arguments: &Arguments, global: &Global) -> anyhow::Result<Status> {
    if let Some(mountpoint) = &arguments.mountpoint {
        let mounted = inventory::ask(find(mountpoint)?);
        return Ok(Status {
            mounts: vec![MountStatus::of(&mounted)],
            archivers: Vec::new(),
            workspaces: Vec::new(),
        });
    }
    let settings = Settings::load(global.settings.as_deref())?;
    let mut mounts = inventory::take()?;
    let mut archivers = alone::take();
    let mut workspaces: Vec<Workspace> = settings.workspaces.clone();
    if arguments.select.is_given() {
        let chosen = settings.select(&arguments.select.selection())?;
        mounts.retain(|mounted| shows(mounted, &chosen));
        archivers.retain(|archiver| archiver.is_of(&chosen.path));
        workspaces = vec![chosen];
    }
    workspaces.retain(|workspace| {
        !workspace.is_remote()
            && !mounts.iter().any(|mounted| shows(mounted, workspace))
            && !archivers
                .iter()
                .any(|archiver| archiver.is_of(&workspace.path))
    });
    let mut seen = HashSet::new();
    workspaces.retain(|workspace| seen.insert(workspace.path.clone()));
    Ok(Status {
        mounts: mounts.iter().map(MountStatus::of).collect(),
        archivers: archivers.iter().map(ArchiverStatus::of).collect(),
        workspaces: workspaces
            .iter()
            .map(|workspace| WorkspaceStatus::of(&settings, workspace))
            .collect(),
    })
}

fn shows(mounted: &Mounted, workspace: &Workspace) -> bool {
    let id = Some(workspace.id.as_str()).filter(|id| !id.is_empty());
    mounted.shows(id, &workspace.path)
}

impl MountStatus {
    fn of(mounted: &Mounted) -> Self {
        let Mounted {
            mount,
            health,
            identity,
            service,
        } = mounted;
        let place = mount.mountpoint.display();
        let user = mount.other_owner();
        let (state, pid, advice) = match health {
            Health::Serving { pid } => ("ok", *pid, None),
            Health::Dead => (
                "dead",
                None,
                Some(format!(
                    "its daemon was killed: `xpmfs umount {place}` clears it, or mount again"
                )),
            ),
            Health::Silent { pid } => (
                "does not answer",
                *pid,
                Some(format!(
                    "see its log; `xpmfs umount --lazy {place}` detaches it"
                )),
            ),
            Health::Foreign => (
                "of another user",
                None,
                user.as_ref().map(|user| {
                    format!(
                        "the user `{user}` mounted it, and for no other: ask for a mount with `-o allow_other`"
                    )
                }),
            ),
        };
        // It was asked, and has not told: it tells its own user and root alone.
        let advice = advice.or_else(|| {
            user.as_ref().filter(|_| identity.is_none()).map(|user| {
                format!("the user `{user}` mounted it: `xpmfs status` tells that user alone of its folders")
            })
        });
        let (state, advice) = match (health, mount.shut_to_group()) {
            (Health::Serving { .. } | Health::Foreign, Some(group)) => {
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
        Self {
            mountpoint: mount.mountpoint.to_string_lossy().into_owned(),
            workspace: identity
                .and_then(|identity| identity.workspace.clone())
                .or_else(|| {
                    // All that is left of a dead one is its name.
                    let source = mount.source.to_string_lossy();
                    (identity.is_none()).then(|| source.into_owned())
                }),
            primary: identity.map(|identity| identity.primary.to_string_lossy().into_owned()),
            state,
            user,
            advice,
            pid,
            since: identity.and_then(since),
            read_only: mount.is_read_only(),
            log: identity.map(|identity| identity.log.clone()),
            locations: service.as_ref().map(places).unwrap_or_default(),
            archive: service.as_ref().and_then(report),
        }
    }
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
            locations: places(service),
            archive: report(service),
        }
    }

    fn title(&self) -> String {
        let name = self.workspace.as_ref().unwrap_or(&self.primary);
        let pid = self
            .pid
            .map_or_else(String::new, |pid| format!(" by process {pid}"));
        let since = self.since.as_deref().unwrap_or_default();
        format!("{name} (not mounted here, archived{pid} since {since})")
    }
}

/// A group's name, or the number if it has none.
fn group_name(gid: u32) -> String {
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    group.map_or_else(|| gid.to_string(), |group| group.name)
}

/// When it began, in RFC 3339.
fn since(identity: &Identity) -> Option<String> {
    let since = jiff::Timestamp::from_second(identity.since).ok()?;
    Some(since.to_string())
}

/// What a daemon tells of archiving.
fn report(service: &Value) -> Option<Report> {
    serde_json::from_value(service.get("archive")?.clone()).ok()
}

/// What a daemon tells of its locations; one that is not understood is left out.
fn places(service: &Value) -> Vec<Place> {
    let told = service.get("locations").and_then(Value::as_array);
    let told = told.map(Vec::as_slice).unwrap_or_default();
    told.iter()
        .filter_map(|place| serde_json::from_value(place.clone()).ok())
        .collect()
}

impl WorkspaceStatus {
    fn of(settings: &Settings, workspace: &Workspace) -> Self {
        let mut asked = vec![("primary".to_owned(), workspace.path.clone())];
        let folders = settings.folders_of(workspace);
        asked.extend(
            folders
                .iter()
                .map(|folder| (folder.mode.to_string(), folder.path.clone())),
        );
        let locations = inventory::look_at(asked);
        let there = locations.first().is_some_and(|place| place.state == "ok");
        let recorded = there.then(|| recorded::damaged(workspace, folders));
        let Report {
            damaged, damages, ..
        } = recorded.unwrap_or_default();
        Self {
            workspace: workspace.id.clone(),
            primary: workspace.path.to_string_lossy().into_owned(),
            locations,
            damaged,
            damages,
        }
    }
}

impl Status {
    fn text(&self) -> String {
        let mut text = String::new();
        if self.mounts.is_empty() {
            text.push_str("Nothing is mounted.\n");
        } else {
            let mut table = table::plain(&["WORKSPACE", "MOUNTPOINT", "STATE", "PID", "SINCE", ""]);
            for mount in &self.mounts {
                let name = mount.workspace.as_deref().or(mount.primary.as_deref());
                let cells = [
                    name.unwrap_or_default(),
                    &in_place(mount),
                    mount.state,
                    &mount.pid.map(|pid| pid.to_string()).unwrap_or_default(),
                    mount.since.as_deref().unwrap_or_default(),
                    if mount.read_only { "read-only" } else { "" },
                ];
                table::row(&mut table, cells);
            }
            text.push_str(&table::text(&table));
        }
        for mount in &self.mounts {
            if let Some(advice) = &mount.advice {
                let advice = format!("{}: {advice}", mount.mountpoint);
                let _ = writeln!(text, "\n{}", printable(&advice));
            }
            locations(&mut text, &mount.mountpoint, &mount.locations);
            if let Some(report) = &mount.archive {
                archive::describe(&mut text, report, "it was mounted");
            }
        }
        for archiver in &self.archivers {
            locations(&mut text, &archiver.title(), &archiver.locations);
            if let Some(report) = &archiver.archive {
                archive::describe(&mut text, report, "it began");
            }
        }
        for workspace in &self.workspaces {
            let name = match workspace.workspace.is_empty() {
                // Given by its path.
                true => workspace.locations.first().map_or("", |place| &place.path),
                false => &workspace.workspace,
            };
            let title = format!("{name} (not mounted)");
            locations(&mut text, &title, &workspace.locations);
            let report = Report {
                damaged: workspace.damaged.clone(),
                damages: workspace.damages,
                ..Report::default()
            };
            archive::describe_recorded(&mut text, &report);
        }
        text
    }
}

fn in_place(mount: &MountStatus) -> String {
    if mount.primary.as_ref() == Some(&mount.mountpoint) {
        format!("{} (in place)", mount.mountpoint)
    } else {
        mount.mountpoint.clone()
    }
}

fn locations(text: &mut String, title: &str, places: &[Place]) {
    if places.is_empty() {
        return;
    }
    let mut table = table::plain(&["MODE", "PATH", "STATE", "FREE", "SIZE"]);
    for place in places {
        let cells = [
            place.mode.as_str(),
            &place.path,
            &place.state,
            &place.free.map(size).unwrap_or_default(),
            &place.total.map(size).unwrap_or_default(),
        ];
        table::row(&mut table, cells);
    }
    let _ = write!(text, "\n{}\n{}", printable(title), table::text(&table));
    for place in places {
        if let Some(hidden) = &place.hidden {
            let line = format!(
                "{}: {} of it cannot be looked at, so not shown: {} ({}). They show when you may read them.",
                place.path,
                match hidden.count {
                    1 => "one entry".to_owned(),
                    count => format!("{count} entries"),
                },
                hidden.example.display(),
                hidden.reason,
            );
            let _ = writeln!(text, "{}", printable(&line));
        }
        if let Some(advice) = advice(place) {
            let _ = writeln!(text, "{}: {advice}", printable(&place.path));
        }
    }
}

/// What to do about a directory that is not as it should be.
fn advice(place: &Place) -> Option<&'static str> {
    Some(match place.state.as_str() {
        "ok" => return None,
        // A new workspace has none.
        NO_JOBS if place.mode == "primary" => return None,
        NO_JOBS => "there is no `jobs` in it: if a disk belongs there, see whether it is mounted",
        "missing" if place.mode == "primary" => "create it, or correct the path",
        "missing" => "see whether its disk is mounted, or correct the path",
        "not a directory" => "correct the path",
        "not permitted" => "see to its permissions, and to those of the directories above",
        _ => "see whether its disk and its file server are there",
    })
}

/// Bytes for a person, in powers of 1024.
fn size(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if amount < 1024.0 {
            return format!(
                "{amount:.*} {unit}",
                usize::from(amount < 10.0 && unit != "B")
            );
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} PiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_a_person() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(500 << 30), "500 GiB");
        assert_eq!(size(3 << 50), "3.0 PiB");
    }
}
