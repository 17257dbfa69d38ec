//! Takes an inventory: every job of the view, the location that serves it, and what the caller wants to know of it.
//!
//! A workspace may have a hundred thousand jobs, and a folder may stop answering in the middle:
//!
//! 1. `names` reads the names of each location, in a thread for each. A folder must return some names within its timeout again and again.
//! 2. Most jobs are in one location only, and are not resolved. The others are resolved as by a lookup ([`super::resolve`]).
//! 3. `workers` look at the jobs on several threads, and leave behind those that a silent folder holds.
//!
//! [`LocationSet`], in `location_set`: the locations with a copy of a job.

mod location_set;
mod names;
mod workers;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType};

pub use self::location_set::LocationSet;
use self::names::{JobCandidate, job_candidates};
use self::workers::{Outcome, look_at_all};
use super::location::Role;
use super::{Location, PRIMARY, Served, View};
use crate::settings::Mode;
use crate::workspace::jobs::JobId;

/// Which jobs an inventory has.
#[derive(Debug, Clone, Default)]
pub enum Wanted {
    /// All.
    #[default]
    All,
    /// Those of these that exist.
    Jobs(BTreeSet<JobId>),
}

impl Wanted {
    fn tasks(&self) -> Option<BTreeSet<OsString>> {
        match self {
            Wanted::All => None,
            Wanted::Jobs(jobs) => Some(jobs.iter().map(|job| job.task_id().to_owned()).collect()),
        }
    }

    fn has(&self, job: &JobId) -> bool {
        match self {
            Wanted::All => true,
            Wanted::Jobs(jobs) => jobs.contains(job),
        }
    }
}

/// A job, as a listing needs it.
#[derive(Debug)]
pub struct LocatedJob<'a> {
    /// The job.
    pub id: &'a JobId,
    /// The location that serves it.
    pub location: &'a Location,
    /// The directory of its task there; the job's own is the entry of its hash in it, or what a symlink of that name leads to.
    pub task: &'a OwnedFd,
    /// The locations with a directory of its name.
    pub copies: LocationSet,
}

/// A job of an inventory.
#[derive(Debug)]
pub struct InventoryJob<T> {
    /// Its id.
    pub id: JobId,
    /// The number of the location that serves it; `None` if that cannot be known, since a folder does not answer.
    pub location: Option<u8>,
    /// The locations with a directory of it: a purged one in the primary does not count, nor does a symlink.
    pub copies: LocationSet,
    /// What was seen of it; `None` if its location does not answer.
    pub seen: Option<T>,
}

/// An inventory.
#[derive(Debug)]
pub struct Inventory<T> {
    /// The jobs, in order.
    pub jobs: Vec<InventoryJob<T>>,
    /// What could not be listed, as sentences.
    pub unlisted: Vec<String>,
    /// The locations of which these speak: they may have more copies.
    pub silent: LocationSet,
}

impl View {
    /// Lists jobs, and calls a function for each on several threads.
    pub fn inventory<T: Send + 'static>(
        self: &Arc<View>,
        wanted: &Wanted,
        look: impl Fn(&LocatedJob<'_>) -> T + Send + Sync + 'static,
    ) -> Inventory<T> {
        let (mut named, unlisted, silent) = job_candidates(self, wanted.tasks());
        named.retain(|named| wanted.has(&named.id));
        let named = Arc::new(named);
        let outcomes = look_at_all(self, named.clone(), move |view, named| {
            let Ok(location) = view.serving(named) else {
                let folder = view.recorded_in(named.id.task_id(), named.id.hash());
                return folder.map_or(Outcome::Unknown, |it| Outcome::Silent(it.index()));
            };
            let Some(location) = location.and_then(|index| view.location(index)) else {
                return Outcome::NotAJob;
            };
            let Ok(root) = location.root() else {
                return Outcome::Silent(location.index());
            };
            let _asking = location.asking();
            match root.task(named.id.task_id()) {
                Ok(task) => {
                    let seen = look(&LocatedJob {
                        id: &named.id,
                        location,
                        task: &task,
                        copies: named.copies,
                    });
                    Outcome::Seen(location.index(), seen)
                }
                Err(_) => Outcome::Silent(location.index()),
            }
        });
        let jobs = named.iter().zip(outcomes).filter_map(|(named, outcome)| {
            let (location, seen) = match outcome {
                Outcome::NotAJob => return None,
                Outcome::Unknown => (None, None),
                Outcome::Silent(location) => (Some(location), None),
                Outcome::Seen(location, seen) => (Some(location), Some(seen)),
            };
            let mut copies = named.copies;
            if location.is_some_and(|location| location != PRIMARY) {
                // The primary would serve it, if it were not purged.
                copies.remove(PRIMARY);
            }
            Some(InventoryJob {
                id: named.id.clone(),
                location,
                copies,
                seen,
            })
        });
        Inventory {
            jobs: jobs.collect(),
            unlisted,
            silent,
        }
    }

    /// The location that serves what is listed under a name; `None` if that is not a job.
    fn serving(&self, named: &JobCandidate) -> rustix::io::Result<Option<u8>> {
        let (task, hash) = (named.id.task_id(), named.id.hash());
        let first = self.location(named.first);
        if named.kind == FileType::Unknown && !named.several && first.is_some_and(Location::is_away)
        {
            // By its record.
            return Ok(Some(named.first));
        }
        if named.kind == FileType::Directory && !named.several {
            let counts = match first.map(Location::role) {
                Some(Role::Primary | Role::Folder(Mode::Backup | Mode::Move)) => true,
                // A job of a `use` folder must be finished.
                Some(Role::Folder(Mode::Use)) | None => false,
            };
            if counts {
                return Ok(Some(named.first));
            }
        }
        Ok(match self.resolve(task, hash)? {
            Some(Served::Job { location, .. }) => Some(location),
            // A symlink to a directory elsewhere, as `experimaestro deprecated` makes them.
            Some(Served::AsItIs { location, .. })
                if self.leads_to_directory(location, task, hash) =>
            {
                Some(location)
            }
            Some(Served::AsItIs { .. }) | None => None,
        })
    }

    /// Whether the symlink that a location has under a job's name leads to a directory.
    fn leads_to_directory(&self, location: u8, task: &OsStr, hash: &OsStr) -> bool {
        // In a folder, nothing but its own jobs count.
        if location != PRIMARY {
            return false;
        }
        let task = self.primary().root().and_then(|root| root.task(task));
        let stat = task.and_then(|task| rustix::fs::statat(&*task, hash, AtFlags::empty()));
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }
}
