//! Directories of jobs that have been moved: they are kept for a moment, and then removed.
//!
//! Whoever was on the way into such a directory when a symlink took its place still finds all that it holds. And should
//! somebody write into it in that moment, it is put back.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::archive::env::{Env, Writing};
use crate::archive::job::ready::no_reply;
use crate::archive::job::select;
use crate::archive::places;
use crate::transfer::staging::Staging;
use crate::transfer::{Candidate, Copied, writers};
use crate::workspace::jobs::JobId;
use crate::workspace::markers;

/// How long a directory is kept after a symlink has taken its place. Kernels believe names for a second.
const GRACE: Duration = Duration::from_millis(2500);

/// [`GRACE`], or the milliseconds that a test of a debug build sets. A release build reads no variable: the environment of
/// a caller must not shorten what protects a file that is still being written.
fn grace() -> Duration {
    static SET: LazyLock<Option<Duration>> = LazyLock::new(|| {
        let set = std::env::var("XPMFS_TEST_GRACE_MS").ok()?;
        set.parse().ok().map(Duration::from_millis)
    });
    match cfg!(debug_assertions) {
        true => SET.unwrap_or(GRACE),
        false => GRACE,
    }
}

/// How many are kept at the same time at most, and of how many files that may be open one of them takes its share: each keeps
/// some open.
const RETIRING_MAX: usize = 2048;
const DESCRIPTORS_PER_RETIRING: u64 = 32;

fn most() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let share = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit / DESCRIPTORS_PER_RETIRING).unwrap_or(usize::MAX)
    });
    share.clamp(8, RETIRING_MAX)
}

/// A directory that is to be removed. It has the name of its staging in the primary.
#[derive(Debug)]
pub(super) struct Retiring {
    job: JobId,
    staging: Staging,
    copied: Copied,
    directory: OwnedFd,
    /// Where the symlink leads.
    target: PathBuf,
    since: Instant,
}

impl Retiring {
    /// From now on; `copied` is what was read of the directory, and `target` where the symlink leads.
    pub(super) fn new(
        job: JobId,
        staging: Staging,
        (copied, directory): (Copied, OwnedFd),
        target: PathBuf,
    ) -> Retiring {
        Retiring {
            job,
            staging,
            copied,
            directory,
            target,
            since: Instant::now(),
        }
    }

    /// Whether a copy is there, finished. Whoever remembers names, as file systems of the network do, might have taken this directory
    /// for its own copy when it was exchanged.
    fn has_copy(&self) -> bool {
        let marker = self.target.join(markers::done(self.job.name()));
        rustix::fs::stat(&marker).is_ok()
    }
}

/// The directories that are to be removed, and the jobs that have come back instead.
#[derive(Debug, Default)]
pub struct Retired {
    waiting: Mutex<VecDeque<Retiring>>,
    /// How many are being removed now.
    going: AtomicUsize,
    back: Mutex<Vec<JobId>>,
}

impl Retired {
    pub(super) fn add(&self, retiring: Retiring) {
        self.waiting.lock().push_back(retiring);
    }

    /// When the next one is due, if any waits.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.waiting
            .lock()
            .front()
            .map(|first| first.since + grace())
    }

    /// Whether nothing is left to be done: no directory waits or is being removed, and nobody is to be told of a job that
    /// came back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // In the order in which they follow each other.
        let waiting = self.waiting.lock();
        waiting.is_empty() && self.going.load(Ordering::SeqCst) == 0 && self.back.lock().is_empty()
    }

    /// Tells of each job that has been put back since this was called last: it is to be archived again. Until all are told,
    /// [`Retired::is_empty`] waits.
    pub fn report_put_back(&self, tell: &mut dyn FnMut(JobId)) {
        self.back.lock().drain(..).for_each(tell);
    }

    pub(super) fn put_back(&self, job: JobId) {
        self.back.lock().push(job);
    }

    /// Removes those that are due; with `wait`, all, when they are. Waits, too, while there are too many.
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
            target,
            ..
        } = retiring;
        let select = |candidate: &Candidate<'_>| select::is_copied(&job, candidate);
        let path = places::path(env.view.primary(), &job);
        // In this order: whoever closes a file between the two has changed what is looked at then.
        let writing = match env.hooks.writing(&job) {
            Writing::No if matches!(writers::written(&directory, &copied.manifest), Ok(None)) => {
                None
            }
            Writing::Unknown(mount) => Some(no_reply(&mount)),
            Writing::No | Writing::Yes => Some("it is being written".to_owned()),
        };
        let unchanged = copied.unchanged_but_renamed(&directory, Some(&select));
        let done = match unchanged {
            Ok(()) if has_copy && writing.is_none() => staging.finish(None),
            changed => {
                let how = match changed {
                    Ok(()) if !has_copy => {
                        format!("its copy is not at {} any more", target.display())
                    }
                    Ok(()) => writing.unwrap_or_default(),
                    Err(error) => format!("it was written to: {error}"),
                };
                tracing::warn!("{job} is put back where it was moved from: {how}");
                staging.undo().and_then(|_| {
                    env.hooks.moved(&job);
                    staging.sync()?;
                    self.put_back(job.clone());
                    staging.finish(None)
                })
            }
        };
        if let Err(error) = done {
            tracing::warn!("cannot clear up beside {}: {error}", path.display());
        }
    }
}

/// Counts one that is being removed.
struct Going<'a>(&'a AtomicUsize);

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
