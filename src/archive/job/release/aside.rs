//! Renames jobs out of the way, and removes them or puts them back when their grace period is over.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::{Processes, Reason, Refusal, ReleaseOutcome, ReleasePlan, Released};
use crate::archive::env::Env;
use crate::archive::error::{Cause, Context, JobError, Result, StagingContext};
use crate::archive::job::ready::{LOCKED, hold_locks};
use crate::archive::job::{internal_files, preconditions};
use crate::archive::{places, state_dir};
use crate::settings::Mode;
use crate::sys::at;
use crate::sys::debug_setting;
use crate::sys::file_id::FileId;
use crate::transfer;
use crate::transfer::durable::sync_directory;
use crate::transfer::staging::Staging;
use crate::view::Location;
use crate::view::location::Role;
use crate::workspace::jobs::JobId;
use crate::workspace::layout::{RELEASED, XPMFS};
use crate::workspace::markers;

/// How long a released job is kept after its rename. Kernels cache names for a second, also on other nodes.
const GRACE: Duration = Duration::from_millis(2500);

/// How often a wait for the grace period checks whether the work is cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(100);

/// The most jobs that are renamed and not removed yet: each has some files open.
const RELEASING_MAX: usize = 64;

/// [`GRACE`], or the milliseconds that a test of a debug build sets, as for moves.
fn grace() -> Duration {
    debug_setting::milliseconds("XPMFS_TEST_GRACE_MS", GRACE)
}

/// Jobs that are renamed, and removed when their grace period is over. [`Releases::end`] must be called for all of them.
#[derive(Debug, Default)]
pub struct Releases {
    waiting: VecDeque<Releasing>,
}

/// A job whose directory is in `.xpmfs/released`.
#[derive(Debug)]
struct Releasing {
    plan: ReleasePlan,
    staging: Staging,
    /// The job's locks, shared: no process may begin to run the job.
    locks: Vec<OwnedFd>,
    /// The task's directory in `.xpmfs/released`.
    aside: OwnedFd,
    since: Instant,
}

impl Releases {
    /// Whether no job is renamed and not removed yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The bytes that will be free when the renamed jobs are removed.
    #[must_use]
    pub fn pending(&self) -> u64 {
        let freed = self.waiting.iter().map(|it| it.plan.usage.freed);
        freed.fold(0, u64::saturating_add)
    }

    /// Renames a job whose copy was verified out of the way, if it is still as it was. Returns the refusal otherwise.
    ///
    /// # Errors
    ///
    /// Fails with an error of the primary's file system; the job is then at its place.
    pub fn begin(
        &mut self,
        env: &Env<'_>,
        processes: &mut Processes,
        plan: ReleasePlan,
    ) -> Result<Option<Refusal>> {
        let job = plan.job.clone();
        let primary = env.view.primary();
        let from = places::path(primary, &job);
        let busy = |why: &str| {
            Some(Refusal {
                reason: Reason::Busy,
                why: why.to_owned(),
            })
        };
        let Some(task) = places::task(primary, &job).tried(&job, "open", &from)? else {
            return Ok(busy("another process moves it"));
        };
        let Some(staging) = Staging::take(&*task, job.hash()).beside(&job, &from)? else {
            return Ok(busy("another process archives, moves or recovers it"));
        };
        let Some(locks) = hold_locks(&plan.source, &job).tried(&job, "lock", &from)? else {
            return Ok(busy(LOCKED));
        };
        if let Some(refusal) = plan.look_again(env, processes, &task)? {
            return Ok(Some(refusal));
        }
        let names = [OsStr::new(RELEASED), job.task_id()];
        let aside = places::make_own(primary, names)
            .tried(&job, "make the directory for", &from)
            .map_err(|error| preconditions::name_own_obstacle(primary, error))?;
        let aside = at::open_to_list(&aside, OsStr::new(".")).tried(
            &job,
            "open the directory for",
            &from,
        )?;
        internal_files::remove_old_names(env.view, &job);
        match at::move_new((&*task, job.hash()), (&aside, job.hash())) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(busy("an earlier release of it is not finished")),
            Err(Errno::XDEV) => {
                let why =
                    "its directory and `.xpmfs` of the workspace are on different file systems";
                return Ok(Some(Refusal {
                    reason: Reason::Unsafe,
                    why: why.to_owned(),
                }));
            }
            Err(error) => return Err(error).tried(&job, "rename", &from),
        }
        let releasing = Releasing {
            plan,
            staging,
            locks,
            aside,
            since: Instant::now(),
        };
        env.hooks.moved(&job);
        if !releasing.is_ours(releasing.aside.as_fd()) {
            releasing.put_back(env)?;
            return Ok(busy("another directory is in its place"));
        }
        let synced = sync_directory(&releasing.aside);
        if let Err(error) = synced
            .tried(&job, "sync the directory of", &from)
            .and_then(|()| releasing.staging.sync().beside(&job, &from))
        {
            releasing.put_back(env)?;
            return Err(error);
        }
        self.waiting.push_back(releasing);
        Ok(None)
    }

    /// Removes the jobs whose grace period is over, or puts them back; with `wait`, all of them. If the work is cancelled, puts all back at once. Waits as well while too many are renamed.
    pub fn end(
        &mut self,
        env: &Env<'_>,
        processes: &mut Processes,
        wait: bool,
        report: &mut dyn FnMut(JobId, ReleaseOutcome),
    ) {
        while let Some(first) = self.waiting.front() {
            let rest = grace().saturating_sub(first.since.elapsed());
            let cancelled = env.progress.is_cancelled();
            if !rest.is_zero() && !cancelled {
                if !wait && self.waiting.len() < RELEASING_MAX {
                    return;
                }
                std::thread::sleep(rest.min(CANCEL_POLL));
                continue;
            }
            if let Some(first) = self.waiting.pop_front() {
                let job = first.plan.job.clone();
                let outcome = match cancelled {
                    true => first
                        .put_back(env)
                        .and_then(|()| Err(JobError::new(&job, Cause::Cancelled))),
                    false => first.end(env, processes),
                };
                report(job, outcome);
            }
        }
    }
}

