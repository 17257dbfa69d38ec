//! Scratch disks are purged file by file: what is left of an archived job does not hide its copy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod at_random;
mod commands;
mod cost;
mod full_disk;
mod judged;
mod mounted;
mod records;
mod scratch;
