//! Detects folders that share a directory with the primary or with another folder.
//!
//! A shared directory does not hold a second copy.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Result;

use crate::settings::Mode;
use crate::sys::at;
use crate::view::location::Role;
use crate::view::{Location, View};

/// Returns why a folder keeps nothing: its `jobs` is that of another location of the workspace under another name.
///
/// Returns `None` if the folder has a `jobs` of its own, or if its `jobs` cannot be opened. Other folders may hang, so
/// this function does not query them: their last seen state counts.
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
        true => {
            "it is listed twice in the settings, which makes no second copy: remove one of the two"
                .to_owned()
        }
        false => shares("`jobs`", other.path()),
    })
}

/// Returns the message that a directory of a folder is that of another location.
pub(super) fn shares(what: &str, other: &Path) -> String {
    format!(
        "its {what} is that of {} under another name, which makes no second copy: use another directory",
        other.display()
    )
}

/// Whether two descriptors refer to the same directory.
///
/// # Errors
///
/// As `statx`.
pub(super) fn is_same(one: &OwnedFd, other: &OwnedFd) -> Result<bool> {
    Ok(at::file_id(one)? == at::file_id(other)?)
}
