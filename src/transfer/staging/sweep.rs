//! Removes the stagings that crashed owners left in a task's directory.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;

use rustix::fs::FileType;

use super::Staging;
use super::error::{Context, Result};
use super::names::{LOCK_SUFFIX, OLD_PREFIX, after, before};
use crate::sys::at;
use crate::sys::read_dir::{self, EntryBuffer};
use crate::transfer::stamp;
use crate::workspace::layout::STAGING_PREFIX;

/// Removes the stagings in a task's directory whose lock is free: directories and symlinks `.tmp.<hash>`, and lock
/// files. Recovers interrupted exchanges. Returns the number of jobs that had leftovers. A leftover that cannot be
/// removed does not stop the sweep, and is not an error.
///
/// # Errors
///
/// [`Error::Io`](super::Error::Io) if the directory cannot be listed, for which it must be readable.
pub fn sweep(task: impl AsFd) -> Result<usize> {
    sweep_with(task, &|_| false, &mut |_| {})
}

/// As [`sweep`], but skips some jobs. `elsewhere` removes the data of a swept job in other places, while its lock is
/// held.
///
/// # Errors
///
/// As [`sweep`].
pub fn sweep_with(
    task: impl AsFd,
    leave: &dyn Fn(&OsStr) -> bool,
    elsewhere: &mut dyn FnMut(&OsStr),
) -> Result<usize> {
    let mut swept = 0;
    for hash in leftovers(&task)? {
        if leave(&hash) {
            continue;
        }
        let done = match Staging::take(&task, &hash) {
            // Cannot be recovered, and was logged already.
            Ok(Some(staging)) if staging.has_leftover() => continue,
            Ok(Some(staging)) => {
                elsewhere(&hash);
                staging.finish(None)
            }
            Ok(None) => continue,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => swept += 1,
            Err(error) => tracing::debug!("what is left of {} stays: {error}", hash.display()),
        }
    }
    Ok(swept)
}

/// The jobs that may have leftovers.
fn leftovers(task: impl AsFd) -> Result<BTreeSet<OsString>> {
    let here = OsStr::new(".");
    let fd = at::open_to_list(&task, here).told("open", here)?;
    let mut found = BTreeSet::new();
    let mut buffer = EntryBuffer::default();
    while read_dir::read_once(&fd, &mut buffer, |entry| {
        let name = entry.name();
        if let Some(hash) = after(OLD_PREFIX, name) {
            found.insert(hash.to_owned());
        } else if let Some(staged) = after(STAGING_PREFIX, name) {
            let kind = match entry.kind() {
                FileType::Unknown => at::stat_at(&fd, name).map(|stat| stamp::kind(&stat)),
                kind => Ok(kind),
            };
            let hash = match kind {
                Ok(FileType::Directory | FileType::Symlink) => Some(staged),
                Ok(FileType::RegularFile) => before(LOCK_SUFFIX, staged),
                _ => None,
            };
            found.extend(hash.map(OsStr::to_owned));
        }
    })
    .told("list", here)?
    {}
    Ok(found)
}
