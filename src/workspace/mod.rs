//! What lies on disk in an experimaestro workspace, as plain types and functions.
//!
//! - [`layout`]: the fixed names, and whether a directory is a workspace
//! - [`jobs`]: job ids, and which names below `jobs/` are jobs
//! - [`markers`]: `<name>.done` and `<name>.failed`, how a job ended
//! - [`internal`]: the files that experimaestro keeps for itself in a job
//! - [`experiments`], [`runs`]: experiments of both layouts (`experiments/`, `xp/`) and their runs
//! - [`jobs_jsonl`]: the jobs of a run, with their tags
//! - [`status`]: `.experimaestro/status.json` of a job
//! - [`params`]: the head of `params.json`
//!
//! Everything here reads and nothing writes. What the mount needs for each request (ids, markers,
//! internal files, recognition) works on a directory's descriptor or on names alone; the rest, which
//! commands print, goes by path. A file that is missing is `None`; one that cannot be read or is half
//! written is an [`Error`] about that file, and whoever lists goes on past it.
//!
//! Anything above may call this; it calls nothing of the house.

pub mod experiments;
pub mod internal;
pub mod jobs;
pub mod jobs_jsonl;
pub mod layout;
pub mod markers;
pub mod params;
pub mod runs;
pub mod status;

mod error;
mod python_json;
mod read;
mod time;

pub use error::{Error, Listing, Result};
pub use jobs::JobId;
