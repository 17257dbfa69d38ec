//! What a tool finds in a mount: the union of the locations, and in the primary a plain disk.
//!
//! - `agreed`: what is agreed with the kernel
//! - `union`: one directory of jobs from several locations
//! - `behind`: changes of the locations beside the mount
//! - `files`: files and attributes, as on a disk
//! - `renames`: `renameat2` with all its flags
//! - `whiteouts`: renames that leave a whiteout
//! - `locks`: `flock`
//! - `memory`: how much a mount uses for what the kernel knows
//! - `rights`: who may read and write
//! - `requests`: for how many requests programs wait, and what each costs
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agreed;
mod behind;
#[path = "../common/mod.rs"]
mod common;
mod files;
mod locks;
mod memory;
mod renames;
mod requests;
mod rights;
mod union;
mod whiteouts;

use common::Workspace;

const TASK: &str = "my.module.train";

/// A job in every location, called after it.
fn one_job_each(workspace: &Workspace) {
    for location in ["primary", "use", "backup", "move"] {
        workspace.finished(location, TASK, &format!("in-{location}"));
    }
}
