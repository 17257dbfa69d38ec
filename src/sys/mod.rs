//! Linux, without any concept of xpmfs: system calls, and what is built on them.
//!
//! - [`at`]: files and directories below a descriptor; [`shared_dir`]: those that several users share
//! - [`disk_time`]: times, at the precision that disks keep
//! - [`file_id`]: identities of files; [`name`]: one component of a path
//! - [`dir_stack`]: descending into a tree and going back up
//! - [`read_dir`]: the entries of a directory
//! - [`open_files`]: the processes that use files
//! - [`cached_threads`]: threads for what may wait without end
//! - [`deadline`]: asks what may never answer; [`starvation`]: distinguishes it from a thread that waits for a processor
//! - [`debug_setting`]: times that tests set
//! - [`path_bytes`]: serializes paths
//! - [`printable`]: escapes control characters in names that are printed; [`shell_word`]: quotes paths in suggested commands
//! - [`namespaces`]: mounts that other processes do not see
//! - [`priority`]: the processor and disk priority of a thread
//! - [`process_stat`]: the parent, the session and the start of a process
//! - [`memory_log`] and [`shared_words`]: what outlives the process that writes it, in mapped segments
//! - [`allocator`]: the memory of the program; [`calls`]: system calls without a safe wrapper; [`fuse`]: those of `/dev/fuse`
//!
//! Only [`allocator`], [`calls`], [`fuse`] and `segment` have `unsafe` code.
//!
//! Called by `workspace`, `settings`, `view`, `transfer`, `archive`, `mount`, `remote`, `daemon` and `cli`; calls none of them.

pub mod allocator;
pub mod at;
pub mod cached_threads;
pub mod calls;
pub mod deadline;
pub mod debug_setting;
pub mod dir_stack;
pub mod disk_time;
pub mod file_id;
pub mod fuse;
pub mod memory_log;
pub mod name;
pub mod namespaces;
pub mod open_files;
pub mod path_bytes;
pub mod printable;
pub mod priority;
pub mod process_stat;
pub mod read_dir;
mod segment;
pub mod shared_dir;
pub mod shared_words;
pub mod shell_word;
pub mod starvation;
