//! Copies experiments from one workspace to another, on this machine or on one that `ssh` reaches, and follows workspaces there.
//!
//! - [`copy`]: copies a run and its jobs: [`copy_experiment`]
//! - [`monitor`]: follows what happens in a workspace on another machine
//! - [`site`]: a workspace on another machine: what it has; `hollow`: which of its locations serves a job
//! - [`ssh`]: runs scripts there; `shell`: writes them; `rsync`: copies trees
//! - `private_dir`: the private directory of a connection; `said`: what `ssh` and `rsync` write to standard error
//! - [`staging`]: the directory of unfinished copies in a workspace, `.xpm-staging`
//! - [`error`]: why nothing could be copied
//!
//! Called by `cli`; calls `archive` and the rooms below it.

pub mod copy;
pub mod error;
mod hollow;
pub mod monitor;
mod private_dir;
mod rsync;
mod said;
mod shell;
pub mod site;
pub mod ssh;
pub mod staging;

pub use copy::{CopyEvent, CopyOptions, CopyOutcome, CopyResult, Endpoint, copy_experiment};
pub use error::CopyError;
pub use site::Site;
