//! Archiving, moving and recovering jobs by hand: what is kept, whatever happens meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod apart;
mod backed;
mod damaged_state;
mod disks;
mod durable;
mod errors;
mod faults;
#[path = "../fixture/mod.rs"]
mod fixture;
mod in_use;
#[path = "../installed/mod.rs"]
mod installed;
mod interrupted;
mod kept;
mod lacking;
mod lost;
mod meanwhile;
mod opted;
mod others;
mod purged;
mod renamed;
mod scene;
mod stage;
mod told;
// It serves several crates, each of which uses what it needs.
#[allow(dead_code)]
#[path = "../transfer/tree.rs"]
mod tree;
