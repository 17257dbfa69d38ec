//! Renames, also where a file system has only the plainest (NFS, some of FUSE).

use std::ffi::OsStr;
use std::os::fd::AsFd;

use rustix::fs::{RenameFlags, renameat, renameat_with};
use rustix::io::{Errno, Result};

use crate::sys::at;

/// Renames to a name that nothing has.
///
/// # Errors
///
/// `EEXIST` if something has it.
pub(super) fn to_free(dir: impl AsFd, from: &OsStr, to: &OsStr) -> Result<()> {
    match renameat_with(&dir, from, &dir, to, RenameFlags::NOREPLACE) {
        Err(errno) if is_unsupported(errno) => {}
        result => return result,
    }
    // Somebody who comes in between here loses nothing but an empty directory: no other can be replaced by a
    // directory. A symlink replaces a file, but only directories and symlinks have these names.
    match at::stat_at(&dir, to) {
        Ok(_) => return Err(Errno::EXIST),
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    match renameat(&dir, from, &dir, to) {
        Err(Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => Err(Errno::EXIST),
        result => result,
    }
}

/// Exchanges two names in one step; false where the file system cannot.
pub(super) fn swap(dir: impl AsFd, a: &OsStr, b: &OsStr) -> Result<bool> {
    match renameat_with(&dir, a, &dir, b, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(errno) if is_unsupported(errno) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn is_unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}
