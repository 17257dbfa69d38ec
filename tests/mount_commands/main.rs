//! `mount`, `umount`, `status`, `completions`, `man` and `mount.fuse.xpmfs`, as a person and mount(8) call them.
//!
//! As root everything is played twice: as root, and as an ordinary user through `fusermount3`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod front;
mod home;
mod logs;
mod machine;
mod messages;
mod mounting;
mod one_command;
mod options;
mod sharing;
mod shells;
mod status;
mod unmounting;
