//! Every command, by the list of the parser: a new command that is missing here fails these tests.
//!
//! - `listed`: the commands of the parser
//! - `walk`: each command, without a mount, beside one and in one, as root and as an ordinary user
//! - `agreement`: `--help`, manual pages, completions and the README agree
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agreement;
#[path = "../common/mod.rs"]
mod common;
mod listed;
mod walk;
