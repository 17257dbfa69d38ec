//! Workspaces on disks that are not ext4, and workspaces that several users share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../fixture/mod.rs"]
mod fixture;
mod group;
#[path = "../installed/mod.rs"]
mod installed;
mod limits;
mod primary;
