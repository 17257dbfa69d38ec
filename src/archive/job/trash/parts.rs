//! The parts of a job that are renamed to a location's trash and back, each durably.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Statx};
use rustix::io::{Errno, Result};

use super::batch::Batch;
use crate::archive::places::{self, MANIFESTS};
use crate::sys::at;
use crate::transfer::durable::sync_directory;
use crate::view::Location;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{ARCHIVE, INTERNAL_DIR, JOBS, TRASH, XPMFS};

/// A part of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Its directory, or its symlink.
    Job,
    /// The manifest of a folder's copy.
    Manifest,
    /// The internal files that the primary keeps for it.
    Internal,
    /// The record that it was recovered on request.
    Kept,
    /// The record of what was removed from it.
    Removed,
}

/// The parts in the primary beside the job itself.
pub(super) const OF_PRIMARY: [Part; 3] = [Part::Internal, Part::Kept, Part::Removed];

/// All parts.
pub(super) const ALL: [Part; 5] = [
    Part::Manifest,
    Part::Internal,
    Part::Kept,
    Part::Removed,
    Part::Job,
];

/// What a rename back has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restored {
    Done,
    /// It is not in the trash.
    Absent,
    /// Its place has another entry, and it stays in the trash.
    Occupied,
}

impl Part {
    /// The name of its directory in a trash.
    fn kind(self) -> &'static str {
        match self {
            Part::Job => JOBS,
            Part::Manifest => MANIFESTS,
            Part::Internal => INTERNAL_DIR,
            Part::Kept => "kept",
            Part::Removed => "removed",
        }
    }

    /// The directories below `.xpmfs` that lead to its place; none for the job.
    fn above(self) -> &'static [&'static str] {
        match self {
            Part::Job => &[],
            Part::Manifest => &[MANIFESTS],
            Part::Internal => &[INTERNAL_DIR],
            Part::Kept => &[ARCHIVE, "kept"],
            Part::Removed => &[ARCHIVE, "removed"],
        }
    }

    fn name(self, job: &JobId) -> OsString {
        let mut name = job.hash().to_owned();
        if self == Part::Manifest {
            name.push(".json");
        }
        name
    }

    /// The directory in which it has its place, if it exists.
    fn place(self, location: &Location, job: &JobId) -> Result<Option<OwnedFd>> {
        if self == Part::Job {
            let task = places::task(location, job)?;
            let again = |task: std::sync::Arc<OwnedFd>| rustix::io::fcntl_dupfd_cloexec(&*task, 0);
            return task.map(again).transpose();
        }
        let names = self.above().iter().map(OsStr::new);
        places::own(location, names.chain([job.task_id()]))
    }

    fn make_place(self, location: &Location, job: &JobId, primary: &Location) -> Result<OwnedFd> {
        if self == Part::Job {
            let task = places::make_task(location, job.task_id(), primary)?;
            return rustix::io::fcntl_dupfd_cloexec(&*task, 0);
        }
        let names = self.above().iter().map(OsStr::new);
        places::make_own(location, names.chain([job.task_id()]))
    }

    fn names_in_trash<'a>(self, batch: &'a Batch, job: &'a JobId) -> [&'a OsStr; 4] {
        let kind = OsStr::new(self.kind());
        [OsStr::new(TRASH), batch.name(), kind, job.task_id()]
    }

    /// The directory in which it is in a location's trash, if that exists.
    fn trash(self, location: &Location, batch: &Batch, job: &JobId) -> Result<Option<OwnedFd>> {
        places::own(location, self.names_in_trash(batch, job))
    }

    /// The directory of the tasks of a date in a location's trash, if that exists.
    pub(super) fn tasks_in_trash(
        self,
        location: &Location,
        batch: &Batch,
    ) -> Result<Option<OwnedFd>> {
        let kind = OsStr::new(self.kind());
        places::own(location, [OsStr::new(TRASH), batch.name(), kind])
    }

    /// The job to which an entry of a trash belongs.
    pub(super) fn job(self, task: &OsStr, name: &OsStr) -> Option<JobId> {
        let hash = match self {
            Part::Manifest => OsStr::from_bytes(name.as_bytes().strip_suffix(b".json")?),
            _ => name,
        };
        JobId::new(task, hash).ok()
    }

    /// The attributes of what is in a location's trash, if anything is.
    pub(super) fn in_trash(
        self,
        location: &Location,
        batch: &Batch,
        job: &JobId,
    ) -> Result<Option<Statx>> {
        match self.trash(location, batch, job)? {
            Some(trash) => at::absent(at::stat(trash, &self.name(job))),
            None => Ok(None),
        }
    }

    /// Where it is in a location's trash, for messages.
    pub(super) fn path_in_trash(self, location: &Location, batch: &Batch, job: &JobId) -> PathBuf {
        let mut path = location.path().join(XPMFS);
        path.extend(self.names_in_trash(batch, job));
        path.join(self.name(job))
    }

    /// Renames it to a location's trash. Returns false if there is nothing.
    ///
    /// # Errors
    ///
    /// `EXDEV` if its place and the trash are on different file systems; `EEXIST` if the trash has one of this date.
    pub(super) fn discard(self, location: &Location, batch: &Batch, job: &JobId) -> Result<bool> {
        let name = self.name(job);
        let Some(place) = self.place(location, job)? else {
            return Ok(false);
        };
        for _ in 0..TRIES {
            if at::absent(at::stat(&place, &name))?.is_none() {
                return Ok(false);
            }
            let moved = places::make_own(location, self.names_in_trash(batch, job))
                .and_then(|trash| at::move_new((&place, &name), (&trash, &name)).map(|()| trash));
            match moved {
                // Another process has removed the empty directory ([`tidy`]), or the job.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
                Ok(trash) => {
                    sync(&trash)?;
                    sync(&place)?;
                    return Ok(true);
                }
            }
        }
        Err(Errno::NOENT)
    }

    /// Renames it from a location's trash to its place.
    pub(super) fn restore(
        self,
        location: &Location,
        batch: &Batch,
        job: &JobId,
        primary: &Location,
    ) -> Result<Restored> {
        let name = self.name(job);
        let Some(trash) = self.trash(location, batch, job)? else {
            return Ok(Restored::Absent);
        };
        if at::absent(at::stat(&trash, &name))?.is_none() {
            return Ok(Restored::Absent);
        }
        let place = self.make_place(location, job, primary)?;
        match at::move_new((&trash, &name), (&place, &name)) {
            Err(Errno::EXIST) => return Ok(Restored::Occupied),
            Err(Errno::NOENT) => return Ok(Restored::Absent),
            moved => moved?,
        }
        sync(&place)?;
        sync(&trash)?;
        Ok(Restored::Done)
    }

    /// Renames it from a location's trash to `to`, which no listing of the trash reads.
    pub(super) fn set_aside(
        self,
        location: &Location,
        batch: &Batch,
        job: &JobId,
        to: (&OwnedFd, &OsStr),
    ) -> Result<bool> {
        let Some(trash) = self.trash(location, batch, job)? else {
            return Ok(false);
        };
        let renamed = rustix::fs::renameat(&trash, self.name(job), to.0, to.1);
        Ok(at::absent(renamed)?.is_some())
    }
}

/// How often the directories in a trash are made again, if other processes remove them as empty.
const TRIES: usize = 100;

/// Removes the directories of a date in a location's trash that have nothing in them.
pub(super) fn tidy(location: &Location, batch: &Batch, task: &OsStr) {
    for part in ALL {
        let kind = OsStr::new(part.kind());
        remove_empty(location, &[OsStr::new(TRASH), batch.name(), kind], task);
        remove_empty(location, &[OsStr::new(TRASH), batch.name()], kind);
    }
    remove_empty(location, &[OsStr::new(TRASH)], batch.name());
}

fn remove_empty(location: &Location, names: &[&OsStr], name: &OsStr) {
    if let Ok(Some(dir)) = places::own(location, names.iter().copied()) {
        // One that has something in it stays.
        let _ = rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR);
    }
}

/// Makes the names in a directory durable.
fn sync(dir: &OwnedFd) -> Result<()> {
    sync_directory(at::open_to_list(dir, OsStr::new("."))?)
}
