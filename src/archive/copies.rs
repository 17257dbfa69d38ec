//! Lists every copy of a job: the primary's and each folder's, waiting for no folder longer than a deadline.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustix::io::{Errno, Result};

use super::{last_verify, pins, places, state_dir};
use crate::archive::job::manifests::{self, Recorded};
use crate::archive::job::opt_out::{OptOut, OptOuts};
use crate::archive::job::select;
use crate::sys::at;
use crate::sys::deadline::Asker;
use crate::transfer::{self, Candidate, Options, Size};
use crate::view::location::why_not;
use crate::view::{Location, PRIMARY, Standing, View};
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

/// How long to wait for the reply of a folder about one job, and for the size of a copy without a manifest.
const COPIES_TIMEOUT: Duration = Duration::from_secs(5);

/// The most copies without a manifest whose size is still being measured after the deadline. No more are measured then.
const LATE_SIZES_MAX: usize = 8;

/// Where a job is, and what is recorded of it.
#[derive(Debug)]
pub struct JobCopies {
    /// The primary's first, then one for each folder in the order of the settings.
    pub copies: Vec<JobCopy>,
    /// The number of the location that serves the job, if one does.
    pub served: Option<u8>,
    /// Whether it is pinned: never released.
    pub pinned: bool,
    /// Whether it was recovered on request, and stays in the primary in spite of a `move` folder.
    pub kept: bool,
    /// A file that was removed from it through a mount, and that a folder has: the primary serves what it has of the job.
    pub removed: Option<PathBuf>,
    /// How it is opted out, if so.
    pub opted_out: Option<OptOut>,
    /// What could not be read of these, as sentences.
    pub unknown: Vec<String>,
}

/// What one location has of a job.
#[derive(Debug)]
pub struct JobCopy {
    /// The location's number.
    pub location: u8,
    /// Where the job is, or would be.
    pub path: PathBuf,
    /// What is there.
    pub state: CopyState,
    /// Whether it has its marker of success.
    pub finished: bool,
    /// Whether it is on record in a folder that cannot be used now.
    pub recorded: bool,
    /// Whether it has a manifest; never in the primary.
    pub manifest: bool,
    /// Files and bytes: of the manifest, or else what is there. `None` if that takes too long.
    pub size: Option<Size>,
    /// When the copy was last read as a whole and found intact, if that is known.
    pub verified: Option<Timestamp>,
    /// What `verify` found wrong with it, if anything.
    pub damage: Option<String>,
}

/// What a location has under a job's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyState {
    /// Nothing.
    Absent,
    /// The job's directory.
    Present,
    /// What a purge has left of the job; never in a folder.
    Purged,
    /// A symlink with this target.
    Link(OsString),
    /// Neither a directory nor a symlink.
    File,
    /// Nothing, but a manifest or a record: the copy is lost.
    Lost,
    /// The location cannot be used; in a few words.
    Offline(String),
}

/// What a location replied.
struct Reply {
    state: CopyState,
    directory: Option<OwnedFd>,
    finished: bool,
    recorded: Option<Recorded>,
}

/// Looks for copies of jobs; for one command.
#[derive(Debug)]
pub struct CopySearch<'a> {
    view: &'a Arc<View>,
    out: &'a OptOuts,
    sizes: Asker,
}

