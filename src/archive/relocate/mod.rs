//! Stores jobs in folders for the engine and `manual` ([`store_and_move`]), and moves them to a `move` folder: the primary's directory of a
//! job is replaced by a symlink to its copy, and removed.
//!
//! ```text
//!            copy            rename, sync           exchange           sync               grace over
//! (original) ────▶ copied ────────────────▶ placed ──────────▶ swapped ──────▶ retiring ────────────▶ gone
//!                                             ▲                   │               │
//!                                             └────── put back ◀──┴───────────────┘
//!                                                     the directory was written to, or the copy cannot be reached
//! ```
//!
//! `H` is `<hash>`, `T` is `.tmp.<hash>`, both in the task's directory; `T` is guarded by a lock on `.tmp.<hash>.lock` there.
//!
//! | state | in the folder | `H` in the primary | `T` in the primary | made by |
//! | --- | --- | --- | --- | --- |
//! | copied | `T`: the copy | the directory | - | [`job::store`](super::job::store), step 1 |
//! | placed | `H`: the copy, durable, with its manifest | the directory | -, at last the symlink | `job::store`, step 2; `swap` |
//! | swapped | as before | the symlink | the directory | `swap` |
//! | retiring | as before | the symlink, durable | the directory | `swap`; kept in [`Retired`] |
//! | gone | as before | the symlink | - | [`Retired::clear`] |
//! | put back | as before | the directory | the symlink, then - | `swap`, [`Retired::clear`], [`unfinished`] |
//!
//! After a crash, all locks are free. After each scan of a folder, the engine calls [`unfinished`] for each task in which the scan
//! found a staging, and [`job::crash_recovery`](super::job::crash_recovery) runs before each comparison of all markers. Commands that
//! archive or recover call both first. What is found, and who finishes it:
//!
//! | crash in | left behind | finished by |
//! | --- | --- | --- |
//! | copied | an unfinished copy | the next copy to the task's directory, or [`job::crash_recovery`](super::job::crash_recovery): removes it |
//! | placed | two copies; perhaps a symlink `T` | [`unfinished`] removes `T`. The engine hands the job over again: `job::store` finds the same copy, and moves the job |
//! | swapped | the old directory as `T` | [`unfinished`] removes it, or puts it back if it is newer than the copy, open for writing, or the only copy. A power cut may have undone the exchange: as placed |
//! | retiring | the old directory as `T` | as swapped |
//! | put back | perhaps a symlink `T` | as placed |
//!
//! Where the file system cannot exchange two entries in one step, a crash may also leave `.replaced.<hash>`; the next process that takes
//! the lock renames or removes it ([`staging`](crate::transfer::staging)).
//!
//! - `swap`: replaces the directory; [`retire`]: removes replaced directories later; [`unfinished`]: finishes after a crash
//!
//! Called by `engine`, `manual`, and `cli`, which keeps the [`Retired`] of its command; calls `job`.

pub mod retire;
mod swap;
pub mod unfinished;

use self::retire::Retired;
use crate::archive::env::Env;
use crate::archive::error::Result;
use crate::archive::job::store::{self, Due, Stored};

/// Copies jobs of the primary to one folder ([`store::store`]); those that a `move` folder has then are moved.
///
/// # Errors
///
/// Each job has its own; a job that fails stays in the primary.
pub fn store_and_move(
    env: &Env<'_>,
    retired: &Retired,
    folder: u8,
    jobs: &[Due],
) -> Vec<Result<Stored>> {
    store::store(env, folder, jobs, &|location, job, copied, source| {
        swap::swap(env, retired, location, job, copied, source)
    })
}
