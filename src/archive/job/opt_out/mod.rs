//! Decides which jobs are excluded from archiving: by a tag, by a file in the job, or by a pattern in the settings.
//!
//! `run_tags`: the tags of jobs, from the runs of the workspace; `records`: what is recorded of them when a run is gone

mod records;
mod run_tags;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex};
use rustix::fs::Mode;
use rustix::io::{Errno, Result};

use self::run_tags::{Decision, RunTags};
use crate::archive::state_dir;
use crate::settings::Patterns;
use crate::sys::{at, shared_dir};
use crate::view::View;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::JOB_STATE;
pub use crate::workspace::layout::OPT_OUT_FILE;

/// How long the tags that were read are used. A job's tags are written when it is submitted, long before it ends.
const TAGS_VALID: Duration = Duration::from_secs(1);

/// How a job was opted out.
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
    runs: Runs,
}

/// The tags that were last read from the runs. No lock is held while the runs are read: other threads wait on `ended`.
#[derive(Debug, Default)]
struct Runs {
    state: Mutex<Reading>,
    ended: Condvar,
    /// Whether a failure to write records was logged.
    reported: AtomicBool,
}

#[derive(Debug, Default)]
struct Reading {
    tags: Arc<RunTags>,
    read: Option<Instant>,
    is_read: bool,
}

/// Whether a job may be archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Eligibility {
    /// It is archived.
    In,
    /// It is opted out.
    Out(OptOut),
    /// A run that names it is being written: ask again.
    Pending,
    /// A run that names it may opt it out: this file of the run cannot be read.
    Unknown(PathBuf),
}

impl OptOuts {
    /// With the patterns of the settings: for all folders, and for single folders by their number.
    #[must_use]
    pub fn new(exclude: Option<Patterns>, folders: HashMap<u8, Patterns>) -> OptOuts {
        OptOuts {
            exclude,
            folders,
            runs: Runs::default(),
        }
    }

    /// Whether the settings exclude a job from all folders. Accesses no disk.
    #[must_use]
    pub fn is_excluded(&self, job: &JobId) -> bool {
        self.exclude
            .as_ref()
            .is_some_and(|patterns| matches(patterns, job))
    }

    /// Whether the settings exclude a job from one folder. Accesses no disk.
    #[must_use]
    pub fn is_excluded_from(&self, folder: u8, job: &JobId) -> bool {
        self.folders
            .get(&folder)
            .is_some_and(|patterns| matches(patterns, job))
    }

    /// Returns whether a job may be archived; `directory` is the job's.
    ///
    /// # Errors
    ///
    /// Fails if the job or its record cannot be read.
    pub fn of(&self, view: &View, job: &JobId, directory: impl AsFd) -> Result<Eligibility> {
        if self.is_excluded(job) {
            return Ok(Eligibility::Out(OptOut::Pattern));
        }
        if has_file(directory)? {
            return Ok(Eligibility::Out(OptOut::File));
        }
        self.by_tag(view, job)
    }

    /// How a job is opted out, if it is; `directory` is the primary's, if it has the job. A run that cannot be read opts nothing out.
    ///
    /// # Errors
    ///
    /// As [`OptOuts::of`].
    pub fn how(
        &self,
        view: &View,
        job: &JobId,
        directory: Option<&OwnedFd>,
    ) -> Result<Option<OptOut>> {
        let eligibility = match directory {
            Some(directory) => self.of(view, job, directory)?,
            None if self.is_excluded(job) => Eligibility::Out(OptOut::Pattern),
            None => self.by_tag(view, job)?,
        };
        Ok(match eligibility {
            Eligibility::Out(out) => Some(out),
            Eligibility::In | Eligibility::Pending | Eligibility::Unknown(_) => None,
        })
    }

    /// Opts a job in: removes the file in it, and records a decision that is later than those of the runs so far. Returns whether that
    /// changed anything.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be removed, or the record cannot be written.
    pub fn opt_in(&self, view: &View, job: &JobId, directory: &OwnedFd) -> std::io::Result<bool> {
        let had_file = set_file(directory, false)?;
        let by_tag = self.by_tag(view, job)?;
        if by_tag == Eligibility::In {
            return Ok(had_file);
        }
        let decision = Decision {
            submitted: Some(Timestamp::now()),
            out: false,
        };
        records::write(view.primary(), job, decision)?;
        Ok(true)
    }

    fn by_tag(&self, view: &View, job: &JobId) -> Result<Eligibility> {
        let record = records::read(view.primary(), job)?;
        let mut tags = self.tags(view, false);
        if record.is_some() && tags.last(job).is_none() {
            // Another node has written the record since.
            tags = self.tags(view, true);
        }
        let known = last(tags.last(job).flatten(), record);
        Ok(match (known, tags.unreadable_run(job, known)) {
            (Some(Decision { out: true, .. }), _) => Eligibility::Out(OptOut::Tag),
            (_, None) => Eligibility::In,
            (_, Some(run)) if run.is_being_written() => Eligibility::Pending,
            (_, Some(run)) => Eligibility::Unknown(view.primary_path().join(&run.file)),
        })
    }

