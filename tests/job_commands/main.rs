//! `xpmfs jobs archive`, `recover` and `verify`: what a copy keeps, and what remains after a fault, a kill or a change.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod apart;
mod backed;
#[path = "../common/mod.rs"]
mod common;
mod damaged_state;
mod deleted;
mod disks;
mod dry_runs;
mod durable;
mod errors;
mod faults;
mod full_disks;
mod in_use;
mod interrupted;
mod kept;
mod lacking;
mod linked_state;
mod lost;
mod meanwhile;
mod messages;
mod naming;
mod opted;
mod others;
mod permissions;
mod progress;
mod purged;
mod rebased;
mod released;
mod renamed;
mod renewed;
mod scene;
mod stage;
mod verified;
mod where_is;

use common::tree;
