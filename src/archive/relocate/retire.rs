//! Keeps the directories of moved jobs for a grace period, and then removes them.
//!
//! A process that was resolving a path into the directory when the symlink replaced it still finds its files. If a process writes to
//! the directory meanwhile, the directory is put back.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::archive::env::{Env, Writing};
use crate::archive::job::ready::no_reply;
use crate::archive::job::{internal_files, select};
use crate::archive::places;
use crate::sys::debug_setting;
use crate::transfer::staging::Staging;
use crate::transfer::{Candidate, Copied, writers};
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

/// How long a directory is kept after a symlink has replaced it. Kernels cache names for a second.
const GRACE: Duration = Duration::from_millis(2500);

/// [`GRACE`], or the milliseconds that a test of a debug build sets. A release build reads no variable: the environment of
/// a caller must not shorten what protects a file that is still being written.
fn grace() -> Duration {
    debug_setting::milliseconds("XPMFS_TEST_GRACE_MS", GRACE)
}

/// The most directories that are kept at the same time.
const RETIRING_MAX: usize = 2048;

/// The process's limit of descriptors divided by the directories that are kept: each has some files open.
const DESCRIPTORS_PER_RETIRING: u64 = 32;

fn most() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let share = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit / DESCRIPTORS_PER_RETIRING).unwrap_or(usize::MAX)
    });
    share.clamp(8, RETIRING_MAX)
}

/// A directory that will be removed. Its name in the primary is `.tmp.<hash>`.
#[derive(Debug)]
pub(super) struct Retiring {
    job: JobId,
    staging: Staging,
    copied: Copied,
    directory: OwnedFd,
    /// The job's locks, shared: a program of another node that still finds this directory under the job's name must not begin to run the
    /// job, which a second program would lock at its new place.
    locks: Vec<OwnedFd>,
    /// The target of the symlink.
    target: PathBuf,
    since: Instant,
}

impl Retiring {
    /// A directory that a symlink to `target` has just replaced, and the job's locks in it; `copied` is what was read of it.
    pub(super) fn new(
        job: JobId,
        staging: Staging,
        (copied, directory): (Copied, OwnedFd),
        locks: Vec<OwnedFd>,
        target: PathBuf,
    ) -> Retiring {
        Retiring {
            job,
            staging,
            copied,
            directory,
            locks,
            target,
            since: Instant::now(),
        }
    }

    /// Whether the symlink leads to a finished copy. A network file system, which caches names, might have taken this directory for the
    /// copy when they were exchanged.
    fn has_copy(&self) -> bool {
        let marker = self.target.join(markers::done(self.job.name()));
        rustix::fs::stat(&marker).is_ok()
    }
}

/// The directories that will be removed, and the jobs that were put back instead.
#[derive(Debug, Default)]
pub struct Retired {
    waiting: Mutex<VecDeque<Retiring>>,
    /// How many directories are being removed now.
    going: AtomicUsize,
    back: Mutex<Vec<JobId>>,
}

impl Retired {
    pub(super) fn add(&self, retiring: Retiring) {
        self.waiting.lock().push_back(retiring);
    }

    /// When the next directory is due, if any waits.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.waiting
            .lock()
            .front()
            .map(|first| first.since + grace())
    }

    /// Whether no directory waits or is being removed, and no job that was put back is still to be reported.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // In the order in which a directory goes through them.
        let waiting = self.waiting.lock();
        waiting.is_empty() && self.going.load(Ordering::SeqCst) == 0 && self.back.lock().is_empty()
    }

    /// Reports each job that was put back since the last call: it must be archived again. Until all are reported,
    /// [`Retired::is_empty`] is false.
    pub fn report_put_back(&self, report: &mut dyn FnMut(JobId)) {
        self.back.lock().drain(..).for_each(report);
    }

    pub(super) fn put_back(&self, job: JobId) {
        self.back.lock().push(job);
    }

    /// Removes the directories that are due; with `wait`, waits for all. Waits as well while more than the maximum are kept.
    pub fn clear(&self, env: &Env<'_>, wait: bool) {
        loop {
            let first = {
                let mut waiting = self.waiting.lock();
                let Some(first) = waiting.front() else { return };
                let rest = grace().saturating_sub(first.since.elapsed());
                if rest.is_zero() {
                    self.going.fetch_add(1, Ordering::SeqCst);
                    waiting.pop_front()
                } else if wait || waiting.len() > most() {
                    drop(waiting);
                    std::thread::sleep(rest);
                    continue;
                } else {
                    return;
                }
            };
            if let Some(first) = first {
                let _going = Going(&self.going);
                self.remove(env, first);
            }
        }
    }

    fn remove(&self, env: &Env<'_>, retiring: Retiring) {
        let has_copy = retiring.has_copy();
        let Retiring {
            job,
            mut staging,
            copied,
            directory,
            locks,
            target,
            ..
        } = retiring;
        let select = |candidate: &Candidate<'_>| select::is_copied(&job, candidate);
        let path = places::path(env.view.primary(), &job);
        // In this order: a process that closes a file between the two checks has changed the directory, which the second detects.
        // A program that waits for the job's recovery has opened the copy.
        let writing = match env.hooks.open_for_writing(&job) {
            Writing::No
                if matches!(
                    writers::being_written(&directory, &copied.manifest),
                    Ok(None)
                ) =>
            {
                None
            }
            Writing::Unknown(mount) => Some(no_reply(&mount)),
            Writing::No | Writing::Yes => Some("it is open for writing".to_owned()),
        };
        let unchanged = copied.unchanged_but_renamed(&directory, Some(&select));
        let done = match unchanged {
            Ok(()) if has_copy && writing.is_none() => {
                let done = staging.finish(None);
                drop(locks);
                done
            }
            changed => {
                let how = match changed {
                    Ok(()) if !has_copy => {
                        format!("its copy is not at {} any more", target.display())
                    }
                    Ok(()) => writing.unwrap_or_default(),
                    Err(error) => format!("it was written to: {error}"),
                };
                tracing::warn!("{job} is put back in the primary: {how}");
                let undone =
                    internal_files::put_back(env.view, &job, &directory, true, || staging.undo());
                undone.and_then(|_| {
                    drop(locks);
                    env.hooks.moved(&job);
                    staging.sync()?;
                    self.put_back(job.clone());
                    staging.finish(None)
                })
            }
        };
        if let Err(error) = done {
            tracing::warn!("cannot clean up beside {}: {error}", path.display());
        }
    }
}

/// Counts a directory that is being removed.
struct Going<'a>(&'a AtomicUsize);

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
