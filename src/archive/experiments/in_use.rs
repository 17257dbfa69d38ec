//! Whether a run is in progress, and whether a job uses a partial.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::{Errno, Result};

use crate::archive::job::ready;
use crate::archive::job::transient;
use crate::archive::places;
use crate::sys::at;
use crate::view::View;
use crate::view::jobs::names;
use crate::workspace::experiments::Experiment;
use crate::workspace::jobs::{JobId, name};
use crate::workspace::layout::JOB_STATE;
use crate::workspace::markers;
use crate::workspace::partials::{self, PartialId};
use crate::workspace::runs::{Run, RunId, RunState};

/// Which runs of an experiment may be in progress.
#[derive(Debug)]
pub(super) struct InProgress {
    /// Whether the experiment's lock is held; `None` if that is unknown.
    locked: Option<bool>,
    /// The run that `current` names.
    pub(super) current: Option<RunId>,
}

impl InProgress {
    /// Looks at the lock of an experiment.
    pub(super) fn of(experiment: &Experiment) -> InProgress {
        InProgress {
            // In this order: a run that begins in between has the lock, and is not named yet.
            current: experiment.current().unwrap_or_default(),
            locked: transient::is_experiment_locked(&experiment.path),
        }
    }

    /// Whether a run may be in progress.
    pub(super) fn is(&self, run: &Run) -> bool {
        let status = || run.status().ok().flatten().and_then(|status| status.status);
        match self.locked {
            Some(false) => false,
            // The run that holds the lock has no final status before its end, or is the current one. The others have ended.
            Some(true) => {
                let ended = matches!(status(), Some(RunState::Done | RunState::Failed));
                !ended
                    || self
                        .current
                        .as_ref()
                        .is_none_or(|current| *current == run.id)
            }
            // Some versions of filelock remove the file when they release the lock.
            None => status() == Some(RunState::Running),
        }
    }
}

/// Whether a job holds the lock of the partial in this directory.
pub(super) fn is_partial_locked(partial: impl AsFd) -> Result<bool> {
    let names = [OsStr::new(JOB_STATE), OsStr::new("locks")];
    let Some(locks) = at::absent(at::open_dirs(partial, names.into_iter()))? else {
        return Ok(false);
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(lock) = rustix::fs::openat(locks, "ipc.lock", flags, Mode::empty()) else {
        return Ok(false);
    };
    let locked = flock(&lock, FlockOperation::NonBlockingLockShared);
    Ok(locked == Err(Errno::WOULDBLOCK))
}

/// The partials that running jobs name.
#[derive(Debug, Default)]
pub(super) struct UsedPartials {
    named: BTreeSet<PartialId>,
    /// A running job whose partials are unknown, and why.
    unknown: Option<String>,
}

impl UsedPartials {
    /// Looks at all jobs of the primary that have no marker of success: one system call for each finished job, so this is done only when a
    /// partial is about to be copied.
    ///
    /// # Errors
    ///
    /// The jobs of the primary cannot be listed.
    pub(super) fn of(view: &View, stop: &dyn Fn() -> bool) -> Result<UsedPartials> {
        let mut used = UsedPartials::default();
        let root = view.primary().root()?;
        let Some(jobs) = at::absent(root.jobs())? else {
            return Ok(used);
        };
        for task in names(&jobs)? {
            let Some(directory) = at::absent(at::open_dir(&jobs, &task))? else {
                continue;
            };
            let done = markers::done(name(&task));
            for hash in names(&directory)? {
                if stop() {
                    return Ok(used);
                }
                let marker = Path::new(&hash).join(&done);
                if at::stat_at(&directory, marker.as_os_str()).is_ok() {
                    continue;
                }
                if let (Ok(job), Ok(Some(opened))) =
                    (JobId::new(&task, &hash), places::open(&directory, &hash))
                {
                    used.add(view, &job, &opened);
                }
            }
        }
        Ok(used)
    }

    fn add(&mut self, view: &View, job: &JobId, directory: &OwnedFd) {
        // A lock that cannot be looked at may be held.
        if !ready::is_locked(directory, job).unwrap_or(true) {
            return;
        }
        let primary = view.primary();
        match partials::named_by(directory, primary.path(), &places::path(primary, job)) {
            Ok(named) => self.named.extend(named),
            Err(error) => {
                let why = format!("{job} runs, and which partials it uses is unknown: {error}");
                self.unknown.get_or_insert(why);
            }
        }
    }

    /// Why a partial must not be copied now, if so.
    pub(super) fn why(&self, partial: &PartialId) -> Option<String> {
        match self.named.contains(partial) {
            true => Some("a job that names it runs".to_owned()),
            false => self.unknown.clone(),
        }
    }
}
