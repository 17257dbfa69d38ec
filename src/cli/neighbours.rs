//! Other workspaces of the settings that use the directories of one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Global;
use super::open::Opened;
use crate::daemon::REPLY_TIMEOUT;
use crate::settings::{Mode, Settings};
use crate::sys::deadline::within;
use crate::workspace::layout::JOBS;

/// A workspace that uses a directory of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// Its id.
    pub(super) workspace: String,
    /// The mode of its folder; `None` if the directory is its primary.
    pub(super) mode: Option<Mode>,
}

impl Neighbour {
    /// How it uses the directory, for people.
    pub(super) fn how(&self) -> String {
        match self.mode {
            Some(mode) => format!(" (as a `{mode}` folder)"),
            None => " (as its own directory)".to_owned(),
        }
    }
}

/// The other workspaces that use each location of an opened one, by the location's number.
///
/// # Errors
///
/// The settings are wrong.
pub(super) fn neighbours(
    opened: &Opened,
    global: &Global,
) -> anyhow::Result<BTreeMap<u8, Vec<Neighbour>>> {
    let settings = Settings::load(global.settings.as_deref())?;
    let mut found: BTreeMap<u8, Vec<Neighbour>> = BTreeMap::new();
    let locations = opened.view.locations().iter();
    let own: Vec<(u8, PathBuf)> = locations
        .map(|location| (location.index(), resolved(location.path())))
        .collect();
    let primary = resolved(&opened.workspace.path);
    for other in &settings.workspaces {
        let path = resolved(&other.path);
        if other.is_remote() || path == primary {
            continue;
        }
        let mut used = vec![(path, None)];
        let folders = settings.folders_of(other).into_iter();
        used.extend(folders.map(|folder| (resolved(&folder.path), Some(folder.mode))));
        for (path, mode) in used {
            // A folder may name the jobs directory itself.
            let is = |own: &PathBuf| *own == path || (mode.is_some() && own.join(JOBS) == path);
            for (index, _) in own.iter().filter(|(_, own)| is(own)) {
                found.entry(*index).or_default().push(Neighbour {
                    workspace: other.id.clone(),
                    mode,
                });
            }
        }
    }
    Ok(found)
}

/// A path without symlinks; as it is if it cannot be resolved in time.
fn resolved(path: &Path) -> PathBuf {
    let wanted = path.to_owned();
    let resolved = within(REPLY_TIMEOUT, move || wanted.canonicalize());
    resolved
        .and_then(Result::ok)
        .unwrap_or_else(|| path.to_owned())
}
