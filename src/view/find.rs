//! Jobs by what a person writes: `task_id/hash`, or the beginning of a hash.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::io::{Errno, Result as SysResult};

use super::View;
use super::jobs::names;
use crate::sys::at;
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
        primary: PathBuf,
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
        primary: PathBuf,
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
        let mut refused = None;
        for task in tasks {
            // In a workspace of several people, some tasks may be for others.
            let names = self.job_names(&task).unwrap_or_else(|errno| {
                refused = Some(errno);
                BTreeSet::new()
            });
            for name in names {
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
            ([], 0) => Err(match refused {
                Some(errno) => system(errno),
                None => FindError::Absent {
                    text: text.to_owned(),
                    primary: self.primary_path().to_owned(),
                },
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

    /// The names below `jobs/` in all locations; folders that cannot be listed are passed over.
    fn task_names(&self) -> SysResult<BTreeSet<OsString>> {
        let mut found = BTreeSet::new();
        for location in self.locations() {
            let listed = location.root().and_then(|root| root.jobs());
            let listed = at::absent(listed.and_then(|jobs| names(&*jobs)));
            match listed {
                Ok(listed) => found.extend(listed.unwrap_or_default()),
                Err(errno) if location.index() == super::PRIMARY => return Err(errno),
                Err(_) => {}
            }
        }
        Ok(found)
    }

    /// The names below `jobs/<task>/` in all locations; those that cannot be listed are passed over, if any can.
    fn job_names(&self, task: &OsStr) -> SysResult<BTreeSet<OsString>> {
        let mut found = BTreeSet::new();
        let mut refused = None;
        for location in self.locations() {
            let listed = location.root().and_then(|root| root.task(task));
            let listed = at::absent(listed.and_then(|task| names(&*task)));
            match listed {
                Ok(listed) => found.extend(listed.unwrap_or_default()),
                Err(errno) if location.index() == super::PRIMARY => refused = Some(errno),
                Err(_) => {}
            }
        }
        match refused {
            Some(errno) if found.is_empty() => Err(errno),
            _ => Ok(found),
        }
    }
}
