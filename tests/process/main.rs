//! The life of a mount with a file system of one file, as root and as an ordinary user through `fusermount3`.
//!
//! - `mounting`, `unmounting`: how a mount begins and ends, in the foreground
//! - `background`: a daemon in the background
//! - `control`: the socket of a daemon
//! - `stage`, `one_file`: the processes, and the file system that they serve

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // what a test is for

mod background;
mod control;
mod mounting;
mod one_file;
mod stage;
mod unmounting;

/// No test: the processes on stage come in here.
#[test]
#[ignore = "played by the other tests"]
fn a_player() {
    stage::player();
}
