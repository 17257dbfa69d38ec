//! `xpmfs tui` and its screens, in real terminals.

// clippy.toml allows these in test functions only, not in what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod acting;
mod gnu_screen;
mod job_control;
mod looking;
mod stage;
mod terminals;
mod tmux;
mod troubles;
