//! What a mount does for each request of the kernel: one file per group of operations.
//!
//! | requests | file |
//! | --- | --- |
//! | lookup, forget | [`lookup`] |
//! | getattr, readlink, access, statfs | [`getattr`] |
//! | setattr: chmod, chown, truncate, utimes | [`setattr`] |
//! | create, mknod, mkdir, symlink, link | [`create`] |
//! | unlink, rmdir | [`remove`]; `removal_record`: what is removed from archived jobs |
//! | rename | [`rename`] |
//! | open, read, write, flush, release, fsync, fallocate, lseek, copy_file_range | [`mod@file`]; `read_through`: jobs that are read come back |
//! | opendir, readdir, readdirplus, fsyncdir | [`readdir`] |
//! | getxattr, setxattr, listxattr, removexattr | [`xattr`] |
//! | setlk: flock | [`locks`] |
//!
//! Called by `fuse` and `replies` with numbers of nodes and open files; calls the tables, `locate` and `copy_up`, and each other
//! (`rename` calls `remove` and `lookup`). An operation that may wait for a folder calls `deferred::commit` before it changes
//! anything, and reports what it has changed to `activity`.

pub(super) mod create;
pub(super) mod file;
pub(super) mod getattr;
pub(super) mod locks;
pub(super) mod lookup;
mod read_through;
pub(super) mod readdir;
mod removal_record;
pub(super) mod remove;
pub(super) mod rename;
pub(super) mod setattr;
pub(super) mod xattr;
