//! Whether a folder has directories of its own: what it shares with the primary, or with another folder, is no second copy.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Result;

use crate::settings::Mode;
use crate::view::location::Role;
use crate::view::{Location, View, beneath};

/// Why a folder keeps nothing: its `jobs` is that of another location of the workspace under another name. `None` if it is one of its own,
/// or cannot be looked at.
#[must_use]
pub fn shared(view: &View, folder: &Location) -> Option<String> {
    let own = folder.root().and_then(|root| root.jobs()).ok()?;
    let mut others = others(view, folder);
    let other = others.find(|other| {
        let theirs = other.root().and_then(|root| root.jobs());
        theirs.is_ok_and(|theirs| is_one(&own, &theirs).unwrap_or(false))
    })?;
    Some(shares("`jobs`", other.path()))
}

/// The primary, and the other folders that keep copies.
pub(super) fn others<'a>(
    view: &'a View,
    folder: &'a Location,
) -> impl Iterator<Item = &'a Location> {
    let keeps = |other: &&Location| other.role() != Role::Folder(Mode::Use);
    let folders = view.folders().iter().map(|other| &**other).filter(keeps);
    let others = folders.chain([view.primary()]);
    others.filter(|other| other.index() != folder.index())
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
    let identity = |fd: &OwnedFd| {
        let stat = beneath::stat_fd(fd)?;
        Ok((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
    };
    Ok(identity(one)? == identity(other)?)
}