impl Releasing {
    /// Whether the directory at the job's name in `aside` is the one that was compared.
    fn is_ours(&self, aside: impl AsFd) -> bool {
        let there = at::stat(aside, self.plan.job.hash()).map(|stat| FileId::of(&stat));
        there.is_ok_and(|there| at::file_id(&self.plan.source) == Ok(there))
    }

    fn end(self, env: &Env<'_>, processes: &mut Processes) -> ReleaseOutcome {
        let due = self.since + grace();
        let refusal = match self.plan.use_or_change(env, processes, Some(due)) {
            Ok(None) => None,
            Ok(Some(refusal)) => Some(refusal),
            Err(error) => {
                self.put_back(env)?;
                return Err(error);
            }
        };
        if let Some(refusal) = refusal {
            self.put_back(env)?;
            return Ok(Err(refusal));
        }
        let Releasing {
            plan,
            mut staging,
            locks,
            aside,
            ..
        } = self;
        let (job, folder, usage) = (plan.job, plan.folder, plan.usage);
        let primary = env.view.primary();
        let from = places::path(primary, &job);
        if let Some(folder) = places::folder(env.view, folder) {
            link(env, &job, folder, &mut staging);
        }
        remove(&job, &aside).tried(&job, "remove the released directory of", &from)?;
        drop(locks);
        // A record that stays keeps the job after its next recovery only.
        let _ = state_dir::set_kept(primary, &job, false);
        staging.finish(None).beside(&job, &from)?;
        Ok(Ok(Released { folder, usage }))
    }

    /// Renames the directory back to its place.
    fn put_back(&self, env: &Env<'_>) -> Result<()> {
        let job = &self.plan.job;
        // With the locks held.
        put_back(env, job, &self.aside, &self.plan.source, true)
    }
}

/// Makes the symlink of a released job that a `move` folder has, as a move would: the workspace's path leads to the copy. The caller has
/// the lock of the job's staging.
pub(super) fn link(env: &Env<'_>, job: &JobId, folder: &Location, staging: &mut Staging) {
    if folder.role() != Role::Folder(Mode::Move) {
        return;
    }
    let linked = staging.link(&places::path(folder, job));
    match linked.and_then(|()| staging.publish()) {
        Ok(()) => env.hooks.moved(job),
        // Another process has begun to run the job there.
        Err(transfer::staging::StagingError::Exists { .. }) => {}
        Err(error) => tracing::warn!("{job}: cannot make its symlink: {error}"),
    }
}

/// Renames a job's directory from `.xpmfs/released` back to its place, durably, and with `keep` takes its internal files over
/// ([`internal_files::put_back`]).
pub(super) fn put_back(
    env: &Env<'_>,
    job: &JobId,
    aside: &OwnedFd,
    directory: &OwnedFd,
    keep: bool,
) -> Result<()> {
    let primary = env.view.primary();
    let path = places::path(primary, job);
    let task = preconditions::make_task(primary, job, primary)?;
    let moved = internal_files::put_back(env.view, job, directory, keep, || {
        at::move_new((aside, job.hash()), (&*task, job.hash()))
    });
    match moved {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let left = released_path(primary, job);
            let why = format!(
                "it was not released, and cannot be put back since {} was made again meanwhile: it is kept in {}",
                path.display(),
                left.display()
            );
            return Err(JobError::new(job, Cause::Unsafe(why)));
        }
        Err(error) => return Err(error).tried(job, "put back", &path),
    }
    env.hooks.moved(job);
    let list = at::open_to_list(&*task, OsStr::new("."));
    let synced = list.and_then(sync_directory);
    synced.tried(job, "sync the directory of", &path)
}

/// The path of a job's directory in `.xpmfs/released`, for messages.
pub(super) fn released_path(primary: &Location, job: &JobId) -> PathBuf {
    primary.path().join(XPMFS).join(RELEASED).join(job.path())
}

/// Removes a job's directory from `.xpmfs/released`, its marker first.
pub(super) fn remove(job: &JobId, aside: &OwnedFd) -> std::io::Result<()> {
    if let Some(directory) = places::open(aside, job.hash())? {
        let done = markers::done(job.name());
        at::absent(rustix::fs::unlinkat(&directory, &done, AtFlags::empty()))?;
        sync_directory(&directory)?;
    }
    let removed = transfer::remove_tree(aside, job.hash(), None);
    removed.map_err(std::io::Error::other)
}
