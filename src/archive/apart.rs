//! Whether a folder has directories of its own: what it shares with the primary, or with another folder, is no second copy.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Result;

use crate::settings::Mode;
use crate::sys::at;
use crate::view::location::Role;
use crate::view::{Location, View};

/// Why a folder keeps nothing: its `jobs` is that of another location of the workspace under another name. `None` if it is one of its own,
/// or cannot be looked at. Of other folders, which may hang, nothing is asked: they count as they were seen last.
#[must_use]
pub fn shared(view: &View, folder: &Location) -> Option<String> {
    let own = folder.root().ok()?;
    own.jobs().ok()?;
    let primary = view.primary();
    primary.root().and_then(|root| root.jobs()).ok();
    let keeps = |other: &&Location| other.role() != Role::Folder(Mode::Use);
    let folders = view.folders().iter().map(|other| &**other).filter(keeps);
    let others = folders.chain([primary]);
    let mut others = others.filter(|other| other.index() != folder.index());
    let other = others.find(|other| {
        let root = other.root();
        root.is_ok_and(|root| own.shares_jobs_with(&root))
    })?;
    Some(match other.path() == folder.path() {
        true => "it is listed twice, and there is no second copy: take one of the two out of the settings".to_owned(),
        false => shares("`jobs`", other.path()),
    })
}

/// Says that something of a folder is another location's.
pub(super) fn shares(what: &str, other: &Path) -> String {
    format!(
        "its {what} is that of {} under another name, so that there is no second copy: give it one of its own",
        other.display()
    )
}

/// Whether two descriptors are of one directory.
///
/// # Errors
///
/// What `statx` gives.
pub(super) fn is_one(one: &OwnedFd, other: &OwnedFd) -> Result<bool> {
    Ok(at::file_id(one)? == at::file_id(other)?)
}
