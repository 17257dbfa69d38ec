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
//!
//! # Words
//!
//! | word | meaning |
//! | --- | --- |
//! | workspace | an `id`, a primary, folders, settings |
//! | primary | the workspace's own directory |
//! | folder | another directory with jobs, with a mode: `use` (read only), `backup` (gets copies), `move` (gets jobs for a symlink) |
//! | location | the primary or a folder; its number is 0 for the primary, and counts the folders from 1 in the order of the settings |
//! | in place | mounted over the primary: the workspace's path then leads into the mount |
//! | job | the directory `jobs/<task_id>/<hash>` of a location; the location that *serves* it is the one that the mount shows |
//! | marker | `<name>.done` or `<name>.failed` in a job: how it ended. `<name>` follows the last dot of the task id |
//! | plan | the Python program that runs experiments with experimaestro; in names such as `daemon::plan`, what a command is about to do |
//! | internal file | what experimaestro keeps for itself in a job: locks, process ids |
//! | bookkeeping | what experimaestro rewrites in a job without running it, such as `status.json` |
//! | transient | a job that its plan removes after use |
//! | to archive | to copy a finished job to a `backup` folder, or to move it to a `move` folder |
//! | to recover | to copy a job from a folder back into the primary |
//! | to release | to remove the primary's copy of a job that has a verified archived copy |
//! | purged | what is left of a job when a scratch disk's purge has removed some of its files |
//! | staging | the directory `.tmp.<hash>` beside a job in which a copy grows, guarded by a lock on `.tmp.<hash>.lock` |
//! | manifest | the content of an archived copy: names, sizes, times, hashes |
//! | settled | unchanged for the settle time |
//! | supervisor, worker | the process that keeps the connection to the kernel; the one that answers the kernel, and is replaced when it dies |

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
