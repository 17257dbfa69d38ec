//! Copies experiments from one workspace to another, on this machine or on one that `ssh` reaches.
//!
//! - [`copy`]: copies a run and its jobs: [`copy_experiment`]
//! - [`staging`]: the directory of unfinished copies in a workspace, `.xpm-staging`
//! - [`error`]: why nothing could be copied
//!
//! Called by `cli`; calls `archive` and the rooms below it.

pub mod copy;
pub mod error;
pub mod staging;

pub use copy::{CopyOptions, CopyResult, Event, Outcome, Side, copy_experiment};
pub use error::CopyError;
