//! Decides whether a job is transient and its plan, which still runs, may remove it.
//!
//! experimaestro 2.7.0 records that a job is transient only in the events of its run, as `"scheduler_state":"transient"`, and not
//! at all if the job was done before. The plan removes the job right after it has released the experiment's lock.
//!
//! 1. Finds the experiments whose lock is held, or was until a moment ago ([`REMOVAL_WAIT`]). Mostly there are none.
//! 2. Searches the files of their runs for the job; if one of these runs names the job, also the files of the other runs that name it.
//! 3. These files only grow: each search continues where the last one ended. Only transient jobs are kept.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use serde::Deserialize;

use crate::view::View;
use crate::workspace::experiments;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::JOBS;
use crate::workspace::runs::{Layout, Run, RunState};

/// How long after the last change in a run its plan may still remove transient jobs, which it does without the lock.
const REMOVAL_WAIT: Duration = Duration::from_secs(15);

/// How long the list of runs is cached. A job becomes transient before it runs.
const RUN_LIST_TTL: Duration = Duration::from_secs(1);

/// Longer lines than this are skipped.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// `TransientMode.REMOVE`, in a `jobs.jsonl`.
const MODE_REMOVE: u64 = 2;

/// Knows which transient jobs a plan may remove.
#[derive(Debug, Default)]
pub(in crate::archive) struct Transients {
    listed: Mutex<Option<(Instant, Arc<RunList>)>>,
    /// The searched files, by path below the primary.
    files: Mutex<HashMap<PathBuf, Searched>>,
}

/// The runs of a workspace.
#[derive(Debug)]
struct RunList {
    experiments: Vec<Experiment>,
}

#[derive(Debug)]
struct Experiment {
    /// The event files of its runs while they run.
    events: Vec<PathBuf>,
    runs: Vec<PathBuf>,
    /// Whether a plan may still remove jobs of it.
    live: bool,
}

/// How far a file was searched, and which transient jobs are in it.
#[derive(Debug, Clone, Default)]
struct Searched {
    length: u64,
    jobs: HashSet<JobId>,
}

impl Transients {
    /// Returns whether a plan may still remove a job.
    pub(in crate::archive) fn may_be_removed(&self, view: &View, job: &JobId) -> bool {
        let Ok(root) = view.primary().root() else {
            return false;
        };
        // By the descriptor: the primary's own path may lead into our mount.
        let top = PathBuf::from(format!("/proc/self/fd/{}", root.fd().as_raw_fd()));
        let listed = self.list(&top);
        if !listed.experiments.iter().any(|each| each.live) {
            return false;
        }
        let link = Path::new(JOBS).join(job.path());
        let names = |run: &PathBuf| fs::symlink_metadata(top.join(run).join(&link)).is_ok();
        let is_in = |experiment: &Experiment, run: &PathBuf| {
            let mut files = events(&top, &run.join("events"), "");
            files.extend(experiment.events.iter().cloned());
            files.push(run.join("jobs.jsonl"));
            files.iter().any(|file| self.search(&top, file, job))
        };
        let live = || listed.experiments.iter().filter(|each| each.live);
        let is_in_live = live().any(|each| each.runs.iter().any(|run| is_in(each, run)));
        if is_in_live {
            return true;
        }
        // The job was done before: only the events of an earlier run may say that it is transient.
        live().any(|each| each.runs.iter().any(names))
            && listed
                .experiments
                .iter()
                .filter(|each| !each.live)
                .any(|each| {
                    let mut runs = each.runs.iter();
                    runs.any(|run| names(run) && is_in(each, run))
                })
    }

    fn list(&self, top: &Path) -> Arc<RunList> {
        if let Some((read, listed)) = &*self.listed.lock()
            && read.elapsed() <= RUN_LIST_TTL
        {
            return listed.clone();
        }
        let listed = Arc::new(list(top));
        let mut files = self.files.lock();
        let runs: HashSet<&Path> = listed
            .experiments
            .iter()
            .flat_map(|each| each.runs.iter().map(PathBuf::as_path))
            .collect();
        files.retain(|file, _| {
            let mut above = file.ancestors().skip(1);
            above.any(|run| runs.contains(run)) || top.join(file).exists()
        });
        drop(files);
        *self.listed.lock() = Some((Instant::now(), listed.clone()));
        listed
    }

