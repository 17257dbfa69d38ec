//! Jobs by what a person writes: `task_id/hash`, or the beginning of a hash.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::{Errno, Result as SysResult};

use super::{View, beneath};
use crate::workspace::jobs::{JobId, is_job_entry};

/// How many jobs an error names.
const NAMED: usize = 5;

/// Why a text names no job.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// It cannot name one.
    #[error("{text:?} does not name a job: write task_id/hash, or the beginning of a hash")]
    Invalid {
        /// What was given.
        text: OsString,
    },
    /// No location has such a job.
    #[error("no job {text:?}: neither {} nor any of its folders has one", primary.display())]
    Absent {
        /// What was given.
        text: OsString,
        /// The workspace's directory.
        primary: std::path::PathBuf,
    },
    /// Several jobs begin with it.
    #[error("{text:?} names several jobs: {}; write more of the hash", some(jobs))]
    Ambiguous {
        /// What was given.
        text: OsString,
        /// The jobs.
        jobs: Vec<JobId>,
    },
    /// The primary cannot be looked at.
    #[error("cannot list the jobs of {}: {errno}", primary.display())]
    System {
        /// The workspace's directory.
        primary: std::path::PathBuf,
        /// Why not.
        errno: Errno,
    },
}

fn some(jobs: &[JobId]) -> String {
    let named: Vec<String> = jobs.iter().take(NAMED).map(ToString::to_string).collect();
    match jobs.len().checked_sub(NAMED) {
        None | Some(0) => named.join(", "),
        Some(more) => format!("{} and {more} more", named.join(", ")),
    }
}

impl View {
    /// The job that a text names: `task_id/hash`, `task_id/` and the beginning of a hash, or only that, if one job
    /// begins with it; a `jobs/` before it and a `/` behind it do not matter.
    ///
    /// # Errors
    ///
    /// None, or several.
    pub fn find_job(&self, text: &OsStr) -> Result<JobId, FindError> {
        let bytes = text.as_bytes();
        let bytes = bytes.strip_prefix(b"jobs/").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"/").unwrap_or(bytes);
        let split = bytes.iter().position(|byte| *byte == b'/');
        let (task, hash) = match split.map(|at| bytes.split_at(at)) {
            Some((task, hash)) => (
                Some(OsStr::from_bytes(task)),
                hash.get(1..).unwrap_or_default(),
            ),
            None => (None, bytes),
        };
        let hash = OsStr::from_bytes(hash);
        if !is_job_entry(hash) || task.is_some_and(|task| !is_job_entry(task)) {
            return Err(FindError::Invalid {
                text: text.to_owned(),
            });
        }
        let system = |errno| FindError::System {
            primary: self.primary_path().to_owned(),
            errno,
        };
        let tasks = match task {
            Some(task) => BTreeSet::from([task.to_owned()]),
            None => self.task_names().map_err(system)?,
        };
        let mut found = BTreeSet::new();
        for task in tasks {
            for name in self.job_names(&task).map_err(system)? {
                if name.as_bytes().starts_with(hash.as_bytes())
                    && let Ok(job) = JobId::new(&task, name)
                {
                    found.insert(job);
                }
            }
        }
        // A whole name is meant also where another begins with it.
        let whole: Vec<&JobId> = found.iter().filter(|job| job.hash() == hash).collect();
        match (whole.as_slice(), found.len()) {
            ([job], _) => Ok((*job).clone()),
            ([], 0) => Err(FindError::Absent {
                text: text.to_owned(),
                primary: self.primary_path().to_owned(),
            }),
            ([], 1) => found.pop_first().ok_or_else(|| FindError::Invalid {
                text: text.to_owned(),
            }),
            _ => Err(FindError::Ambiguous {
                text: text.to_owned(),
                jobs: found.into_iter().collect(),
            }),
        }
    }

    /// The jobs that the primary has as directories, in order: neither moved ones nor those that only a folder has.
    ///
    /// # Errors
    ///
    /// What listing the primary gave.
    pub fn jobs_of_primary(&self) -> SysResult<Vec<JobId>> {
        let root = self.primary().root()?;
        let mut jobs = Vec::new();
        let Some(directory) = beneath::absent(root.jobs())? else {
            return Ok(jobs);
        };
        for task in names(&*directory, &mut |_| true)? {
            let Some(directory) = beneath::absent(root.task(&task))? else {
                continue;
            };
            // A symlink has been left by a move.
            let directories = names(&*directory, &mut |kind| {
                kind != rustix::fs::FileType::Symlink
            })?;
            jobs.extend(
                directories
                    .into_iter()
                    .filter_map(|hash| JobId::new(&task, hash).ok()),
            );
        }
        Ok(jobs)
    }

    /// The jobs that a `backup` or `move` folder has, in order; folders that cannot be listed are passed over.
    #[must_use]
    pub fn jobs_of_archives(&self) -> BTreeSet<JobId> {
        let mut jobs = BTreeSet::new();
        let archives = self.folders().iter().filter(|folder| {
            folder.role() != super::location::Role::Folder(crate::settings::Mode::Use)
        });
        for folder in archives {
            let listed = folder.root().and_then(|root| Ok((root.jobs()?, root)));
            let Ok((directory, root)) = listed else {
                continue;
            };
            for task in names(&*directory, &mut |_| true).unwrap_or_default() {
                let Ok(directory) = root.task(&task) else {
                    continue;
                };
                let hashes = names(&*directory, &mut |_| true).unwrap_or_default();
                jobs.extend(
                    hashes
                        .into_iter()
                        .filter_map(|hash| JobId::new(&task, hash).ok()),
                );
            }
        }
        jobs
    }

    /// The names below `jobs/` in all locations; folders that cannot be listed are passed over.
    fn task_names(&self) -> SysResult<BTreeSet<OsString>> {
        let mut found = BTreeSet::new();
        for location in self.locations() {
            let listed = location.root().and_then(|root| root.jobs());
            let listed = beneath::absent(listed.and_then(|jobs| names(&*jobs, &mut |_| true)));
            match listed {
                Ok(listed) => found.extend(listed.unwrap_or_default()),
                Err(errno) if location.index() == super::PRIMARY => return Err(errno),
                Err(_) => {}
            }
        }
        Ok(found)
    }

    /// The names below `jobs/<task>/` in all locations; folders that cannot be listed are passed over.
    fn job_names(&self, task: &OsStr) -> SysResult<BTreeSet<OsString>> {
        let mut found = BTreeSet::new();
        for location in self.locations() {
            let listed = location.root().and_then(|root| root.task(task));
            let listed = beneath::absent(listed.and_then(|task| names(&*task, &mut |_| true)));
            match listed {
                Ok(listed) => found.extend(listed.unwrap_or_default()),
                Err(errno) if location.index() == super::PRIMARY => return Err(errno),
                Err(_) => {}
            }
        }
        Ok(found)
    }
}

/// The names in a directory that may be a task's or a job's, in order.
fn names(
    directory: impl AsFd,
    wanted: &mut dyn FnMut(rustix::fs::FileType) -> bool,
) -> SysResult<Vec<OsString>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
    let mut found = Vec::new();
    for entry in Dir::new(opened)? {
        let entry = entry?;
        let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
        if is_job_entry(&name) && wanted(entry.file_type()) {
            found.push(name);
        }
    }
    found.sort_unstable();
    Ok(found)
}
