//! The tables of a mount: what it keeps in memory, by node. They resolve no names; `listings`, `cursor` and
//! `ttl` use open descriptors. Those that outlive the process write what changes by `handover::recorder`, and `handover` restores them. They are bounded, or as large as what the kernel has not forgotten.
//!
//! - [`node`]: what a node is; [`nodes`]: those that the kernel knows, by number, in [`shard`]s; [`tree`]: what is below a node, and which job it belongs to
//! - [`restored_nodes`]: nodes that the kernel has received from an earlier process
//! - [`numbers`]: the numbers of nodes
//! - [`handles`]: open files; [`passthrough`]: which of them the kernel reads and writes by itself
//! - [`dir_cache`]: descriptors of directories; [`listings`]: directories that are being listed, with a [`cursor`] for
//!   each source and the [`positions`] of unions
//! - [`cached_listings`]: which directories' listings the kernel may have cached
//! - [`invalidate`]: the threads that make the kernel drop cached state
//! - [`node_changes`]: whether the nodes of a recovered job are being changed
//! - [`own_writes`]: whether a file is being written through this mount
//! - [`lock_names`]: names that the kernel must look up each time
//! - [`stale`]: names, opens and directories that failed with `ESTALE`
//! - [`superseded`]: which file of a recovered job has taken the place of a node
//! - [`ttl`]: how long the kernel may cache names and attributes

pub(super) mod cached_listings;
pub(super) mod cursor;
pub(super) mod dir_cache;
pub(super) mod handles;
pub(super) mod invalidate;
pub(super) mod listings;
pub(super) mod lock_names;
pub(super) mod node;
pub(super) mod node_changes;
pub(super) mod nodes;
pub(super) mod numbers;
pub(super) mod own_writes;
pub(super) mod passthrough;
pub(super) mod positions;
mod restored_nodes;
mod shard;
pub(super) mod stale;
pub(super) mod superseded;
pub(super) mod tree;
pub(super) mod ttl;
