//! Reads from the runs' `jobs.jsonl` which jobs were opted out by the last run that submitted them.
//!
//! A workspace may have submitted millions of jobs, and each file may be damaged or half written:
//!
//! 1. Only candidates are kept in memory: jobs that some run opts out, that have a record on disk, or that are named by a run whose file
//!    cannot be read. A new candidate causes all files to be read again.
//! 2. A run only appends to its file, so a file of the same version is not read again. If a run is gone, or its file has shrunk, all
//!    files are read again.
//! 3. If a file cannot be read, it is unknown whether the jobs in its run's `jobs/` are opted out ([`UnreadableRun`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde_json::Value;

use crate::view::View;
use crate::workspace::experiments;
use crate::workspace::jobs::{self, JobId};
use crate::workspace::jobs_jsonl::JobsJsonl;
use crate::workspace::layout::JOBS;
use crate::workspace::runs::Layout;

/// The tag by which a plan opts a job out: `.tag("backup", False)`.
const TAG: &str = "backup";

/// A file that cannot be read is read again after this time, even if it has not changed. If it was written to more recently, its last
/// line may still be incomplete.
const READ_AGAIN: Duration = Duration::from_secs(10);

/// The file of a run that lists its jobs.
const RUN_JOBS_FILE: &str = "jobs.jsonl";

/// Whether a job is opted out, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::archive) struct Decision {
    /// When the job was submitted.
    pub(in crate::archive) submitted: Option<Timestamp>,
    /// Whether it is opted out.
    pub(in crate::archive) out: bool,
}

/// The decisions of the runs on the candidates.
#[derive(Debug, Clone, Default)]
pub(in crate::archive) struct RunTags {
    /// Whether the runs were read.
    begun: bool,
    /// The version of each file when it was read, by its path below the primary.
    files: BTreeMap<PathBuf, Version>,
    /// The candidates, each with its last line in any file.
    jobs: HashMap<JobId, Option<Decision>>,
    unreadable: Vec<UnreadableRun>,
}

/// A run's file that cannot be read to its end.
#[derive(Debug, Clone)]
pub(in crate::archive) struct UnreadableRun {
    /// Below the primary.
    pub(in crate::archive) file: PathBuf,
    modified: Option<SystemTime>,
    read: Instant,
    /// The jobs that the run's `jobs/` names.
    jobs: HashSet<JobId>,
}

/// Length, time of change, and time of status change.
type Version = (u64, Option<SystemTime>, (i64, i64));

impl RunTags {
    /// Reads the runs again; `None` if they have not changed. `recorded` lists jobs that have a record, and is called if all files are
    /// read again.
    pub(in crate::archive) fn refreshed(
        &self,
        view: &View,
        recorded: impl FnOnce() -> Vec<JobId>,
    ) -> Option<RunTags> {
        let root = view.primary().root().ok()?;
        // By the descriptor: the primary's own path may lead into our mount.
        let top = PathBuf::from(format!("/proc/self/fd/{}", root.fd().as_raw_fd()));
        let files = files(&top);
        let due = |file: &Path| {
            let unreadable = self.unreadable.iter().find(|each| each.file == *file);
            unreadable.is_some_and(|each| each.read.elapsed() > READ_AGAIN)
        };
        if self.begun && self.files == files && !files.keys().any(|file| due(file)) {
            return None;
        }
        let is_less = |(file, before): (&PathBuf, &Version)| {
            let now = files.get(file);
            now.is_none_or(|now| now.0 < before.0)
        };
        let mut next = match !self.begun || self.files.iter().any(is_less) {
            true => RunTags {
                begun: true,
                jobs: recorded().into_iter().map(|job| (job, None)).collect(),
                ..RunTags::default()
            },
            false => self.clone(),
        };
        let changed = files.iter();
        let changed =
            changed.filter(|(file, now)| next.files.get(*file) != Some(*now) || due(file));
        let changed: Vec<&PathBuf> = changed.map(|(file, _)| file).collect();
        let mut more = false;
        for file in &changed {
            more |= next.find_candidates(&top, file, files.get(*file));
        }
        match more {
            true => files.keys().for_each(|file| next.decide(&top, file)),
            false => changed.iter().for_each(|file| next.decide(&top, file)),
        }
        next.files = files;
        Some(next)
    }

