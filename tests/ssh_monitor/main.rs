//! `xpmfs ssh-monitor`: experimaestro's own monitor server, over a real `sshd` on loopback, in a real terminal.

// clippy.toml allows these in test functions only, not in what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod folders;
mod following;
mod refused;
mod services;
mod stage;