impl<'a> CopySearch<'a> {
    /// In this view; `out` decides which jobs are opted out.
    #[must_use]
    pub fn new(view: &'a Arc<View>, out: &'a OptOuts) -> CopySearch<'a> {
        CopySearch {
            view,
            out,
            sizes: Asker::new(LATE_SIZES_MAX),
        }
    }

    /// Lists the copies of a job. A folder that does not reply in time is reported as offline, and not asked again while its reply is late.
    #[must_use]
    pub fn of(&self, job: &JobId) -> JobCopies {
        let primary = self.view.primary();
        let mut unknown = Vec::new();
        let mut known = |result: std::result::Result<bool, String>| {
            result.unwrap_or_else(|why| {
                unknown.push(why);
                false
            })
        };
        let pinned =
            pins::is_pinned(primary, job).map_err(|error| pins::explain(primary, job, error));
        let pinned = known(pinned);
        let kept = state_dir::is_kept(primary, job);
        let kept = known(kept.map_err(|error| state_dir::explain(primary, error)));
        let locations = self.view.locations().iter();
        let mut copies: Vec<JobCopy> = locations.map(|location| self.copy(location, job)).collect();
        let standing = self.standing(job);
        if standing
            .as_ref()
            .is_some_and(|it| matches!(it, Standing::Purged { .. }))
            && let Some(first) = copies.first_mut()
        {
            first.state = CopyState::Purged;
        }
        let opted_out = places::job(primary, job).and_then(|directory| {
            let directory = directory.as_ref();
            self.out.how(self.view, job, directory)
        });
        let opted_out = opted_out.unwrap_or_else(|error| {
            unknown.push(state_dir::explain(primary, error));
            None
        });
        JobCopies {
            copies,
            served: self.served(job),
            pinned,
            kept,
            removed: standing.and_then(|standing| match standing {
                Standing::Living { removed } => removed,
                Standing::Purged { .. } => None,
            }),
            opted_out,
            unknown,
        }
    }

    /// Whether a purge has left the job's directory in the primary; `None` if there is none, or a folder does not reply.
    fn standing(&self, job: &JobId) -> Option<Standing> {
        let (view, job) = (self.view.clone(), job.clone());
        let standing = self.sizes.ask(COPIES_TIMEOUT, move || view.standing(&job));
        standing.ok()?.ok()?
    }

    /// The location that serves a job. `None` if no location does, or one of them does not reply.
    fn served(&self, job: &JobId) -> Option<u8> {
        let (view, job) = (self.view.clone(), job.clone());
        let resolve = move || view.resolve(job.task_id(), job.hash());
        let served = self.sizes.ask(COPIES_TIMEOUT, resolve);
        let served = served.ok()?.ok()??;
        Some(served.location())
    }

    fn copy(&self, location: &Arc<Location>, job: &JobId) -> JobCopy {
        let mut copy = JobCopy {
            location: location.index(),
            path: places::path(location, job),
            state: CopyState::Absent,
            finished: false,
            recorded: false,
            manifest: false,
            size: None,
            verified: None,
            damage: None,
        };
        // It was deleted, and goes to the trash of the folder.
        if location.has_deleted(job.task_id(), job.hash()) {
            return copy;
        }
        let question = {
            let (location, job) = (location.clone(), job.clone());
            move || look(&location, &job)
        };
        let reply = match location.answer(COPIES_TIMEOUT, question) {
            Ok(Ok(reply)) => reply,
            Ok(Err(errno)) | Err(errno) => {
                copy.state = CopyState::Offline(why_not(errno));
                let view = self.view;
                copy.recorded = view.has_on_record(location, job.task_id(), job.hash());
                return copy;
            }
        };
        copy.finished = reply.finished;
        copy.manifest = reply.recorded.is_some();
        copy.size = match (&reply.recorded, reply.directory) {
            (Some(recorded), _) => recorded.size,
            (None, Some(directory)) => self.measured(job, directory),
            (None, None) => None,
        };
        copy.state = reply.state;
        if location.index() != PRIMARY {
            let primary = self.view.primary();
            let damage = state_dir::damage_of(primary, location, job);
            copy.damage = damage.unwrap_or_default();
            if copy.state == CopyState::Absent && copy.damage.is_some() {
                copy.state = CopyState::Lost;
            }
            copy.verified = reply.recorded.and_then(|recorded| {
                let whole = copy.state == CopyState::Present && copy.damage.is_none();
                let last = || last_verify::of_copy(primary, location, job, recorded.written);
                whole.then(last)?.ok()?
            });
        }
        copy
    }

    /// Files and bytes of a copy, if they can be measured in time.
    fn measured(&self, job: &JobId, directory: OwnedFd) -> Option<Size> {
        let job = job.clone();
        let measure = move || {
            let select = |candidate: &Candidate<'_>| select::is_copied(&job, candidate);
            let options = Options {
                select: Some(&select),
                threads: 1,
                ..Options::default()
            };
            transfer::measure(&directory, &options).ok()
        };
        let measured = self.sizes.ask(COPIES_TIMEOUT, measure);
        Some(measured.ok()??.size)
    }
}

/// Looks at what a location has of a job. Waits for its file system.
fn look(location: &Location, job: &JobId) -> Result<Reply> {
    let mut reply = Reply {
        state: CopyState::Absent,
        directory: None,
        finished: false,
        recorded: None,
    };
    if location.index() != PRIMARY {
        reply.recorded = manifests::recorded(location, job)?;
    }
    let task = places::task(location, job)?;
    let found = match &task {
        Some(task) => at::absent(at::stat(&**task, job.hash()))?,
        None => None,
    };
    let (Some(task), Some(stat)) = (task, found) else {
        if reply.recorded.is_some() {
            reply.state = CopyState::Lost;
        }
        return Ok(reply);
    };
    if at::is_symlink(&stat) {
        reply.state = CopyState::Link(at::read_link(&*task, job.hash())?);
        return Ok(reply);
    }
    reply.state = match places::open(&*task, job.hash())? {
        None => CopyState::File,
        Some(directory) => {
            let finished = markers::is_done(&directory, job.name());
            reply.finished =
                finished.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            reply.directory = Some(directory);
            CopyState::Present
        }
    };
    Ok(reply)
}
