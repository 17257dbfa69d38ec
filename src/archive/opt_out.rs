//! Jobs that are not to be archived: by a tag, by a file in them, by a pattern of the settings.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
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
use crate::workspace::jobs_jsonl::JobsJsonl;
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

/// What the runs' `jobs.jsonl` say. Of most workspaces, nothing is kept, since no plan of theirs opts a job out.
#[derive(Debug, Default)]
struct Tags {
    read: Option<Instant>,
    /// The files, as they were when they were read.
    files: HashMap<PathBuf, Version>,
    /// Whether any of them opts a job out.
    used: bool,
    /// If so, the last line of each job, with the tag or without it: when it was submitted, and whether its tag is false.
    last: HashMap<JobId, (Option<Timestamp>, bool)>,
}

/// The length of a file, and when it was written to.
type Version = (u64, Option<SystemTime>);

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
        tags.last.get(job).is_some_and(|(_, out)| *out)
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
        let experiments = experiments::list(&top).found;
        let runs = experiments.iter().flat_map(|each| each.runs().found);
        let runs: Vec<(PathBuf, Version)> = runs
            .filter_map(|run| {
                let file = run.path.join("jobs.jsonl");
                let meta = std::fs::metadata(&file).ok()?;
                Some((file, (meta.len(), meta.modified().ok())))
            })
            .collect();
        self.forget_if_less(&runs);
        if !self.used {
            let mut changed = self.changed(&runs).into_iter();
            self.used = changed.any(|file| lines(file).any(|(_, _, out)| out));
            if self.used {
                // Others may have submitted the same job later, without the tag.
                self.files.clear();
            }
        }
        if self.used {
            let changed = self.changed(&runs).into_iter();
            for (job, submitted, out) in changed.flat_map(|file| lines(file)) {
                let last = self.last.entry(job).or_insert((submitted, out));
                // Of two at the same time, the one further down in its file.
                if last.0 <= submitted {
                    *last = (submitted, out);
                }
            }
        }
        self.files = runs.into_iter().collect();
    }

    /// Begins anew if a file is gone, or has less than it had: runs only ever add lines to theirs.
    fn forget_if_less(&mut self, runs: &[(PathBuf, Version)]) {
        let mut kept = 0;
        let less = runs.iter().any(|(file, (length, _))| {
            let before = self.files.get(file);
            kept += usize::from(before.is_some());
            before.is_some_and(|(before, _)| length < before)
        });
        if less || kept < self.files.len() {
            *self = Tags::default();
        }
    }

    /// The files that are not as they were when they were read.
    fn changed<'a>(&self, runs: &'a [(PathBuf, Version)]) -> Vec<&'a PathBuf> {
        let changed = runs
            .iter()
            .filter(|(file, now)| self.files.get(file) != Some(now));
        changed.map(|(file, _)| file).collect()
    }
}

/// The jobs of a `jobs.jsonl`, when they were submitted, and whether their tag is false. Lines that cannot be read are passed
/// over: they may still be written.
fn lines(file: &Path) -> impl Iterator<Item = (JobId, Option<Timestamp>, bool)> + use<> {
    let lines = JobsJsonl::open(file).ok().flatten().into_iter().flatten();
    lines.filter_map(std::result::Result::ok).map(|job| {
        let out = job.tags.get(TAG) == Some(&Value::Bool(false));
        (job.id, job.submitted, out)
    })
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
    // With the rights of the job's own directory: the users who may work in it may also opt it in again.
    let rights = Mode::from_raw_mode(rustix::fs::fstat(job)?.st_mode & 0o7777);
    let state = beneath::make_dir(job, name, rights)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    match rustix::fs::openat(state, FILE, flags, Mode::from_raw_mode(0o666)) {
        Ok(_) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    use super::*;
    use crate::view::ViewSpec;

    fn submit(workspace: &Path, run: &str, hash: &str, tags: &str, timestamp: u32) {
        let run = workspace.join("experiments/test").join(run);
        fs::create_dir_all(&run).unwrap();
        let file = run.join("jobs.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(file);
        writeln!(
            file.unwrap(),
            r#"{{"job_id": "{hash}", "task_id": "my.task", "tags": {tags}, "timestamp": {timestamp}}}"#
        )
        .unwrap();
    }

    #[test]
    fn the_last_line_of_a_job_decides_whether_it_has_the_tag_or_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("jobs")).unwrap();
        let spec = ViewSpec {
            workspace: String::new(),
            primary: dir.path().canonicalize().unwrap(),
            folders: Vec::new(),
            mountpoint: None,
        };
        let view = View::open(spec, None).unwrap();
        let job = JobId::new("my.task", "1").unwrap();
        let (outs, out) = (OptOuts::default(), r#"{"backup": false}"#);
        let expect = |tagged: bool, what: &str| {
            for outs in [&outs, &OptOuts::default()] {
                outs.tags.lock().read = None;
                assert_eq!(outs.is_tagged(&view, &job), tagged, "{what}");
            }
        };
        let (first, second) = ("20261122_020605", "20261122_020606");
        expect(false, "no run");
        submit(dir.path(), second, "1", "{}", 20);
        submit(dir.path(), second, "2", out, 20);
        submit(dir.path(), first, "1", out, 10);
        expect(false, "submitted later without the tag");
        submit(dir.path(), first, "1", out, 30);
        expect(true, "the first run goes on");
        submit(dir.path(), second, "1", r#"{"lr": 0.1}"#, 40);
        expect(false, "so does the second");
        submit(dir.path(), second, "1", out, 40);
        expect(true, "at the same time, further down");
        fs::remove_dir_all(dir.path().join("experiments/test").join(second)).unwrap();
        submit(dir.path(), first, "1", r#"{"backup": true}"#, 35);
        expect(false, "a run that has been removed does not count");
    }
}
