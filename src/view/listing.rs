//! What `jobs/` and `jobs/<task_id>/` contain: the union of the primary and the folders.
//!
//! A listing has one source per location, read one after the other. An entry shows under the first
//! source that has it, which each entry is asked for: no listing is kept in memory, however many
//! jobs there are.
//!
//! Programs compare the mtime of a directory to detect new entries, so it shows the newest times of all locations.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, Statx, StatxTimestamp};
use rustix::io::{Errno, Result};

use super::{Location, PRIMARY, Root, Served, View};
use crate::sys::at;
use crate::workspace::jobs;

/// A directory that a listing is read from.
#[derive(Debug)]
pub struct ListingSource {
    /// The location's number.
    pub location: u8,
    /// The directory, not open for reading (`O_PATH`).
    pub dir: Arc<OwnedFd>,
}

/// What an entry shows as.
#[derive(Debug)]
pub struct Shown {
    /// Its kind in the view.
    pub kind: FileType,
    /// The attributes of what it leads to, if that is not the entry itself: a symlink to a moved job
    /// shows as the job's directory.
    pub stat: Option<Box<Statx>>,
    /// The location that serves it, if `stat` is given.
    pub location: Option<u8>,
}

impl From<FileType> for Shown {
    fn from(kind: FileType) -> Shown {
        Shown {
            kind,
            stat: None,
            location: None,
        }
    }
}

impl From<Served> for Shown {
    fn from(served: Served) -> Shown {
        let (Served::Job { stat, location } | Served::AsItIs { stat, location }) = served;
        Shown {
            kind: FileType::from_raw_mode(stat.stx_mode.into()),
            stat: Some(stat),
            location: Some(location),
        }
    }
}

impl View {
    /// The directories that `jobs/` is the union of; none if no location has it.
    ///
    /// # Errors
    ///
    /// An error of the primary, except that the directory is missing.
    pub fn jobs_sources(&self) -> Result<Vec<ListingSource>> {
        self.sources(None, Root::jobs)
    }

    /// The directories that `jobs/<task>/` is the union of; none if no location has it.
    ///
    /// # Errors
    ///
    /// An error of the primary, except that the directory is missing.
    pub fn task_sources(&self, task: &OsStr) -> Result<Vec<ListingSource>> {
        let folders = jobs::is_job_entry(task);
        let mut sources = self.sources(Some(task), |root| root.task(task))?;
        sources.retain(|source| source.location == PRIMARY || folders);
        Ok(sources)
    }

    /// Whether a folder has a directory for a task.
    pub fn task_in_folders(&self, task: &OsStr) -> bool {
        jobs::is_job_entry(task)
            && self.folders().iter().any(|folder| {
                let Ok(root) = folder.root() else {
                    return false;
                };
                let _asking = folder.asking();
                root.task(task).is_ok()
            })
    }

