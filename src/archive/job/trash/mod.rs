//! Deletes jobs into a trash, brings them back from there, and empties it.
//!
//! A job has copies in several locations, no rename spans two of them, and some may be away. So there is one order:
//!
//! ```text
//!             intent          rename             marks, sync         rename in each folder
//! (a job) ──────────▶ begun ────────▶ decided ───────────────▶ deleted ───────────────────▶ complete
//!    ▲                  │                                                                      │
//!    ├── rolled back ◀──┘                                                                      │
//!    └────────────────────────────────── undeleted ◀───────────────────────────────────────────┘
//! ```
//!
//! | state | the primary's entry | a folder's copy | records in `.xpmfs/archive/deleted` | what the view shows |
//! | --- | --- | --- | --- | --- |
//! | begun | at its place | at its place | the intent | the job |
//! | decided | in the trash | at its place | the intent, perhaps some marks | the job, as a folder has it, or nothing |
//! | deleted | in the trash | at its place | a mark for each folder | nothing: a marked copy does not count |
//! | complete | in the trash | in the trash, with its manifest | none | nothing |
//!
//! After a crash, the next command, or the daemon, goes on ([`finish`]): a job that is begun is rolled back, since nothing has been renamed;
//! one that is decided is deleted. Which of the two it is shows in the primary's trash, where the entry is or is not; a job that the primary
//! did not have is decided by its intent. All changes are renames within one file system, so no state loses a file, and each is durable
//! before the next begins.
//!
//! A folder that is away keeps its mark until it is back: the job does not reappear. A copy that is newer than its mark is not the one that
//! was deleted, as after the job was run and archived again: it stays, and the mark goes. Archiving to a folder completes the mark first.
//!
//! To undelete: a record of the undeletion, which a crash lets [`finish`] continue; the marks are removed; each folder's copy is renamed to its
//! place, then the primary's entry, which may be a symlink to a folder's copy, or what a purge has left of the job. It is refused
//! if any of these locations has a job of this name again.
//!
//! In a location, `<date>` being when the command began, in UTC:
//!
//! | path below `.xpmfs/trash/<date>` | what |
//! | --- | --- |
//! | `jobs/<task_id>/<hash>` | the directory, or the symlink of a moved job |
//! | `manifests/<task_id>/<hash>.json` | of a folder's copy |
//! | `internal/<task_id>/<hash>`, `kept/…`, `removed/…` | in the primary: the job's internal files, and records of archiving |
//!
//! The same guards as for a release hold: the lock of the job's staging in each location, the job's own locks, no process that uses it, no pin.
//!
//! - [`batch`]: the date; `parts`: what of a job is renamed, and where to; `records`: intents, marks and undeletions
//! - [`assess`]: whether a job may be deleted; [`delete`], [`undelete`]: one job; [`folder`]: the copy of one folder
//! - [`finish`]: what a crash or a folder that was away has left; `exclusive`: the lock of a job
//! - [`list`]: what is in the trash; [`empty`]: removes it for good

pub mod assess;
pub mod batch;
pub mod delete;
pub mod empty;
mod exclusive;
pub mod finish;
pub mod folder;
pub mod list;
mod parts;
mod records;
pub mod undelete;
