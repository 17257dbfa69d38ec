//! What several processes do at the same time through one mount, two mounts of a workspace, or beneath.
//!
//! - [`descriptors`]: more open files than the daemon has descriptors for
//! - [`locks`]: protocols by which processes exclude each other
//! - [`removed`]: files that are removed while processes use them
//! - [`renamed`]: a directory that gets another name while a process is in it

// clippy.toml allows these in test functions only, not in what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod descriptors;
mod locks;
mod removed;
mod renamed;
