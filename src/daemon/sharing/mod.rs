//! A mount that several programs share: `mount --shared` registers a holder, and `umount` leaves a mount that others hold.
//!
//! Two batch jobs on a node mount the same workspace, work, and unmount. Three things must hold:
//!
//! 1. Neither takes the mount from the other. The daemon registers the holders; `umount` asks it first ([`register`]).
//! 2. A holder that was killed must not keep the mount for ever, and another process that received its pid is not the holder:
//!    a holder is identified by its pid and its start time ([`holder`]).
//! 3. A program that mounts while another one unmounts must not work beneath the mount. The daemon decides on each request under
//!    one lock: after it has permitted an unmount it registers no holder, and the program waits and mounts anew ([`command`]).
//!
//! - [`holder`]: a process, a session or a cgroup, and whether it is alive
//! - [`caller`]: the holder that a command stands for
//! - [`terms`]: how a mount was made, so that it can be compared
//! - [`register`]: the daemon's record of the holders, kept by the supervisor
//! - [`command`]: what `mount` and `umount` ask the daemon
//! - [`launch_lock`]: of many commands at once, one starts the daemon
//!
//! Called by `cli` and by the control socket.

pub mod caller;
pub mod command;
pub mod holder;
pub mod launch_lock;
pub mod register;
pub mod terms;
