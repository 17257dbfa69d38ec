//! Reads what `jobs verify` recorded in a workspace that is not mounted.

use crate::archive::engine::{self, Report};
use crate::archive::experiments::damage;
use crate::archive::{last_verify, state_dir};
use crate::daemon::REPLY_TIMEOUT;
use crate::settings::{Folder, Mode, Workspace};
use crate::sys::deadline::within;
use crate::view::{FolderSpec, View, ViewSpec};
use crate::workspace::layout::XPMFS;

/// The damaged and missing copies of a workspace, and when its folders were verified; none if its disk does not reply in time.
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
    let report = within(REPLY_TIMEOUT, move || {
        // Most workspaces have no records: their folders need not be opened.
        let records = [
            state_dir::RECORDS_OF_DAMAGE,
            damage::DAMAGED_ITEMS,
            last_verify::RECORDS,
        ];
        if !records
            .iter()
            .any(|it| primary.join(XPMFS).join(it).is_dir())
        {
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
