//! Which copies of a job are of an earlier run, as far as the marker of success shows: one look for each copy.

use std::ffi::OsString;
use std::time::Duration;

use rustix::fs::{Statx, StatxTimestamp};

use crate::settings::Mode;
use crate::sys::at;
use crate::view::inventory::{LocatedJob, LocationSet};
use crate::view::location::Role;
use crate::view::{Location, PRIMARY, View};
use crate::workspace::markers;

/// The coarsest step of a disk's times.
const COARSEST: Duration = Duration::from_secs(2);

/// The copies in `backup` and `move` folders whose run ended before the one of the primary, or while the primary's has not ended. None if the
/// primary does not serve the job.
pub(super) fn outdated(view: &View, job: &LocatedJob<'_>) -> LocationSet {
    let mut found = LocationSet::default();
    if job.location.index() != PRIMARY {
        return found;
    }
    let mut marker = OsString::from(job.id.hash());
    marker.push("/");
    marker.push(markers::done(job.id.name()));
    let ended = at::stat_at(job.task, &marker).ok();
    for location in job.copies.iter().filter_map(|it| view.location(it)) {
        if !matches!(location.role(), Role::Folder(Mode::Backup | Mode::Move)) {
            continue;
        }
        let is_current = match (&ended, ended_in(location, job, &marker)) {
            (_, Err(_)) => true,
            (Some(own), Ok(Some(copy))) => is_same_run(own, &copy),
            (None, Ok(_)) | (Some(_), Ok(None)) => false,
        };
        if !is_current {
            found.insert(location.index());
        }
    }
    found
}

/// The marker of the copy in a folder.
fn ended_in(
    location: &Location,
    job: &LocatedJob<'_>,
    marker: &OsString,
) -> rustix::io::Result<Option<Statx>> {
    let root = location.root()?;
    let _asking = location.asking();
    let task = root.task(job.id.task_id())?;
    at::absent(at::stat_at(&*task, marker))
}

fn is_same_run(own: &Statx, copy: &Statx) -> bool {
    let since =
        |time: StatxTimestamp| Duration::new(time.tv_sec.max(0).cast_unsigned(), time.tv_nsec);
    since(own.stx_mtime) <= since(copy.stx_mtime) + COARSEST
}
