//! Selects the files of an item that are copied.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::Item;
use crate::archive::job::select::is_removed;
use crate::transfer::Candidate;
use crate::workspace::layout::JOBS;

/// The directory of experimaestro's locks in a partial's `.experimaestro`.
const LOCKS: &str = "locks";

/// Whether an entry of an item is copied: all but locks, what jobs hold locks with, and files that were removed while they were open. The
/// symlinks to the jobs of a run are made by [`super::links`].
pub(super) fn is_copied(item: &Item, candidate: &Candidate<'_>) -> bool {
    let name = candidate.name();
    if candidate.is_file() && is_removed(name) {
        return false;
    }
    match item {
        Item::Run(_) if candidate.depth() == 0 => {
            let is_lock = candidate.is_file()
                && name.as_bytes().ends_with(b".lock")
                && candidate.size() == Some(0);
            name != OsStr::new(JOBS) && !is_lock
        }
        Item::Partial(_) if candidate.depth() == 2 && candidate.parent() == LOCKS => {
            name != OsStr::new("ipc.lock") && name != OsStr::new("jobs")
        }
        _ => true,
    }
}
