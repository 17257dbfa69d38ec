//! Renames and exchanges, also where a file system has only plain renames (NFS, some of FUSE).

use std::ffi::OsStr;
use std::os::fd::AsFd;

use rustix::fs::{RenameFlags, renameat, renameat_with};
use rustix::io::{Errno, Result};

use crate::sys::at;

/// Renames to a name that must not exist.
///
/// # Errors
///
/// `EEXIST` if the name exists.
pub(super) fn to_free(dir: impl AsFd, from: &OsStr, to: &OsStr) -> Result<()> {
    match renameat_with(&dir, from, &dir, to, RenameFlags::NOREPLACE) {
        Err(errno) if is_unsupported(errno) => {}
        result => return result,
    }
    // An entry that another process makes between the check and the rename is safe unless it is an empty directory: a
    // directory replaces no other type. A symlink would replace a file, but only directories and symlinks have these
    // names.
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

/// Exchanges two names in one step; returns false where the file system cannot.
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
