//! The control socket: how other commands talk to the daemon that serves a mount.
//!
//! # Protocol, version 1
//!
//! One stream socket per mount, named after the mount's device number (`0-52.sock`, see `/proc/self/mountinfo`), and one for each
//! process that archives and mounts nothing, named after its id (`archiver-4711.sock`),
//! in the first of these directories that the daemon can have for itself:
//!
//! - `/run/xpmfs/`, for root
//! - `$XDG_RUNTIME_DIR/xpmfs/`
//! - `/tmp/xpmfs-<uid>/`
//!
//! For a mount that programs share, `$XDG_RUNTIME_DIR` comes last: they may have been started in different ways.
//!
//! Only the daemon's own user and root are answered. The client sends one JSON object a line, and gets one
//! JSON object a line back, in order:
//!
//! ```text
//! {"version": 1, "request": "identity"}      "version" may be left out
//! {"version": 1, "reply": {"pid": 4711, "mountpoint": "/data/nlp", …}}
//! {"version": 1, "error": "unknown request \"dance\"; …"}
//! ```
//!
//! | request | reply |
//! | --- | --- |
//! | `identity` | pid, mount point, workspace, primary, since (seconds since 1970), read-only, log, version; asks no disk |
//! | `status` | the same, and under `service` the state of the file system: its folders and their health |
//! | `primary` | `{}`, and with it (`SCM_RIGHTS`) a descriptor of the primary's root directory, which reaches the directory beneath an in-place mount |
//! | `written`, with a `job` | `{"written": true, "open": true}` if a file of that job of the primary is open for writing; `written` alone if a program waits for the recovery of the job |
//! | `moved`, with a `job` | `{}`: from now on another directory, or a symlink, leads to the job in the primary |
//! | `hold`, with a `holder`, `terms` and so on | whether the holder is registered: see [`sharing`](super::sharing) |
//! | `release`, with a `holder` | whether the mount may be unmounted now; while the client stays connected, no holder is registered |
//! | `drain` | `{}`: all that waits to be archived is tried at once, and what finished unnoticed is looked for |
//! | `idle` | `{"state": "yes"}` if nothing is left to archive, `{"state": "busy", "left": 3}`, or `{"state": "stuck", "failed": 3}` if all that is left has failed |
//! | `reload`, with a `program` | the pid, supervisor and version that serve the mount from now on: another program, at this absolute path, with the settings as they are now. The last request of a connection; the supervisor replies, within a minute |
//!
//! A job is `"task_id/hash"`, or, if that is not UTF-8, an object with its bytes: `{"hex": "…"}`. Paths that are not UTF-8 are shown with replacement characters. Unknown members of a request are ignored, and
//! a client ignores unknown members of a reply, so both can grow. A client that sends nothing for
//! [`server::CLIENT_TIMEOUT`] is disconnected; a daemon that replies nothing for [`REPLY_TIMEOUT`](super::REPLY_TIMEOUT)
//! counts as silent.
//!
//! A new request is one more arm in [`answers`].
//!
//! [`server`]: the daemon's end; `client`: a command's; `directory`: where the sockets are

pub mod answers;
mod client;
mod directory;
pub mod server;

pub use answers::{Answers, Identity, Reload};
pub use client::{Client, ClientError};
pub use directory::{SocketName, runtime_directory};
pub use server::Server;

/// The protocol's version.
pub const VERSION: u64 = 1;
/// The longest line, in bytes: of a request, and of a reply.
const LONGEST_REQUEST: usize = 64 * 1024;
const LONGEST_REPLY: usize = 16 * 1024 * 1024;
/// The same, of a reply of another user's daemon.
const LONGEST_FOREIGN_REPLY: usize = 1024 * 1024;
