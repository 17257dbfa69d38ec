//! Reads what is on disk in an experimaestro workspace, as plain types and functions.
//!
//! - [`layout`]: the fixed names, and whether a directory is a workspace
//! - [`jobs`]: job ids, and which names below `jobs/` are jobs
//! - [`markers`]: `<name>.done` and `<name>.failed`: how a job ended
//! - [`internal`]: the files that experimaestro keeps for itself in a job
//! - [`job_locks`]: whether a process holds a job's lock
//! - [`experiments`], [`runs`]: experiments of both layouts (`experiments/`, `xp/`) and their runs
//! - [`jobs_jsonl`]: the jobs of a run, with their [`tags`]; [`references`]: the jobs that all runs refer to
//! - [`job_files`]: `.experimaestro/status.json` and the head of `params.json` of a job; [`params_json`]: rewrites the paths in it
//! - [`events`]: states of running jobs that are only in their events yet
//! - [`filter`]: experimaestro's filter expressions over jobs
//! - [`partials`]: the directories that jobs share, and which of them a job names
//! - `read`: opens files and lists directories safely; [`python_json`]: JSON as Python writes it; `error`: [`WorkspaceError`]
//!
//! Nothing here writes, except [`partials::rebase_links`] in the job that it is given. What the mount needs for each request (ids, markers, internal files, recognition) uses a directory's
//! descriptor or names alone; the rest uses paths. Of a workspace that may be mounted in place, a path must begin with
//! `/proc/self/fd/` and a descriptor of its directory, or it leads into the mount. A missing file is `None`. A file that cannot be read, or is
//! incomplete, is a [`WorkspaceError`] with its path, and listings continue after it.
//!
//! Called by `view`, `transfer`, `archive`, `mount`, `remote`, `daemon` and `cli`; calls `sys` alone.

pub mod events;
pub mod experiments;
pub mod filter;
pub mod internal;
pub mod job_files;
pub mod job_locks;
pub mod jobs;
pub mod jobs_jsonl;
pub mod layout;
pub mod markers;
pub mod params_json;
pub mod partials;
pub mod references;
pub mod runs;
pub mod tags;

mod error;
pub mod python_json;
mod read;

pub use error::{PartialList, WorkspaceError};
pub use jobs::JobId;
