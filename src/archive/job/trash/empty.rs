//! Removes deleted jobs for good.
//!
//! What is removed is renamed first, to `.xpmfs/trash/.removing`, where no undeletion looks: half of a job never comes back. What a crash
//! leaves there is removed by the next call.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::time::Duration;

use rustix::fs::OFlags;

use super::batch::Batch;
use super::list::{batches, each_of};
use super::parts::{self, ALL, Part};
use crate::archive::places;
use crate::sys::at;
use crate::transfer;
use crate::view::Location;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::TRASH;

/// The directory of what is being removed, in a trash.
const REMOVING: &str = ".removing";

/// Removes what a location's trash has of a job that was deleted on this date.
///
/// # Errors
///
/// What cannot be renamed or removed; the rest is removed nevertheless.
pub fn remove(location: &Location, batch: &Batch, job: &JobId) -> io::Result<()> {
    let mut found = false;
    for part in ALL {
        found |= part.in_trash(location, batch, job)?.is_some();
    }
    if !found {
        return Ok(());
    }
    let removing = places::make_own(location, [TRASH, REMOVING].map(OsStr::new))?;
    let id = blake3::hash(job.path().as_os_str().as_encoded_bytes());
    let mut first = Ok(());
    for part in ALL {
        let name = OsString::from(format!("{batch}-{}-{part:?}", id.to_hex()));
        let removed = remove_part(location, batch, job, (part, &removing, &name));
        if first.is_ok() {
            first = removed;
        }
    }
    parts::tidy(location, batch, job.task_id());
    first
}

fn remove_part(
    location: &Location,
    batch: &Batch,
    job: &JobId,
    (part, removing, name): (Part, &std::os::fd::OwnedFd, &OsStr),
) -> io::Result<()> {
    let tree = |name: &OsStr| transfer::remove_tree(removing, name, None).map_err(io::Error::other);
    // What a crash has left would be in the way.
    tree(name)?;
    match part.set_aside(location, batch, job, (removing, name))? {
        true => tree(name),
        false => Ok(()),
    }
}

/// Removes what interrupted removals have left in a location.
///
/// # Errors
///
/// What cannot be listed or removed.
pub fn sweep(location: &Location) -> io::Result<()> {
    let Some(removing) = places::own(location, [TRASH, REMOVING].map(OsStr::new))? else {
        return Ok(());
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = rustix::fs::openat(&removing, ".", flags, rustix::fs::Mode::empty())?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(listed)? {
        let entry = entry?;
        let name = OsStr::to_owned(std::os::unix::ffi::OsStrExt::from_bytes(
            entry.file_name().to_bytes(),
        ));
        if at::is_component(&name) {
            names.push(name);
        }
    }
    for name in names {
        transfer::remove_tree(&removing, &name, None).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Removes the jobs that have been in a location's trash for so long. Returns how many, and the first error.
pub fn expire(
    location: &Location,
    keep: Duration,
    go_on: &dyn Fn() -> bool,
) -> (usize, io::Result<()>) {
    let mut count = 0;
    let mut first = sweep(location);
    let mut expire = || -> io::Result<()> {
        for batch in batches(location)? {
            // Each job, and whether all that is left of it is old.
            let mut jobs: BTreeMap<JobId, bool> = BTreeMap::new();
            for part in ALL {
                each_of(location, &batch, part, &mut |copy, job| {
                    *jobs.entry(job.clone()).or_insert(true) &= copy.is_older_than(keep);
                })?;
            }
            for (job, _) in jobs.into_iter().filter(|(_, is_old)| *is_old) {
                if !go_on() {
                    return Ok(());
                }
                match remove(location, &batch, &job) {
                    Ok(()) => count += 1,
                    Err(error) => {
                        if first.is_ok() {
                            first = Err(error);
                        }
                    }
                }
            }
        }
        Ok(())
    };
    let expired = expire();
    (count, first.and(expired))
}
