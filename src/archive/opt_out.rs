//! Jobs that are not to be archived: by a tag, by a file in them, by a pattern of the settings.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use serde_json::Value;

use crate::settings::Patterns;
use crate::view::{View, beneath};
use crate::workspace::experiments;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::JOB_STATE;

/// The tag by which a plan opts a job out: `.tag("backup", False)`.
const TAG: &str = "backup";

/// The file in a job's `.experimaestro` by which a person opts it out.
const FILE: &str = "no-backup";

/// How long tags are believed to be what the runs say. A job's are written when it is submitted, long before it has ended.
const TAGS_VALID: Duration = Duration::from_secs(1);

/// By what a job was opted out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptOut {
    /// Its tag `backup` is false in the last run that submitted it.
    Tag,
    /// `.experimaestro/no-backup` is in it.
    File,
    /// `exclude` in the settings.
    Pattern,
}

impl fmt::Display for OptOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OptOut::Tag => "its tag `backup` is false",
            OptOut::File => "`.experimaestro/no-backup` is in it",
            OptOut::Pattern => "`exclude` in the settings names it",
        })
    }
}

/// Which jobs of a workspace are opted out.
#[derive(Debug, Default)]
pub struct OptOuts {
    exclude: Option<Patterns>,
    folders: HashMap<u8, Patterns>,
    tags: Mutex<Tags>,
}

#[derive(Debug, Default)]
struct Tags {
    read: Option<Instant>,
    runs: HashMap<PathBuf, Run>,
}

/// What is known of a run's `jobs.jsonl`.
#[derive(Debug)]
struct Run {
    version: (u64, Option<SystemTime>),
    /// The jobs that have the tag: when they were submitted, and whether it is false.
    jobs: HashMap<JobId, (Option<Timestamp>, bool)>,
}

impl OptOuts {
    /// With what the settings exclude: everywhere, and from single folders, by their number.
    #[must_use]
    pub fn new(exclude: Option<Patterns>, folders: HashMap<u8, Patterns>) -> OptOuts {
        OptOuts {
            exclude,
            folders,
            tags: Mutex::default(),
        }
    }

    /// Whether the settings exclude a job from all folders. Asks no disk.
    #[must_use]
    pub fn is_excluded(&self, job: &JobId) -> bool {
        self.exclude
            .as_ref()
            .is_some_and(|patterns| matches(patterns, job))
    }

    /// Whether the settings exclude a job from one folder. Asks no disk.
    #[must_use]
    pub fn is_excluded_from(&self, folder: u8, job: &JobId) -> bool {
        self.folders
            .get(&folder)
            .is_some_and(|patterns| matches(patterns, job))
    }

    /// By what a job is opted out, if it is; `directory` is the job's.
    ///
    /// # Errors
    ///
    /// What looking into the job gave.
    pub fn of(&self, view: &View, job: &JobId, directory: impl AsFd) -> Result<Option<OptOut>> {
        if self.is_excluded(job) {
            return Ok(Some(OptOut::Pattern));
        }
        if has_file(directory)? {
            return Ok(Some(OptOut::File));
        }
        Ok(self.is_tagged(view, job).then_some(OptOut::Tag))
    }

    fn is_tagged(&self, view: &View, job: &JobId) -> bool {
        let mut tags = self.tags.lock();
        if tags.read.is_none_or(|read| read.elapsed() > TAGS_VALID) {
            tags.refresh(view);
            tags.read = Some(Instant::now());
        }
        let said = tags.runs.values().filter_map(|run| run.jobs.get(job));
        said.max_by_key(|(submitted, _)| *submitted)
            .is_some_and(|(_, out)| *out)
    }
}

impl Tags {
    /// Reads the runs again that have changed.
    fn refresh(&mut self, view: &View) {
        let Ok(root) = view.primary().root() else {
            return;
        };
        // By the descriptor: the primary's own path may lead into our mount.
        let top = PathBuf::from(format!("/proc/self/fd/{}", root.fd().as_raw_fd()));
        let mut before = std::mem::take(&mut self.runs);
        for experiment in experiments::list(&top).found {
            for run in experiment.runs().found {
                let file = run.path.join("jobs.jsonl");
                let Ok(meta) = std::fs::metadata(&file) else {
                    continue;
                };
                let version = (meta.len(), meta.modified().ok());
                let known = before.remove(&file).filter(|run| run.version == version);
                let read = known.unwrap_or_else(|| Run {
                    version,
                    jobs: tagged(&run),
                });
                self.runs.insert(file, read);
            }
        }
    }
}

/// The jobs of a run that have the tag. Lines that cannot be read are passed over: they may still be written.
fn tagged(run: &crate::workspace::runs::Run) -> HashMap<JobId, (Option<Timestamp>, bool)> {
    let lines = run.jobs().ok().flatten().into_iter().flatten();
    lines
        .filter_map(std::result::Result::ok)
        .filter_map(|job| {
            let out = job.tags.get(TAG)? == &Value::Bool(false);
            Some((job.id, (job.submitted, out)))
        })
        .collect()
}

fn matches(patterns: &Patterns, job: &JobId) -> bool {
    patterns.matches(
        &job.task_id().to_string_lossy(),
        &job.hash().to_string_lossy(),
    )
}

/// Whether a job has been opted out by hand.
///
/// # Errors
///
/// What looking for the file gave, but for its absence.
pub fn has_file(job: impl AsFd) -> Result<bool> {
    let Some(state) = beneath::absent(beneath::open_dir(job, OsStr::new(JOB_STATE)))? else {
        return Ok(false);
    };
    Ok(beneath::absent(beneath::stat(state, OsStr::new(FILE)))?.is_some())
}

/// Opts a job out by hand, or in again. Gives whether that changed anything.
///
/// # Errors
///
/// What making or removing the file gave.
pub fn set_file(job: &OwnedFd, out: bool) -> Result<bool> {
    let name = OsStr::new(JOB_STATE);
    if !out {
        let Some(state) = beneath::absent(beneath::open_dir(job, name))? else {
            return Ok(false);
        };
        let removed = rustix::fs::unlinkat(state, FILE, rustix::fs::AtFlags::empty());
        return Ok(beneath::absent(removed)?.is_some());
    }
    match rustix::fs::mkdirat(job, name, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let state = beneath::open_dir(job, name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    match rustix::fs::openat(state, FILE, flags, Mode::from_raw_mode(0o666)) {
        Ok(_) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}
