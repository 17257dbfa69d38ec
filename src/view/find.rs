//! Finds jobs by what a person writes: `task_id/hash`, the start of a hash, a task, or a glob.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::io::{Errno, Result as SysResult};

use super::View;
use super::jobs::names;
use crate::settings::Patterns;
use crate::sys::at;
use crate::sys::read_dir::{self, EntryBuffer};
use crate::workspace::jobs::{JobId, is_job_entry};

/// The characters that make a text a glob.
const GLOB: &[u8] = b"*?[{";

/// The jobs that a text names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// One job, by its name.
    Job(JobId),
    /// The jobs of a task, or those that a glob matches: at least one, in order.
    Matching(Vec<JobId>),
}

/// Why a text names no job.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// It cannot name one.
    #[error(
        "{text:?} does not name a job: write task_id/hash, the start of a hash, a path, a task, or a glob"
    )]
    Invalid {
        /// The text.
        text: OsString,
    },
    /// It is not a glob.
    #[error("{text:?} is not a valid glob: {why}")]
    Glob {
        /// The text.
        text: OsString,
        /// The reason.
        why: String,
    },
    /// No location has such a job, and no folder that cannot be used now has one on record.
    #[error("no job {text:?}: neither {} nor any of its folders has one{away}", primary.display())]
    Absent {
        /// The text.
        text: OsString,
        /// The workspace's directory.
        primary: PathBuf,
        /// A clause with the folders that cannot be used now.
        away: String,
    },
    /// Several jobs start with it.
    #[error("{text:?} is the start of {} jobs: write more of the hash", jobs.len())]
    Ambiguous {
        /// The text.
        text: OsString,
        /// The jobs, in order.
        jobs: Vec<JobId>,
    },
    /// The primary cannot be listed.
    #[error("cannot list the jobs of {}: {errno}", primary.display())]
    System {
        /// The workspace's directory.
        primary: PathBuf,
        /// The reason.
        errno: Errno,
    },
}

impl View {
    /// Finds the jobs that a text names: those of a task, those that a glob over `task_id` or `task_id/hash` matches, or one job as
    /// [`View::find_job`] does. An exact name comes first, so that names with characters of a glob can be written.
    ///
    /// # Errors
    ///
    /// No job has the name, or several jobs start with it.
    pub fn find_jobs(&self, text: &OsStr) -> Result<Named, FindError> {
        let bytes = trimmed(text);
        if !bytes.contains(&b'/') {
            let task = OsStr::from_bytes(bytes);
            let jobs = self.jobs_where(|name| name == task, |_| true)?;
            if !jobs.is_empty() {
                return Ok(Named::Matching(jobs));
            }
        }
        if !bytes.iter().any(|byte| GLOB.contains(byte)) {
            return self.find_job(text).map(Named::Job);
        }
        if let Ok(job) = self.find_job(text) {
            return Ok(Named::Job(job));
        }
        let written = vec![String::from_utf8_lossy(bytes).into_owned()];
        let glob = Patterns::new(written).map_err(|(_, why)| FindError::Glob {
            text: text.to_owned(),
            why,
        })?;
        let matches = |job: &JobId| {
            let (task, hash) = (
                job.task_id().to_string_lossy(),
                job.hash().to_string_lossy(),
            );
            glob.matches(&task, &hash)
        };
        let jobs = self.jobs_where(|_| true, matches)?;
        match jobs.is_empty() {
            true => Err(self.absent(text)),
            false => Ok(Named::Matching(jobs)),
        }
    }

    /// The jobs of all locations, in order, that `job` accepts, of the tasks that `task` accepts.
    fn jobs_where(
        &self,
        task: impl Fn(&OsStr) -> bool,
        job: impl Fn(&JobId) -> bool,
    ) -> Result<Vec<JobId>, FindError> {
        let tasks = self.task_names().map_err(|errno| self.unlisted(errno))?;
        let (mut found, mut refused) = (BTreeSet::new(), None);
        for task in tasks.iter().filter(|name| task(name)) {
            // In a workspace of several people, this user may not be able to list every task.
            let hashes = self.job_names(task).unwrap_or_else(|errno| {
                tracing::warn!("cannot list the jobs of {}: {errno}", task.display());
                refused = Some(errno);
                BTreeSet::new()
            });
            let jobs = hashes
                .into_iter()
                .filter_map(|hash| JobId::new(task, hash).ok());
            found.extend(jobs.filter(&job));
        }
        match refused {
            Some(errno) if found.is_empty() => Err(self.unlisted(errno)),
            _ => Ok(found.into_iter().collect()),
        }
    }

