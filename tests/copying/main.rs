//! `xpmfs experiments copy`: between workspaces of this machine, and over a real `sshd`.
//!
//! - [`asked`]: arguments that are missing; [`folders`]: jobs that folders have; [`killed`]: copies that are killed
//! - [`local`]: from one local workspace to another
//! - [`module`]: from Python
//! - [`oracle`]: beside experimaestro's own copy
//! - [`ssh`]: to and from another machine

// clippy.toml allows these in test functions only, not in what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod asked;
#[path = "../common/mod.rs"]
mod common;
mod folders;
mod killed;
mod local;
mod module;
mod oracle;
mod scene;
mod ssh;
