//! Linux, as a program sees it: this room knows system calls, and no word of xpmfs. Every other room may call it.
//!
//! - [`at`]: files and directories below a descriptor; [`shared_dir`]: those that several users share
//! - [`file_id`]: which file something is; [`name`]: one component of a path
//! - [`dir_stack`]: the way down a tree and back up
//! - [`read_dir`]: the entries of a directory
//! - [`priority`]: the processor and disk priority of a thread
//! - [`calls`]: all `unsafe` code

pub mod at;
pub mod calls;
pub mod dir_stack;
pub mod file_id;
pub mod name;
pub mod priority;
pub mod read_dir;
pub mod shared_dir;
