//! Copies jobs to a folder: each appears there whole or not at all, and is durable before it does.
//!
//! The steps are those of experimaestro's `folders.py`, with its names and locks; but jobs go in batches, so that one `syncfs` makes
//! a whole batch durable:
//!
//! 1. `stage`: locks each job's staging directory, compares the job with the folder's copy, and copies it if it is due
//! 2. `complete`: makes the copies durable, checks each source again, renames the copies into place, makes the names durable
//! 3. `complete` again, in a `move` folder: replaces the primary's directory by a symlink ([`Relocate`])
//!
//! While one batch is completed, the next is staged.
//!
//! - `batch`: the types that the steps share; `comparison`: how a job compares with the folder's copy; `outcome`: the result

mod batch;
mod comparison;
mod complete;
mod outcome;
mod stage;

use std::path::Path;

use rustix::process::{Resource, getrlimit};

pub use self::batch::Relocate;
use self::batch::Store;
pub use self::outcome::{Due, Skipped, Stored};
use crate::archive::env::Env;
use crate::archive::error::{Cause, JobError, Result};
use crate::archive::parallel::Aside;
use crate::archive::places;
use crate::settings::Mode;
use crate::view::Location;
use crate::view::location::Role;

/// The most jobs in a batch.
const BATCH_JOBS_MAX: u64 = 256;

/// A batch ends after this many bytes.
const BATCH_BYTES_MAX: u64 = 512 << 20;

/// The process's limit of descriptors divided by the jobs in a batch: each staged job has four open, two batches are in progress at once,
/// and half of the descriptors is for other uses.
const DESCRIPTORS_PER_JOB: u64 = 16;

/// Copies jobs of the primary to one folder, except those of which the folder has an identical or newer copy. Calls `relocate` for each
/// job that a `move` folder has then. Returns the result of each job, in order.
///
/// The caller checks that the jobs are ready.
///
/// # Errors
///
/// Each job has its own; none leaves a partial copy under the job's name.
pub fn store(
    env: &Env<'_>,
    folder: u8,
    jobs: &[Due],
    relocate: &Relocate<'_>,
) -> Vec<Result<Stored>> {
    let unusable = |why: &str, path: &Path| {
        let error = |due: &Due| {
            let (folder, why) = (path.to_owned(), why.to_owned());
            Err(JobError::new(&due.job, Cause::Folder { folder, why }))
        };
        jobs.iter().map(error).collect()
    };
    let Some(location) = places::folder(env.view, folder) else {
        return unusable("there is no such folder", Path::new(""));
    };
    let relocate = match location.role() {
        Role::Folder(Mode::Backup) => None,
        Role::Folder(Mode::Move) => Some(relocate),
        _ => return unusable("nothing is archived there", location.path()),
    };
    let store = Store::new(env, location, env.view.primary(), relocate);
    store_batches(&store, jobs)
}

/// Copies jobs that were moved to the folder `source` from there to a `backup` folder. Returns the result of each job, in order.
///
/// # Errors
///
/// As [`store`]; or the copy in `source` has no manifest, or does not match it.
pub(in crate::archive) fn store_from(
    env: &Env<'_>,
    source: &Location,
    folder: &Location,
    jobs: &[Due],
) -> Vec<Result<Stored>> {
    store_batches(&Store::new(env, folder, source, None), jobs)
}

/// Stores jobs batch after batch: while one is completed, the next is staged.
fn store_batches(store: &Store<'_>, jobs: &[Due]) -> Vec<Result<Stored>> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let count = (limit / DESCRIPTORS_PER_JOB).clamp(1, BATCH_JOBS_MAX);
    let count = usize::try_from(count).unwrap_or(1);
    let mut results = Vec::with_capacity(jobs.len());
    std::thread::scope(|scope| {
        let mut before = None;
        let mut rest = jobs;
        while !rest.is_empty() {
            let batch = match store.batch() {
                Ok(batch) => batch,
                Err(error) => {
                    results.extend(before.take().map_or_else(Vec::new, Aside::wait));
                    let refused = rest
                        .iter()
                        .map(|due| Err(store.not_opened(&due.job, &error)));
                    return results.extend(refused);
                }
            };
            let staged = batch.stage_all(rest.get(..count).unwrap_or(rest), BATCH_BYTES_MAX);
            let (together, others) = rest.split_at(staged.len().min(rest.len()));
            rest = others;
            results.extend(before.take().map_or_else(Vec::new, Aside::wait));
            let complete = move || batch.complete(together, staged);
            match rest.is_empty() {
                true => results.extend(complete()),
                false => before = Some(Aside::start(scope, "xpmfs-places", complete)),
            }
        }
    });
    results
}
