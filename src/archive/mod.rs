//! All that is done to jobs and involves folders: archives, moves, recovers, verifies, releases, deletes and lists them.
//!
//! - [`job`]: operations on one job, or on several in one call: whether it may be archived, copying it to a folder,
//!   recovering and verifying it, and cleaning up copies that a crash cut short
//! - [`experiments`]: archives the runs of experiments and the partials of their jobs, and brings them back
//! - [`relocate`]: moves a job to a `move` folder: the primary's directory is replaced by a symlink, and removed later
//! - [`engine`]: archives in the background: finds finished jobs, queues them and retries; has the threads
//! - [`releases`]: releases the jobs that a command names or a rule of the settings selects; [`job::release`] decides whether a job may be
//! - [`deletions`]: deletes the jobs that a command names, and brings them back
//! - [`manual`]: archives and recovers the jobs that a command or a mount names, and waits for the result
//! - [`archived_jobs`]: lists the jobs that folders have or have lost, and those that the primary has lost
//! - [`mod@env`]: what each operation needs; [`error`]: the error of one job; [`obstacle`]: explains `ENOTDIR`
//! - [`places`]: the directories of tasks and jobs in a location; [`folder_alias`]: whether two locations share one
//! - [`pins`]: jobs that are never released
//! - [`state_dir`]: what archiving records in the primary; [`last_verify`]: when all copies of a folder were verified
//! - [`fresh_records`]: keeps these records younger than what a purge by age removes
//! - [`trash_upkeep`]: completes deletions in folders that are back, and removes expired jobs from the trash; has threads
//! - [`orphans`]: jobs that no run refers to
//! - [`copies`]: every copy of a job; [`job_list`]: many jobs, each with its state and tags and where it lies
//! - [`amount`]: how much a verification or a recovery reads
//! - `parallel`: calls a function for many items on several threads; `turn`: lets one process of a workspace do some work;
//!   [`space`]: lets copies that run at the same time not count on the same free bytes;
//!   [`retries`]: jobs that are skipped for a while after a failure
//!
//! From the marker to the symlink, a job passes through these steps (what a crash leaves of each, and who finishes it: the tables of
//! [`relocate`]; in the background, the threads are the engine's):
//!
//! 1. `mount::activity` reports which jobs were changed through a mount (those that change often: later, in thread `xpmfs-activity`); `engine::survey` finds the others
//!    (`xpmfs-scan-N`, `xpmfs-markers-N`, `xpmfs-recheck`; N is the folder)
//! 2. `engine::queue` waits for the settle time (`xpmfs-archive`); `job::ready` looks whether the job may be archived (`xpmfs-look`)
//! 3. `engine::route` says which folders get the job, and `relocate` stores it in each: `job::store` for each `backup` folder, then for the `move` folder: `stage` copies to `.tmp.<hash>`, `complete` syncs,
//!    renames and writes the manifest (`xpmfs-store-N`)
//! 4. `relocate`, for a `move` folder: `swap` exchanges the directory for a symlink, `retire` removes the
//!    directory (`xpmfs-store-N`)
//!
//! Called by `mount`, `remote`, `daemon` and `cli`; calls `view`, `transfer` and the rooms below them. Within the room, `engine` and `manual`
//! call `relocate`, which calls `job`; none of them is called by one below, except that `job::store` calls the function that `relocate`
//! passes to it for each copy that is in place.
//!
//! # Invariants
//!
//! - Every location is accessed from descriptors, never by its path: in place, the primary's path leads into our own mount.
//! - Any number of processes, on any number of machines, may work on the same folders: each change in a task's directory is
//!   guarded by the lock of the job's staging, as in experimaestro's `folders.py`.
//! - An archived copy is never edited in place, and never replaced by a copy that holds less.

pub mod amount;
pub mod archived_jobs;
pub mod copies;
pub mod deletions;
pub mod engine;
pub mod env;
pub mod error;
pub mod experiments;
pub mod folder_alias;
pub mod fresh_records;
pub mod job;
pub mod job_list;
pub mod last_verify;
pub mod manual;
pub mod obstacle;
pub mod orphans;
pub(crate) mod parallel;
pub mod pins;
pub mod places;
pub mod releases;
pub mod relocate;
pub mod retries;
pub mod space;
pub mod state_dir;
pub mod trash_upkeep;
mod turn;