    fn sources(
        &self,
        task: Option<&OsStr>,
        open: impl Fn(&Root) -> Result<Arc<OwnedFd>>,
    ) -> Result<Vec<ListingSource>> {
        let mut sources = Vec::with_capacity(self.locations().len());
        for location in self.locations() {
            let root = match location.root() {
                Ok(root) => root,
                Err(error) if location.index() == PRIMARY => return Err(error),
                Err(_) => continue,
            };
            let asked = {
                let _asking = location.asking();
                open(&root)
            };
            match asked {
                Ok(dir) => sources.push(ListingSource {
                    location: location.index(),
                    dir,
                }),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) if location.index() == PRIMARY => return Err(error),
                Err(error) => {
                    self.note_unlistable(location.index(), task, error);
                }
            }
        }
        Ok(sources)
    }

    /// Notes that a folder's part of `jobs/`, or of `jobs/<task>/`, is being listed.
    pub fn note_listed(&self, location: u8, task: Option<&OsStr>) {
        if let Some(folder) = self.location(location) {
            let task = task.unwrap_or(OsStr::new(""));
            folder.unreadable().clear(task, None);
        }
    }

    /// Notes that a folder's part of `jobs/`, or of `jobs/<task>/`, cannot be listed, so that it does not show.
    pub fn note_unlistable(&self, location: u8, task: Option<&OsStr>, error: Errno) {
        if let Some(folder) = self.location(location)
            && let Ok(root) = folder.root()
            && !folder.goes_offline_after(&root, error)
        {
            let task = task.unwrap_or(OsStr::new(""));
            folder.unreadable().note(folder.path(), task, None, error);
        }
    }

    /// What the entry `name` of a source shows as in `jobs/`, if it does there; `earlier` are the
    /// sources before it.
    pub fn shows_in_jobs<'a>(
        &self,
        source: &ListingSource,
        mut earlier: impl Iterator<Item = &'a ListingSource>,
        name: &OsStr,
        kind: FileType,
    ) -> Option<FileType> {
        if source.location == PRIMARY {
            return Some(kind);
        }
        let is_dir = |source: &ListingSource| {
            let _asking = self.location(source.location).map(Location::asking);
            at::stat(&source.dir, name).is_ok_and(|stat| at::is_dir(&stat))
        };
        let counts = jobs::is_job_entry(name)
            && match kind {
                FileType::Directory => true,
                FileType::Unknown => is_dir(source),
                _ => false,
            };
        let shown = |earlier: &ListingSource| match earlier.location {
            PRIMARY => at::stat(&earlier.dir, name).is_ok(),
            _ => is_dir(earlier),
        };
        (counts && !earlier.any(shown)).then_some(FileType::Directory)
    }

    /// What the entry `name` of location `location` shows as in `jobs/<task>/`, if it does there.
    pub fn shows_in_task(
        &self,
        location: u8,
        task: &OsStr,
        name: &OsStr,
        kind: FileType,
    ) -> Option<Shown> {
        if location == PRIMARY {
            if kind != FileType::Symlink && kind != FileType::Unknown {
                return Some(kind.into());
            }
            // Without an answer the name still shows: the disk has it.
            return Some(match self.resolve(task, name) {
                Ok(Some(served)) => served.into(),
                _ => kind.into(),
            });
        }
        if !matches!(
            kind,
            FileType::Directory | FileType::Symlink | FileType::Unknown
        ) || self.primary_names(task, name)
        {
            return None;
        }
        let served = match self.resolve_in_folders(task, name, location) {
            Ok(served) => served?,
            // Without an answer the name still shows: the disk has it.
            Err(_) => return Some(kind.into()),
        };
        // A symlink to a job of another folder shows where that folder has it, not twice.
        (served.location() == location).then(|| served.into())
    }
}

impl View {
    /// Sets the times in `stat`, of `jobs/` or of a task in the location `location`, to the newest of all locations.
    pub fn make_newest(&self, stat: &mut Statx, location: u8, task: Option<&OsStr>) {
        if task.is_some_and(|task| !jobs::is_job_entry(task)) {
            return;
        }
        for folder in self.folders() {
            if folder.index() == location {
                continue;
            }
            let root = folder.root().ok();
            if let Some((mtime, ctime)) = folder.times().get(root, task.unwrap_or(OsStr::new(""))) {
                stat.stx_mtime = later(stat.stx_mtime, mtime);
                stat.stx_ctime = later(stat.stx_ctime, ctime);
            }
        }
    }

    /// Asks each folder once for the times of several tasks, before they are listed with their attributes.
    pub fn ask_times<'a>(&self, tasks: impl Iterator<Item = &'a OsStr> + Clone) {
        for folder in self.folders() {
            let tasks = tasks.clone().filter(|task| jobs::is_job_entry(task));
            folder.times().ask(folder.root().ok(), tasks);
        }
    }
}

fn later(one: StatxTimestamp, other: StatxTimestamp) -> StatxTimestamp {
    match (one.tv_sec, one.tv_nsec) >= (other.tv_sec, other.tv_nsec) {
        true => one,
        false => other,
    }
}
