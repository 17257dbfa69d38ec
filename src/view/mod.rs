//! Which location serves a job: the rules of the view, over directory descriptors, without FUSE.
//!
//! The view of a workspace is its primary directory, whose `jobs/` shows the jobs of the primary and of all folders. A job is
//! served whole by one location and never merged file by file.
//!
//! - [`View`], in `open`: the view of one workspace
//! - [`location`]: the primary and the folders: opened, watched, reopened
//! - [`resolve`]: which location serves `jobs/<task_id>/<hash>`
//! - `folder_records`: which jobs folders have had, for when they are away
//! - [`purged`]: whether a job in the primary is what a purge has left of it
//! - `record_files`: the files in which these two keep what they record
//! - [`links`]: symlinks to moved jobs, and absolute symlinks that must lead into the mount
//! - [`find`]: jobs by what a user types
//! - [`jobs`]: the jobs of one location; [`inventory`]: the jobs of all, each with the location that serves it
//! - [`listing`]: what `jobs/` and `jobs/<task_id>/` contain, and the newest times of these directories
//! - [`change`]: which changes are permitted, given the serving location
//! - [`materialize`]: directories that only a folder has, made in the primary when needed
//! - [`internal`]: the internal files of a job that a folder serves; [`internal_gate`]: keeps them from being created while the job is
//!   published
//! - `walk`: paths, walked one name at a time and never into a mount of xpmfs
//!
//! Called by `archive`, `mount`, `remote`, `daemon` and `cli`; calls `workspace`, `settings` and `sys`.
//!
//! Threads of this room look at folders and write records; [`purged`], `folder_records`, [`materialize`] and [`internal`] write in the
//! primary, the rest writes nothing.
//!
//! In the primary, every path is relative to descriptors that were opened before mounting. An in-place mount requires that: the workspace's
//! own path then leads into the mount, and walking it would make the daemon wait for itself. A folder's path is walked by `walk`.

pub mod change;
pub mod find;
mod folder_records;
pub mod internal;
pub mod internal_gate;
pub mod inventory;
pub mod jobs;
pub mod links;
pub mod listing;
pub mod location;
pub mod materialize;
mod open;
pub mod purged;
mod record_files;
pub mod resolve;
mod walk;

pub use change::{Change, Verdict};
pub use folder_records::gone::GONE;
pub use jobs::Unlisted;
pub use location::beneath::{Beneath, COVERED, MountId};
pub use location::root::Root;
pub use location::unreadable::Hidden;
pub use location::{FolderSpec, Location, LocationStatus, PRIMARY};
pub use open::{View, ViewError, ViewSpec};
pub use purged::Standing;
pub use resolve::{InPrimary, Served};

/// The maximum number of folders of a view.
pub use crate::settings::FOLDERS_MAX;
