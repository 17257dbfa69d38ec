//! What a mount leaves to the process that serves it next, after a crash or for another version of the program.
//!
//! The kernel refers to nodes and open files by numbers. It keeps them when the process that has assigned them dies, as
//! long as another process has the connection. So the assignments are recorded outside of the process: directories and
//! files that are open, since the kernel looks up all others anew once it is asked to
//! ([`Connection`](connection::Connection)); and the nodes that the kernel has received last.
//!
//! What outlives a process is kept by the supervisor, in memory that both have mapped ([`MemoryLog`], [`SharedWords`]):
//!
//! | kept | written by | read by the next process as |
//! | --- | --- | --- |
//! | the log: each change of the tables is a [`record`] | [`recorder`], called by the tables under their locks, which orders the records | an [`image`]: the state that the records lead to |
//! | how often the kernel has received each node | [`lookup_counts`] | the same |
//! | the nodes that the kernel has received last, which need not be in the log | [`recent_nodes`] | the same |
//! | what a thread is about to change for a request, in a slot of its own | [`intents`], in [`intent_slots`] | the result of a request that the kernel sends again |
//! | the connection to the kernel, and what was agreed with it | [`connection`] | the same |
//! | descriptors of open files and of removed directories | [`recorder`] ([`KeptFile`]) | open files |
//!
//! The next process, in this order:
//!
//! 1. [`renumber`]: if the settings list other folders than before, gives the image the numbers that the locations have now
//! 2. [`restore`]: fills the tables of a mount from the image
//! 3. [`forgotten`]: finds the nodes that the kernel has forgotten without the knowledge of this process
//!
//! [`MemoryLog`]: crate::sys::memory_log::MemoryLog
//! [`SharedWords`]: crate::sys::shared_words::SharedWords
//! [`KeptFile`]: recorder::KeptFile
//!
//! Called by the tables, `serve` and `daemon`; calls `sys` and the tables.

pub(super) mod connection;
pub(super) mod forgotten;
pub(super) mod image;
pub(super) mod intent_slots;
pub(super) mod intents;
pub(super) mod lookup_counts;
pub(super) mod recent_nodes;
pub(super) mod record;
pub(super) mod recorder;
mod renumber;
pub(super) mod restore;
