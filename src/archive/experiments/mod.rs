//! Archives the runs of experiments and the partials of their jobs in `backup` folders, and brings them back.
//!
//! With them a folder is a workspace of its own: experimaestro opens it, and a primary that was lost is made from it. Read off
//! experimaestro 2.7.0:
//!
//! 1. `experiments/<id>/lock` is held from before a run's directory is made until its last file is written (`scheduler/experiment.py`,
//!    `__enter__` and `__exit__`); it guards all runs of the experiment, of which `current` names the newest. A plan that is killed leaves the
//!    lock free and its `status.json` at `running`. So a run has ended if the lock is free; while it is held, the runs that `current` does not
//!    name and that have a final status have ended ([`in_use`]).
//! 2. Afterwards `cleanup_experiment_history` removes the failed runs and all but the newest runs from the primary, with `jobs.jsonl` and so
//!    the tags. Nothing is removed from a folder because the primary lacks it.
//! 3. The jobs of a run come from its `jobs.jsonl`, and count as jobs of the workspace that is opened. `jobs/<task_id>/<hash>` in the run is an
//!    absolute symlink (`add_job_link` in `scheduler/base.py`), which is followed only where `status.json` is missing
//!    (`scheduler/state_provider.py`). In a folder it is made relative, so that it leads to the folder's jobs; a recovery makes it absolute
//!    again, below the primary's path ([`links`]).
//! 4. `current` is a relative symlink to the run (`scheduler/state_status.py`, `create_symlink`).
//! 5. A partial is shared by jobs, also of different experiments. A job that writes it holds `.experimaestro/locks/ipc.lock` in it, but only
//!    if its own class declares the partial (`core/partial_lock.py`); so the locks of the jobs that name it count too. Which jobs name it:
//!    [`crate::workspace::partials`].
//! 6. `.__experimaestro__` marks a workspace.
//!
//! What is archived, [`Item`], goes through the same steps as a job, with the same names and locks: staged beside its place, durable, looked
//! at again, renamed or exchanged ([`store`]). `move` folders receive no items: nothing is moved away from `experiments/` and `partials/`. The
//! layout of version 1 (`xp/`) has only symlinks, and is not archived.
//!
//! - [`manual`]: archives everything once, for a command
//! - [`pass`]: one pass over all experiments, for one folder; `state`: what it remembers
//! - `store`: copies one item; `compare`: whether the copy is replaced; `links`: the symlinks of a run to its jobs
//! - `in_use`: whether a run is in progress, and whether a job uses a partial
//! - `named`: the partials of a run's jobs
//! - [`damage`]: records damaged copies; [`copies`]: where runs lie; [`recover`]: copies runs and partials back into the primary; [`export`]: copies a run
//!   for another workspace; [`verify`]: reads copies again

mod compare;
pub mod copies;
pub mod damage;
pub mod export;
mod in_use;
mod links;
pub mod manual;
mod named;
pub mod pass;
pub mod recover;
mod state;
mod store;
pub mod verify;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use rustix::io::Result;

use crate::view::Location;
use crate::workspace::layout::{EXPERIMENTS, PARTIALS};
use crate::workspace::partials::PartialId;

/// What is archived besides jobs: a directory that is copied as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// `experiments/<id>/<run>`.
    Run(RunName),
    /// `partials/<task_id>/<partial>/<identifier>`.
    Partial(PartialId),
}

/// A run, by its experiment and its own id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunName {
    /// The experiment.
    pub experiment: OsString,
    /// The run.
    pub run: OsString,
}

impl Item {
    /// The directories above it, from the top of a location.
    fn parents(&self) -> Vec<&OsStr> {
        match self {
            Item::Run(run) => vec![OsStr::new(EXPERIMENTS), &run.experiment],
            Item::Partial(partial) => {
                let [task, name, _] = partial.parts();
                vec![OsStr::new(PARTIALS), task, name]
            }
        }
    }

    /// Its own name.
    fn name(&self) -> &OsStr {
        match self {
            Item::Run(run) => &run.run,
            Item::Partial(partial) => {
                let [.., identifier] = partial.parts();
                identifier
            }
        }
    }

    /// Its path in a location, for messages.
    #[must_use]
    pub fn path(&self, location: &Location) -> PathBuf {
        let mut path = location.path().to_owned();
        path.extend(self.parents());
        path.push(self.name());
        path
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.experiment.display(), self.run.display())
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Run(run) => run.fmt(f),
            Item::Partial(partial) => partial.fmt(f),
        }
    }
}

/// The path of a location by its descriptor: the primary's own path may lead into our mount.
pub(in crate::archive) fn top(location: &Location) -> Result<PathBuf> {
    let root = location.root()?;
    Ok(PathBuf::from(format!(
        "/proc/self/fd/{}",
        root.fd().as_raw_fd()
    )))
}

/// A message about a path below [`top`], with the location's own path.
pub(in crate::archive) fn shown(location: &Location, message: &impl fmt::Display) -> String {
    let message = message.to_string();
    match top(location) {
        Ok(top) => message.replace(&*top.to_string_lossy(), &location.path().to_string_lossy()),
        Err(_) => message,
    }
}
