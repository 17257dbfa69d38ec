//! Shows an experimaestro workspace as one directory, whatever disk each job lies on.
//!
//! The top-level modules, called rooms. A room may use the rooms below it in this list; two rooms in one item may not use each other
//! (`scripts/arrows` checks both). Each room's `mod.rs` is its map.
//!
//! - [`cli`]: what a person types; prints; decides nothing about jobs
//! - [`daemon`]: the life of the process that serves a mount: background, signals, control socket
//! - [`mount`]: the kernel's side: nodes, handles, one file per group of operations; beside it [`remote`]: copies experiments to and from
//!   other workspaces, here or over `ssh`
//! - [`archive`]: what is done to jobs and involves folders: archives, moves, recovers, verifies, releases, deletes and lists them; finds
//!   orphans
//! - [`view`]: which location serves a job: resolving, union listing, folder health; beside it [`transfer`]: how bytes
//!   move: copying a tree, hashes, manifests
//! - [`workspace`]: reads what is on disk: job ids, layout, markers, runs, `jobs.jsonl`; beside it [`settings`]: reads
//!   `settings.yaml`: YAML, interpolation, checks, selection of a workspace
//! - [`sys`]: Linux, without any concept of xpmfs: directories below a descriptor, identities of files, deadlines, all `unsafe`

pub mod archive;
pub mod cli;
pub mod daemon;
pub mod mount;
pub mod remote;
pub mod settings;
pub mod sys;
pub mod transfer;
pub mod view;
pub mod workspace;
