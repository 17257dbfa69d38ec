//! Archiving at work, by the real binary: jobs move while others read them, several archive to one folder, daemons are
//! killed, folders go away and come back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // what a test is for

mod after_power_cut;
mod bounded;
#[path = "../fixture/mod.rs"]
mod fixture;
#[path = "../installed/mod.rs"]
mod installed;
mod job;
mod life;
mod moving;
#[path = "../python/mod.rs"]
mod python;
mod silent;
mod stage;
#[path = "../reference/thread.rs"]
#[allow(dead_code)]
mod thread;
mod together;
mod verified;
mod watching;