    /// The tags in the runs, at most [`TAGS_VALID`] old; with `anew`, as of now, and for all jobs that have records.
    fn tags(&self, view: &View, anew: bool) -> Arc<RunTags> {
        let runs = &self.runs;
        let mut state = runs.state.lock();
        loop {
            if !anew && state.read.is_some_and(|read| read.elapsed() <= TAGS_VALID) {
                return state.tags.clone();
            }
            if !state.is_read {
                break;
            }
            runs.ended.wait(&mut state);
        }
        state.is_read = true;
        let before = match anew {
            true => Arc::default(),
            false => state.tags.clone(),
        };
        drop(state);
        let end = End(runs);
        let next = before.refreshed(view, || records::list(view.primary()));
        let tags = match next {
            Some(next) => {
                self.record(view, &before, &next);
                Arc::new(next)
            }
            None => before,
        };
        let mut state = runs.state.lock();
        state.tags = tags.clone();
        state.read = Some(Instant::now());
        drop(state);
        drop(end);
        tags
    }

    /// Records new decisions on disk: runs may be removed before the job is looked at again.
    fn record(&self, view: &View, before: &RunTags, now: &RunTags) {
        let primary = view.primary();
        for (job, decision) in now.decided() {
            if before.last(job).flatten() == Some(decision) {
                continue;
            }
            let Ok(record) = records::read(primary, job) else {
                continue;
            };
            let outdated = record.is_none_or(|record| record.submitted <= decision.submitted);
            let written = match decision.out {
                true if outdated && record != Some(decision) => {
                    records::write(primary, job, decision)
                }
                false if outdated && record.is_some() => {
                    records::remove(primary, job).map_err(Into::into)
                }
                _ => Ok(()),
            };
            if let Err(error) = written
                && !self.runs.reported.swap(true, Ordering::Relaxed)
            {
                let path = primary.path();
                tracing::warn!(
                    "cannot record in {}/.xpmfs that {job} is opted out by its tag: {error}; this is lost when the run \
                     is removed",
                    path.display()
                );
            }
        }
        if now.is_anew(before) {
            for job in now.undecided() {
                records::remove_if_gone(primary, job);
            }
        }
    }
}

/// Lets the next thread read the runs, also after a panic.
struct End<'a>(&'a Runs);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.state.lock().is_read = false;
        self.0.ended.notify_all();
    }
}

/// The later decision, of a run or of the record; the run's if both have the same time.
fn last(run: Option<Decision>, record: Option<Decision>) -> Option<Decision> {
    match (run, record) {
        (Some(run), Some(record)) if record.submitted > run.submitted => Some(record),
        (run, record) => run.or(record),
    }
}

fn matches(patterns: &Patterns, job: &JobId) -> bool {
    patterns.matches(
        &job.task_id().to_string_lossy(),
        &job.hash().to_string_lossy(),
    )
}

/// Whether a job has the file that opts it out.
///
/// # Errors
///
/// Fails if the directory cannot be searched.
pub fn has_file(job: impl AsFd) -> Result<bool> {
    let Some(state) = at::absent(at::open_dir(job, OsStr::new(JOB_STATE)))? else {
        return Ok(false);
    };
    Ok(at::absent(at::stat(state, OsStr::new(OPT_OUT_FILE)))?.is_some())
}

/// Creates or removes the file that opts a job out. Returns whether that changed anything.
///
/// # Errors
///
/// Fails if the file cannot be created or removed.
pub fn set_file(job: &OwnedFd, out: bool) -> Result<bool> {
    let name = OsStr::new(JOB_STATE);
    if !out {
        let Some(state) = at::absent(at::open_dir(job, name))? else {
            return Ok(false);
        };
        let removed = rustix::fs::unlinkat(state, OPT_OUT_FILE, rustix::fs::AtFlags::empty());
        return Ok(at::absent(removed)?.is_some());
    }
    // With the mode of the job's own directory: the users who may write in it may also opt it in again.
    let rights = Mode::from_raw_mode(rustix::fs::fstat(job)?.st_mode & 0o7777);
    let state = shared_dir::make_dir(job, name, rights)?;
    match state_dir::create(job, &state, OsStr::new(OPT_OUT_FILE)) {
        Ok(_) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::path::Path;

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
    fn the_last_submission_of_a_job_decides_whether_it_is_opted_out() {
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
                outs.runs.state.lock().read = None;
                let expected = match tagged {
                    true => Eligibility::Out(OptOut::Tag),
                    false => Eligibility::In,
                };
                assert_eq!(outs.by_tag(&view, &job).unwrap(), expected, "{what}");
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
        expect(true, "a run that has been removed was the last");
        fs::remove_dir_all(dir.path().join("experiments")).unwrap();
        expect(true, "all runs have been removed");
        submit(dir.path(), first, "1", "{}", 50);
        expect(false, "submitted anew, without the tag");
        fs::remove_dir_all(dir.path().join("experiments")).unwrap();
        expect(false, "and all runs have been removed");
    }
}
