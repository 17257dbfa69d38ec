//! Follows a workspace on another machine through experimaestro's `monitor-server`: JSON-RPC 2.0 on the standard streams of `ssh`.
//!
//! The other side is not trusted: it may send anything, in any amount, or nothing. What is hard about that, and what solves it:
//!
//! 1. A line may have no end. `lines` reads up to a limit, and the connection ends there.
//! 2. The server may send faster than the screen draws, or read more slowly than questions are asked. All channels hold a few messages; the
//!    threads at the pipes of `ssh` wait, and nothing else does (`session`).
//! 3. A question may never be answered. Each has a deadline; the same question is not asked a second time before (`schedule`).
//! 4. The connection may end at any time. `follow` connects again, with pauses that grow, and asks again what is shown.
//!
//! - [`follow`]: [`Monitor`], for the caller; `schedule`: when to ask what; `session`: one connection
//! - [`server`]: the remote command, from the settings; [`words`]: splits a command into words
//! - `protocol`: the messages; `wire`: what answers are made of; [`model`]: what they are about; `lines`: bounded lines
//! - [`log`]: reads logs of jobs, which the protocol does not; [`xpmfs`]: asks `xpmfs` there for folders and archiving

pub mod follow;
#[cfg(test)]
mod hostile;
mod lines;
pub mod log;
pub mod model;
mod protocol;
mod schedule;
pub mod server;
mod session;
mod wire;
pub mod words;
pub mod xpmfs;

pub use follow::{Connected, Monitor, MonitorEvent};
pub use server::MonitorServer;
pub use session::MonitorError;
pub use xpmfs::RemoteXpmfs;
