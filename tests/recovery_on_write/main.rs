//! A change to an archived job brings the job back into the primary, once and whole, and never reaches the archive.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod again;
mod cache;
#[path = "../common/mod.rs"]
mod common;
mod descriptors;
mod failures;
mod faults;
mod full;
mod killed;
mod many;
mod new_locks;
mod operations;
mod purged;
mod purged_at_random;
mod purges;
mod reading;
#[path = "../purged/scratch.rs"]
#[allow(dead_code)]
mod scratch;
mod stage;
mod waiting;
