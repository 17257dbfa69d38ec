//! Reads what mounts and commands recorded in a workspace that is not mounted: damaged copies, deleted jobs, and the disks of folders.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::archive::engine::{self, Report};
use crate::archive::experiments::damage;
use crate::archive::job::trash::list::{self, TrashCount};
use crate::archive::{last_verify, state_dir};
use crate::daemon::REPLY_TIMEOUT;
use crate::settings::{Folder, Mode, Workspace};
use crate::sys::deadline::within;
use crate::view::location::{OTHER_DISK, Role};
use crate::view::{FolderSpec, View, ViewSpec};
use crate::workspace::layout::{TRASH, XPMFS};

/// The records of deletions, in the primary's `.xpmfs`.
const DELETED: &str = "archive/deleted";

/// What the records of a workspace say; nothing of what a disk does not answer in time.
#[derive(Default)]
pub(super) struct WorkspaceRecords {
    /// The deleted jobs in the primary and in each folder, by its path.
    pub(super) trash: HashMap<PathBuf, TrashCount>,
    /// The folders in whose place another disk is, and what to do.
    pub(super) other_disks: HashMap<PathBuf, String>,
    /// The damaged and missing copies, and when the folders were verified.
    pub(super) report: Report,
}

impl WorkspaceRecords {
    pub(super) fn read(workspace: &Workspace, folders: Vec<Folder>) -> WorkspaceRecords {
        let spec = spec(workspace, folders);
        // The view itself waits for folders for as long as that.
        let view = within(2 * REPLY_TIMEOUT, move || {
            // Most workspaces have no records: their folders need not be opened.
            if !has_records(&spec) {
                return None;
            }
            match View::open(spec, None) {
                Ok(view) => Some(Arc::new(view)),
                Err(error) => {
                    tracing::warn!("{error}");
                    None
                }
            }
        });
        let Some(view) = view.flatten() else {
            return WorkspaceRecords::default();
        };
        let mut report = ask(&view, engine::damaged);
        // By itself, since it asks the folders.
        let lost = ask(&view, engine::lost_copies);
        report.damages += lost.damages;
        report.damaged.extend(lost.damaged);
        let other_disks = view.folders().iter().filter_map(|folder| {
            let error = folder.root().err()?;
            (error == OTHER_DISK).then(|| (folder.path().to_owned(), folder.status().why))
        });
        let other_disks = other_disks.map(|(path, why)| (path, why.unwrap_or_default()));
        WorkspaceRecords {
            trash: ask(&view, trash),
            other_disks: other_disks.collect(),
            report,
        }
    }
}

/// Whether a command or a mount has recorded anything that is shown.
fn has_records(spec: &ViewSpec) -> bool {
    let own = spec.primary.join(XPMFS);
    let records = [
        state_dir::RECORDS_OF_DAMAGE,
        state_dir::RECORDS_OF_LOST,
        state_dir::RECORDS_OF_JOBS,
        damage::DAMAGED_ITEMS,
        last_verify::RECORDS,
        DELETED,
    ];
    let folders = spec.folders.iter();
    let archives = folders.filter(|folder| folder.mode != Mode::Use);
    let mut trash = archives.map(|folder| folder.path.join(XPMFS).join(TRASH));
    records.iter().any(|name| own.join(name).is_dir())
        || own.join(TRASH).is_dir()
        || trash.any(|path| path.is_dir())
}

/// Asks the disks; the answer is empty if they do not reply in time.
fn ask<T: Default + Send + 'static>(view: &Arc<View>, question: fn(&View) -> T) -> T {
    let view = view.clone();
    within(REPLY_TIMEOUT, move || question(&view)).unwrap_or_default()
}

fn trash(view: &View) -> HashMap<PathBuf, TrashCount> {
    let locations = view.locations().iter();
    // Nothing is deleted in `use` folders.
    let counted = locations.filter(|it| it.role() != Role::Folder(Mode::Use));
    let counts = counted.map(|location| {
        let count = list::count(view.primary(), location);
        (location.path().to_owned(), count)
    });
    counts
        .filter(|(_, count)| *count != TrashCount::default())
        .collect()
}

fn spec(workspace: &Workspace, folders: Vec<Folder>) -> ViewSpec {
    ViewSpec {
        workspace: workspace.id.clone(),
        primary: workspace.path.clone(),
        folders: folders
            .into_iter()
            .map(|Folder { mode, path, .. }| FolderSpec { mode, path })
            .collect(),
        mountpoint: None,
    }
}
