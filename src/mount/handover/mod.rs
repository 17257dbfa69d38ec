//! What a mount leaves to the process that serves it next, after a crash or for another version of the program.
//!
//! The kernel refers to nodes and open files by numbers. It keeps them when the process that has assigned them dies, as
//! long as another process has the connection. So the assignments are recorded outside of the process: directories and
//! files that are open, since the kernel looks up all others anew once it is asked to
//! ([`Connection`](connection::Connection)); and the nodes that the kernel has received last.
//!
//! - [`record`]: one change of the tables, as bytes
//! - [`recorder`]: writes the changes of the tables to a log; the tables call it under their locks, which orders the records
//! - [`recent`]: the nodes that the kernel has received last
//! - [`counts`]: how often the kernel has received each node
//! - [`image`]: the state that a log of records leads to
//! - [`intents`]: what a process was about to change for a request
//! - [`forgotten`]: finds the nodes that the kernel has forgotten without the knowledge of this process
//! - [`restore`]: fills the tables of a mount from an image; [`places`]: with other folders than before
//! - [`connection`]: the connection to the kernel, and what was agreed with the kernel
//!
//! Called by the tables, `serve` and `daemon`; calls `sys` and the tables.

pub(super) mod connection;
pub(super) mod counts;
pub(super) mod forgotten;
pub(super) mod image;
pub(super) mod intents;
mod places;
pub(super) mod recent;
pub(super) mod record;
pub(super) mod recorder;
pub(super) mod restore;
