//! Workspaces on disks that are not ext4, and workspaces that several users share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod group;
mod limits;
mod partial;
mod primary;