    /// Whether a job is transient according to a file.
    fn search(&self, top: &Path, file: &Path, job: &JobId) -> bool {
        let before = self.files.lock().get(file).cloned().unwrap_or_default();
        let length = fs::metadata(top.join(file)).map_or(0, |meta| meta.len());
        if length == before.length {
            return before.jobs.contains(job);
        }
        let mut now = match length < before.length {
            true => Searched::default(),
            false => before,
        };
        if let Err(error) = now.search_on(&top.join(file)) {
            tracing::debug!("cannot search {}: {error}", file.display());
        }
        let found = now.jobs.contains(job);
        self.files.lock().insert(file.to_owned(), now);
        found
    }
}

impl Searched {
    /// Reads on to the end of the last line.
    fn search_on(&mut self, file: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(CWD, file, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Ok(());
        }
        file.seek(SeekFrom::Start(self.length))?;
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = file
                .by_ref()
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut line)? as u64;
            let skipped = match line.ends_with(b"\n") {
                true => 0,
                false if read == LINE_BYTES_MAX => file.skip_until(b'\n')? as u64,
                // The line is incomplete.
                false => return Ok(()),
            };
            self.length += read + skipped;
            self.jobs.extend(transient(&line));
        }
    }
}

/// The job of a line of `jobs.jsonl` or of a run's events, if the line says that the job is transient.
fn transient(line: &[u8]) -> Option<JobId> {
    #[derive(Deserialize)]
    struct Line {
        job_id: String,
        task_id: String,
        #[serde(default)]
        scheduler_state: Option<String>,
        #[serde(default)]
        transient: Option<serde_json::Value>,
    }
    const WORD: &[u8] = b"transient";
    if !line.windows(WORD.len()).any(|part| part == WORD) {
        return None;
    }
    let line: Line = serde_json::from_slice(line).ok()?;
    let by_mode = line.transient.is_some_and(|mode| mode == MODE_REMOVE);
    if !by_mode && line.scheduler_state.as_deref() != Some("transient") {
        return None;
    }
    JobId::new(line.task_id, line.job_id).ok()
}

fn list(top: &Path) -> RunList {
    let below = |path: &Path| path.strip_prefix(top).ok().map(Path::to_path_buf);
    let experiments = experiments::list(top).found.into_iter();
    let experiments = experiments.filter(|each| each.layout == Layout::V2);
    let experiments = experiments.map(|each| {
        let runs = each.runs().found;
        let live = match is_experiment_locked(&each.path) {
            Some(true) => true,
            Some(false) => runs.iter().any(has_just_changed),
            None => runs
                .iter()
                .any(|run| is_running(run) || has_just_changed(run)),
        };
        let prefix = format!("{}-", each.id.display());
        let events = match live {
            true => events(top, Path::new(".events/experiments"), &prefix),
            false => Vec::new(),
        };
        Experiment {
            events,
            runs: runs.iter().filter_map(|run| below(&run.path)).collect(),
            live,
        }
    });
    RunList {
        experiments: experiments.collect(),
    }
}

/// The event files in a directory whose names begin with a prefix.
fn events(top: &Path, directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let found = fs::read_dir(top.join(directory)).into_iter().flatten();
    let names = found.flatten().map(|entry| entry.file_name());
    let names = names.filter(|name| {
        let name = name.as_encoded_bytes();
        name.starts_with(prefix.as_bytes()) && name.ends_with(b".jsonl")
    });
    names.map(|name| directory.join(name)).collect()
}

/// Whether the lock of an experiment is held; `None` if that is unknown.
pub(in crate::archive) fn is_experiment_locked(experiment: &Path) -> Option<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let lock = rustix::fs::openat(CWD, experiment.join("lock"), flags, Mode::empty()).ok()?;
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Some(false),
        Err(Errno::WOULDBLOCK) => Some(true),
        Err(_) => None,
    }
}

fn is_running(run: &Run) -> bool {
    let status = run.status().ok().flatten().and_then(|status| status.status);
    status == Some(RunState::Running)
}

/// Whether a run ended, or its plan removed a job, less than [`REMOVAL_WAIT`] ago.
fn has_just_changed(run: &Run) -> bool {
    let jobs = run.path.join(JOBS);
    let tasks = fs::read_dir(&jobs).into_iter().flatten().flatten();
    let tasks = tasks.map(|entry| entry.path());
    let ended = ["status.json", "environment.json"].map(|name| run.path.join(name));
    let now = SystemTime::now();
    ended.into_iter().chain([jobs]).chain(tasks).any(|path| {
        let changed = fs::symlink_metadata(path).and_then(|meta| meta.modified());
        let age = changed.map(|changed| match now.duration_since(changed) {
            Ok(age) => age,
            Err(ahead) => ahead.duration(),
        });
        age.is_ok_and(|age| age < REMOVAL_WAIT)
    })
}
