//! Jobs and orphans are listed, and logs printed; beside what experimaestro itself lists.
//!
//! - [`generated`]: a workspace with jobs in each state, tags of each kind, and broken files
//! - [`cleaning`]: `orphans --clean`
//! - [`filters`]: filter expressions, at random and by hand
//! - [`jobs`]: `jobs list` and `jobs path`
//! - [`logs`]: `jobs log`
//! - [`orphans`]: jobs that no run refers to
//! - [`many`]: a hundred thousand jobs, with `XPMFS_SOAK=1` only

// clippy.toml allows these in test functions only, not in what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cleaning;
#[path = "../common/mod.rs"]
mod common;
mod filters;
mod generated;
mod jobs;
mod logs;
mod many;
mod orphans;
