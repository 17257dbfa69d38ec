//! Keeps a mount alive when the process that serves it dies.
//!
//! A mount has two processes. The **worker** serves it. The **supervisor** has started the worker by a fork, and keeps what the
//! worker would take with it: the connection to the kernel, the record of what is open, descriptors that cannot be opened again. When
//! the worker is killed, the supervisor starts another one, which answers on the same connection; programs that use the mount
//! wait for that moment. The supervisor has one thread, and asks no disk.
//!
//! - [`message`]: what the worker sends to the supervisor
//! - [`link`]: the worker's end
//! - [`supervise`]: the supervisor's loop
//!
//! Called by `cli` and [`run`](super::run); calls `mount` for the form of what is kept.

mod link;
mod message;
mod supervise;

pub use link::{Link, Resumed};
pub use message::Place;
pub use supervise::{Side, start};
