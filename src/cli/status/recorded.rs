//! Reads what commands recorded in a workspace that is not mounted: damaged copies, and deleted jobs.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::archive::engine::{self, Report};
use crate::archive::experiments::damage;
use crate::archive::job::trash::list::{self, TrashCount};
use crate::archive::{last_verify, state_dir};
use crate::daemon::REPLY_TIMEOUT;
use crate::settings::{Folder, Mode, Workspace};
use crate::sys::deadline::within;
use crate::view::{FolderSpec, View, ViewSpec};
use crate::workspace::layout::{TRASH, XPMFS};

/// The records of deletions, in the primary's `.xpmfs`.
const DELETED: &str = "archive/deleted";

/// The deleted jobs in the primary and in each folder, by its path; none if a disk does not reply in time.
pub(super) fn trash(workspace: &Workspace, folders: &[Folder]) -> HashMap<PathBuf, TrashCount> {
    let archives = folders.iter().filter(|it| it.mode != Mode::Use).cloned();
    let spec = spec(workspace, archives);
    let counts = within(REPLY_TIMEOUT, move || {
        // Most have none: they need not be opened.
        let folders = spec.folders.iter().map(|folder| &folder.path);
        let has_any = |path: &PathBuf| path.join(XPMFS).join(TRASH).is_dir();
        let deleted = spec.primary.join(XPMFS).join(DELETED);
        if !deleted.is_dir() && !folders.chain([&spec.primary]).any(has_any) {
            return HashMap::new();
        }
        let Ok(view) = View::open(spec, None) else {
            return HashMap::new();
        };
        let counts = view.locations().iter().map(|location| {
            let count = list::count(view.primary(), location);
            (location.path().to_owned(), count)
        });
        counts
            .filter(|(_, count)| *count != TrashCount::default())
            .collect()
    });
    counts.unwrap_or_default()
}

fn spec(workspace: &Workspace, folders: impl Iterator<Item = Folder>) -> ViewSpec {
    ViewSpec {
        workspace: workspace.id.clone(),
        primary: workspace.path.clone(),
        folders: folders
            .map(|Folder { mode, path, .. }| FolderSpec { mode, path })
            .collect(),
        mountpoint: None,
    }
}

/// The damaged and missing copies of a workspace, and when its folders were verified; none if its disk does not reply in time.
pub(super) fn damaged(workspace: &Workspace, folders: Vec<Folder>) -> Report {
    let archived = folders.into_iter().filter(|it| it.mode != Mode::Use);
    let spec = spec(workspace, archived);
    let records = [
        state_dir::RECORDS_OF_DAMAGE,
        state_dir::RECORDS_OF_LOST,
        damage::DAMAGED_ITEMS,
        last_verify::RECORDS,
    ];
    let mut report = ask(spec.clone(), &records, engine::damaged);
    // By itself, since it asks the folders.
    let lost = ask(spec, &[state_dir::RECORDS_OF_JOBS], engine::lost_copies);
    report.damages += lost.damages;
    report.damaged.extend(lost.damaged);
    report
}

/// What is read of a workspace that has one of these records; nothing if a disk does not reply in time.
fn ask(spec: ViewSpec, records: &[&'static str], read: fn(&View) -> Report) -> Report {
    let records = records.to_vec();
    let report = within(REPLY_TIMEOUT, move || {
        // Most workspaces have no records: their folders need not be opened.
        let has = |it: &&str| spec.primary.join(XPMFS).join(it).is_dir();
        if !records.iter().any(has) {
            return Report::default();
        }
        match View::open(spec, None) {
            Ok(view) => read(&view),
            Err(error) => {
                tracing::warn!("{error}");
                Report::default()
            }
        }
    });
    report.unwrap_or_default()
}
