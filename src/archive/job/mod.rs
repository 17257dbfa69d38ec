//! Operations on one job, and on several in one call; each returns when it is done.
//!
//! - [`ready`]: whether a job is finished and settled; [`opt_out`]: whether a person, a tag or the settings exclude it; `transient`:
//!   whether its plan may still remove it
//! - [`store`]: copies jobs to a folder, each whole or not at all; `renew`: makes missing and damaged backups of a moved job
//! - `preconditions`: what is checked before a job is copied or moved; `backups`: whether the `backup` folders have a job
//! - [`compare`]: which of two copies of a job is kept; [`select`]: which files of a job are copied
//! - [`recover`]: copies a job back into the primary, also in place of what a purge has left of it (`skeleton`); `publish`: gives it its name; `params`: the paths in
//!   the `params.json` of a recovered job; [`verify`]: reads an archived copy and compares it; [`export`]: copies a job for
//!   another workspace
//! - [`release`]: decides whether the primary's copy of a job may be dropped, and drops it; [`usage`]: when a job was last used, and
//!   how much space it takes
//! - [`trash`]: deletes a job in all locations, and brings it back
//! - `internal_files`: what the primary kept for an archived job, which the recovered job gets
//! - [`manifests`]: the record of each archived copy, in its folder
//! - [`crash_recovery`]: removes unfinished copies from folders, and rewrites manifests that a power cut has emptied
//!
//! Called by the other modules of `archive`, and by the rooms above.

pub(super) mod backups;
pub mod compare;
pub mod crash_recovery;
pub mod export;
pub(super) mod internal_files;
pub mod manifests;
pub mod opt_out;
mod params;
mod preconditions;
mod publish;
pub mod ready;
pub mod recover;
pub mod release;
pub(super) mod renew;
pub mod select;
mod skeleton;
pub mod store;
pub(super) mod transient;
pub mod trash;
pub mod usage;
pub mod verify;
