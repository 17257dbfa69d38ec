//! A folder that does not answer, or fails, delays nothing but itself: not even requests that were begun before that was known.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod commands;
#[path = "../common/mod.rs"]
mod common;
mod errors;
mod hanging;
mod other_disk;
mod process;
mod records;
mod recovery;
mod stage;
