//! Runs of experiments and partials: archived in `backup` folders, and brought back. Without experimaestro, which
//! `tests/experimaestro/experiments.rs` has.
//!
//! - [`archiving`]: what is archived, when, and what replaces a copy
//! - [`folders`]: folders that are bare, full, or used by two processes
//! - [`killed`]: `kill -9` at each call that changes something
//! - [`recovering`]: runs and partials are brought back, and listed

// clippy.toml allows these in test functions only, not in what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod archiving;
#[path = "../common/mod.rs"]
mod common;
mod folders;
mod killed;
mod obstacles;
mod recovering;
mod scene;
