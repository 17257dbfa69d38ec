//! What the tests of the program share: workspaces and mounts of them, jobs, the tools and the Python that they need.

// Each program of tests compiles this for itself, and uses a part of it.
#![allow(dead_code, unreachable_pub, unused_imports)]
// clippy.toml allows these in test functions only, not in what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod commands;
pub mod daemon;
pub mod hanging_fs;
pub mod job;
mod mounted;
pub mod plan;
pub mod python;
mod snapshot;
pub mod sshd;
mod terminal;
pub mod thread;
mod tools;
pub mod tracer;
pub mod tree;
mod workspace;

pub use commands::*;
pub use mounted::*;
pub use snapshot::*;
pub use terminal::*;
pub use tools::*;
pub use workspace::*;