    fn absent(&self, text: &OsStr) -> FindError {
        let away = self.folders().iter().filter(|it| it.is_away());
        let away: Vec<String> = away.map(|it| it.path().display().to_string()).collect();
        FindError::Absent {
            text: text.to_owned(),
            primary: self.primary_path().to_owned(),
            away: match away.is_empty() {
                true => String::new(),
                false => format!(
                    "; {} cannot be used now, and had none when last seen",
                    away.join(", ")
                ),
            },
        }
    }

    fn unlisted(&self, errno: Errno) -> FindError {
        FindError::System {
            primary: self.primary_path().to_owned(),
            errno,
        }
    }

    /// Finds the job that a text names: `task_id/hash`, `task_id/` and the start of a hash, or only that, if one job starts with it.
    /// A `jobs/` before it and a `/` after it are ignored.
    ///
    /// # Errors
    ///
    /// No job has the name, or several jobs start with it.
    pub fn find_job(&self, text: &OsStr) -> Result<JobId, FindError> {
        let bytes = trimmed(text);
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
        let tasks = match task {
            Some(task) => BTreeSet::from([task.to_owned()]),
            None => self.task_names().map_err(|errno| self.unlisted(errno))?,
        };
        let mut found = BTreeSet::new();
        let mut refused = None;
        for task in tasks {
            // In a workspace of several people, this user may not be able to list every task.
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
        // A complete name is exact, also if another name starts with it.
        let whole: Vec<&JobId> = found.iter().filter(|job| job.hash() == hash).collect();
        match (whole.as_slice(), found.len()) {
            ([job], _) => Ok((*job).clone()),
            ([], 0) => Err(match refused {
                Some(errno) => self.unlisted(errno),
                None => self.absent(text),
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

    /// The names below `jobs/` in all locations; of a folder that cannot be used now, those on record. Without folders that cannot be listed.
    fn task_names(&self) -> SysResult<BTreeSet<OsString>> {
        let mut found = BTreeSet::new();
        for location in self.locations() {
            let answers = location.expect_answer(|root| check_listable(&*root.jobs()?));
            let listed = answers.and_then(|()| location.root()?.jobs());
            let listed = at::absent(listed.and_then(|jobs| names(&*jobs)));
            match listed {
                Ok(listed) => found.extend(listed.unwrap_or_default()),
                Err(errno) if location.index() == super::PRIMARY => return Err(errno),
                Err(_) => {}
            }
            if location.is_away() {
                found.extend(self.recorded_tasks(location));
            }
        }
        Ok(found)
    }

    /// The names below `jobs/<task>/` in all locations; of a folder that cannot be used now, those on record. Without locations that cannot
    /// be listed, if any can.
    fn job_names(&self, task: &OsStr) -> SysResult<BTreeSet<OsString>> {
        let mut found = BTreeSet::new();
        let mut refused = None;
        for location in self.locations() {
            let asked = task.to_owned();
            let answers = location.expect_answer(move |root| check_listable(&*root.task(&asked)?));
            let listed = answers.and_then(|()| location.root()?.task(task));
            let listed = at::absent(listed.and_then(|task| names(&*task)));
            match listed {
                Ok(listed) => found.extend(listed.unwrap_or_default()),
                Err(errno) if location.index() == super::PRIMARY => refused = Some(errno),
                Err(_) => {}
            }
            if location.is_away() {
                self.recorded_jobs(location, task, 0, &mut |name, _| {
                    found.insert(name.to_owned());
                    true
                });
            }
        }
        match refused {
            Some(errno) if found.is_empty() => Err(errno),
            _ => Ok(found),
        }
    }
}

/// Lists the beginning of a directory.
fn check_listable(directory: impl AsFd) -> SysResult<()> {
    let opened = at::open_to_list(directory, OsStr::new("."))?;
    read_dir::read_once(&opened, &mut EntryBuffer::default(), |_| ()).map(drop)
}

/// A text without `jobs/` before it and `/` after it.
fn trimmed(text: &OsStr) -> &[u8] {
    let bytes = text.as_bytes();
    let bytes = bytes.strip_prefix(b"jobs/").unwrap_or(bytes);
    bytes.strip_suffix(b"/").unwrap_or(bytes)
}
