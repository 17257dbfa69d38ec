//! Keeps a mount alive when the process that serves it dies.
//!
//! A mount has two processes. The **worker** serves it. The **supervisor** has started the worker by a fork, and keeps what the
//! worker would take with it: the connection to the kernel, the record of what is open, descriptors that cannot be opened again. When
//! the worker is killed, the supervisor starts another one, which answers on the same connection; programs that use the mount
//! wait for that moment. The supervisor has one thread, and asks no disk.
//!
//! On `xpmfs reload`, the supervisor goes on with another program, in the same process: it asks the program whether it can, executes
//! it in its own place, and there ends the worker and starts another one.
//!
//! - [`message`]: what the worker sends to the supervisor
//! - [`link`]: the worker's end
//! - [`estate`]: what outlives a worker
//! - [`supervise`]: the supervisor's loop; [`workers`]: the processes that it starts
//! - [`program_change`]: the change to another program; [`check`]: asks it whether it can go on; [`state`]: what it goes on with
//!
//! Called by `cli` and [`run`](super::run); calls `mount` for the form of what is kept.

mod check;
mod estate;
mod link;
mod message;
mod program_change;
mod state;
mod supervise;
mod workers;

pub use check::Program;
pub use link::{Link, Resumed};
pub use message::MountPlace;
pub use state::{CHECK_FLAG, PassedState, RESUME_FLAG, SupervisorStart, receive, with_flag};
pub use supervise::{ForkResult, resume, start};
