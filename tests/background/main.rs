//! Archiving at work, by the real binary: jobs move while others read them, several archive to one folder, daemons are
//! killed, folders go away and come back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // what a test is for

mod after_power_cut;
mod bounded;
#[path = "../common/mod.rs"]
mod common;
mod full;
mod life;
mod moved_by_others;
mod moving;
mod released;
mod replaced;
mod silent;
mod stage;
mod together;
mod verified;
mod watching;

use common::{job, python, thread};