    /// Adds the candidates of a file; returns whether any is new.
    fn find_candidates(&mut self, top: &Path, file: &Path, version: Option<&Version>) -> bool {
        let before = self.jobs.len();
        self.unreadable.retain(|each| each.file != *file);
        let (mut readable, mut empty) = (true, true);
        for line in lines(&top.join(file)) {
            empty = false;
            match line {
                Ok((job, Decision { out: true, .. })) => {
                    self.jobs.entry(job).or_default();
                }
                Ok(_) => {}
                Err(()) => readable = false,
            }
        }
        if !readable || empty {
            let run = top.join(file).with_file_name(JOBS);
            let jobs: HashSet<JobId> = jobs::list(&run).found.into_iter().collect();
            // A run that has not submitted a job yet has an empty file, and no jobs.
            if !jobs.is_empty() {
                for job in &jobs {
                    self.jobs.entry(job.clone()).or_default();
                }
                self.unreadable.push(UnreadableRun {
                    file: file.to_owned(),
                    modified: version.and_then(|version| version.1),
                    read: Instant::now(),
                    jobs,
                });
            }
        }
        self.jobs.len() > before
    }

    /// Applies the lines of a file to the candidates.
    fn decide(&mut self, top: &Path, file: &Path) {
        if self.jobs.is_empty() {
            return;
        }
        for (job, now) in lines(&top.join(file)).flatten() {
            if let Some(last) = self.jobs.get_mut(&job) {
                // Of two lines with the same time, the later one in the file counts.
                if last.is_none_or(|last| last.submitted <= now.submitted) {
                    *last = Some(now);
                }
            }
        }
    }

    /// The last decision on a job in any run; `None` if the job is not a candidate, `Some(None)` if it has no line in any run.
    pub(in crate::archive) fn last(&self, job: &JobId) -> Option<Option<Decision>> {
        self.jobs.get(job).copied()
    }

    /// The candidates with lines in runs, and the decision of the last line.
    pub(in crate::archive) fn decided(&self) -> impl Iterator<Item = (&JobId, Decision)> {
        let jobs = self.jobs.iter();
        jobs.filter_map(|(job, last)| Some((job, (*last)?)))
    }

    /// The candidates that are in no run's file, nor in the `jobs/` of a run whose file cannot be read.
    pub(in crate::archive) fn undecided(&self) -> impl Iterator<Item = &JobId> {
        let jobs = self.jobs.iter();
        let jobs =
            jobs.filter(|(job, last)| last.is_none() && self.unreadable_run(job, None).is_none());
        jobs.map(|(job, _)| job)
    }

    /// Whether all files were read again since an earlier state.
    pub(in crate::archive) fn is_anew(&self, before: &RunTags) -> bool {
        let gone = |file: &PathBuf| !self.files.contains_key(file);
        !before.begun || before.files.keys().any(gone)
    }

    /// The unreadable file of a run that may have submitted a job after its last known decision, if any.
    pub(in crate::archive) fn unreadable_run(
        &self,
        job: &JobId,
        known: Option<Decision>,
    ) -> Option<&UnreadableRun> {
        let known = known.and_then(|known| known.submitted);
        let known = known.map(SystemTime::from);
        self.unreadable.iter().find(|each| {
            let later = known.is_none_or(|known| each.modified.is_none_or(|at| known <= at));
            later && each.jobs.contains(job)
        })
    }
}

impl UnreadableRun {
    /// Whether the file was written to so recently that its last line may still be incomplete.
    pub(in crate::archive) fn is_being_written(&self) -> bool {
        let Some(modified) = self.modified else {
            return false;
        };
        match SystemTime::now().duration_since(modified) {
            Ok(age) => age < READ_AGAIN,
            // Another machine's clock is ahead.
            Err(ahead) => ahead.duration() < READ_AGAIN,
        }
    }
}

/// The files of all runs, by their path below `top`.
fn files(top: &Path) -> BTreeMap<PathBuf, Version> {
    let experiments = experiments::list(top).found.into_iter();
    let experiments = experiments.filter(|each| each.layout == Layout::V2);
    let runs = experiments.flat_map(|each| each.runs().found);
    let files = runs.filter_map(|run| {
        let file = run.path.join(RUN_JOBS_FILE);
        let version = match std::fs::metadata(&file) {
            Ok(meta) => {
                let changed = (meta.ctime(), meta.ctime_nsec());
                (meta.len(), meta.modified().ok(), changed)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(_) => (0, None, (0, 0)),
        };
        Some((file.strip_prefix(top).ok()?.to_owned(), version))
    });
    files.collect()
}

/// The lines of a `jobs.jsonl`: job and decision, or an error for a line that cannot be read.
fn lines(file: &Path) -> impl Iterator<Item = Result<(JobId, Decision), ()>> + use<> {
    let (lines, unreadable) = match JobsJsonl::open(file) {
        Ok(lines) => (lines, None),
        Err(_) => (None, Some(Err(()))),
    };
    let lines = lines.into_iter().flatten().map(|line| {
        let job = line.map_err(|_| ())?;
        let out = job.tags.get(TAG) == Some(&Value::Bool(false));
        let submitted = job.submitted;
        Ok((job.id, Decision { submitted, out }))
    });
    lines.chain(unreadable)
}
