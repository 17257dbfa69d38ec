//! Reads from a workspace that is not mounted which copies `verify` found damaged or missing.

use crate::archive::engine::{self, Report};
use crate::archive::state_dir;
use crate::daemon::deadline::within;
use crate::daemon::health::PATIENCE;
use crate::settings::{Folder, Mode, Workspace};
use crate::view::{FolderSpec, View, ViewSpec};
use crate::workspace::layout::XPMFS;

/// The damaged and missing copies of a workspace; none if its disk does not answer in time.
pub(super) fn damaged(workspace: &Workspace, folders: Vec<Folder>) -> Report {
    let primary = workspace.path.clone();
    let archived = folders.into_iter().filter(|it| it.mode != Mode::Use);
    let spec = ViewSpec {
        workspace: workspace.id.clone(),
        primary: primary.clone(),
        folders: archived
            .map(|Folder { mode, path, .. }| FolderSpec { mode, path })
            .collect(),
        mountpoint: None,
    };
    let report = within(PATIENCE, move || {
        // Most workspaces have none: their folders need not be opened.
        let records = primary.join(XPMFS).join(state_dir::RECORDS_OF_DAMAGE);
        if !records.is_dir() {
            return Report::default();
        }
        match View::open(spec, None) {
            Ok(view) => engine::damaged(&view),
            Err(error) => {
                tracing::warn!("{error}");
                Report::default()
            }
        }
    });
    report.unwrap_or_default()
}
