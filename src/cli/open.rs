//! Opens a workspace for a command that works on its jobs itself, mounted or not.

use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueHint};

use super::{Global, Select, print};
use crate::daemon::control::Identity;
use crate::daemon::inventory::{self, Mounted};
use crate::daemon::options;
use crate::daemon::peers::Peers;
use crate::daemon::service;
use crate::settings::{Folder, Selection, Settings, Tuning, Workspace, validate_folders};
use crate::view::{FolderSpec, View, ViewSpec};

/// Folders that are attached for one command.
#[derive(Debug, Clone, Default, Args)]
pub struct More {
    /// Attach one more folder: use:PATH, backup:PATH or move:PATH
    #[arg(long = "folder", value_name = "MODE:PATH", value_hint = ValueHint::Other, value_parser = OsStringValueParser::new().try_map(|text| options::folder(&text)))]
    pub(super) folders: Vec<Folder>,
}

/// A workspace and its folders.
pub(super) struct Opened {
    pub(super) workspace: Workspace,
    /// The settings file.
    pub(super) settings: PathBuf,
    pub(super) view: Arc<View>,
    /// The keys under `xpmfs:`.
    pub(super) tuning: Tuning,
    /// Its folders, in the order of the view's.
    pub(super) folders: Vec<Folder>,
    /// The daemons that serve the workspace.
    pub(super) peers: Peers,
    /// Whether a mount covers its directory, so that every job is found there.
    pub(super) is_mounted_in_place: bool,
}

/// The mount that shows a directory, or whose mount point it is.
fn mount_of(directory: &Path) -> anyhow::Result<Option<Mounted>> {
    let mut mounts = inventory::take().context("cannot read the table of mounts")?;
    // The top-most first.
    mounts.reverse();
    mounts.sort_by_key(|mounted| mounted.mount.mountpoint != directory);
    Ok(mounts.into_iter().find(|mounted| {
        let identity = mounted.identity.as_ref();
        identity.is_some_and(|it| it.primary == directory || mounted.mount.mountpoint == directory)
    }))
}

/// The folders of a mount.
fn folders_of(mounted: &Mounted) -> Vec<Folder> {
    let listed = mounted.service.as_ref().map(inventory::locations);
    let folders = listed.unwrap_or_default().into_iter();
    folders
        .filter_map(|place| Some(Folder::new(place.mode.parse().ok()?, place.path)))
        .collect()
}

/// Opens the selected workspace, with more folders after its own. If it is mounted in place, the mount's daemon hands out the
/// directory beneath. A directory that is given and that no settings know has the folders of its mount, if it has one.
///
/// # Errors
///
/// The settings are wrong, or the workspace cannot be opened.
pub(super) fn open(select: &Select, more: &[Folder], global: &Global) -> anyhow::Result<Opened> {
    let settings = Settings::load(global.settings.as_deref())?;
    let mut workspace = settings.select(&select.selection())?;
    if workspace.is_remote() {
        bail!(
            "the workspace {} is on another machine: choose another one with --workspace",
            workspace.id
        );
    }
    let mut mount = None;
    if select.workdir.is_some() {
        mount = mount_of(&workspace.path)?;
    }
    if let Some(Identity { primary, .. }) = mount.as_ref().and_then(|it| it.identity.as_ref())
        && *primary != workspace.path
    {
        workspace = settings.select(&Selection {
            workdir: Some(primary.clone()),
            ..select.selection()
        })?;
    }
    let mut folders = settings.folders_of(&workspace);
    folders.extend(more.iter().cloned());
    if folders.is_empty()
        && let Some(mount) = &mount
    {
        folders = folders_of(mount);
        if !folders.is_empty() && !global.quiet {
            let place = mount.mount.mountpoint.display();
            let folders = folders.iter();
            let folders: Vec<String> = folders
                .map(|it| format!("{}:{}", it.mode, it.path.display()))
                .collect();
            let folders = folders.join(", ");
            print::line(&format!(
                "note: using the folders of the mount at {place}: {folders}"
            ));
        }
    }
    for folder in &mut folders {
        folder.path = absolute(&folder.path)
            .with_context(|| format!("cannot use the folder {}", folder.path.display()))?;
    }
    for warning in validate_folders(&workspace, &folders)? {
        tracing::warn!("{warning}");
    }
    let primary = &workspace.path;
    let beneath = service::beneath(primary).with_context(|| {
        format!(
            "{} is mounted in place, and that mount's daemon does not hand out the directory beneath",
            primary.display()
        )
    })?;
    let is_mounted_in_place = beneath.is_some();
    let peers = Peers::of(primary)?;
    let spec = ViewSpec {
        workspace: workspace.id.clone(),
        primary: primary.clone(),
        folders: folders
            .iter()
            .map(|Folder { mode, path, .. }| FolderSpec {
                mode: *mode,
                path: path.clone(),
            })
            .collect(),
        mountpoint: None,
    };
    let tuning = settings.tuning_of(&workspace);
    Ok(Opened {
        settings: settings.file,
        view: Arc::new(View::open_beneath(
            spec,
            beneath,
            service::beneath_folders(),
            tuning.folder_timeout(),
        )?),
        tuning,
        workspace,
        folders,
        peers,
        is_mounted_in_place,
    })
}
