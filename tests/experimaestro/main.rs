//! The real experimaestro, at work in mounts of its workspace.
//!
//! - [`again`]: a plan run again over jobs that folders serve: nothing runs, no folder changes
//! - [`archive`]: jobs that end are archived, and recovered
//! - [`experiments`]: folders are workspaces of their own, from which a lost primary is made
//! - [`new`]: a new plan, run wholly through a mount
//! - [`copied`]: a copy of an experiment in another workspace is done
//! - [`beside`]: a plan through a mount, while another runs in the bare primary
//! - [`moved`]: experimaestro's own archiving moves a job that has no backup yet
//! - [`locks`]: locks, taken through a mount and beside it
//! - [`transient`]: transient jobs, which the plan removes, are not archived before
//! - [`files`]: hard links and the inotify watch that it relies on

// clippy.toml allows these in test functions only, not in what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod again;
mod archive;
mod beside;
#[path = "../common/mod.rs"]
mod common;
mod copied;
mod experiments;
mod files;
mod locks;
mod moved;
mod new;
mod purged;
mod transient;

use common::plan;
