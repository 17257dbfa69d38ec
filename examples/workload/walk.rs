//! Listing a tree, with the attributes of everything in it.

use std::ffi::CStr;
use std::ffi::CString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, StatxFlags, openat, statx};

use crate::Step;

/// What the C library's `readdir` asks the kernel for at a time.
const LISTING: usize = 32 * 1024;

/// Walks the trees at `paths`, one after the other. Counts what is not a directory: a directory that several locations have is one in
/// a union, and several on the disk.
pub(crate) fn walk(paths: Vec<PathBuf>) -> Vec<Step> {
    vec![Step::reading("walk", move || {
        let mut files = 0;
        for path in &paths {
            files += tree(path).with_context(|| format!("walking {}", path.display()))?;
        }
        Ok(files)
    })]
}

fn tree(path: &Path) -> rustix::io::Result<u64> {
    let root = open(CWD, path)?;
    descend(&root)
}

/// Lists one directory, stats each entry by its name in it, then goes down: the system calls of `find -size`.
fn descend(directory: &OwnedFd) -> rustix::io::Result<u64> {
    let mut buffer = Vec::with_capacity(LISTING);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut below: Vec<CString> = Vec::new();
    let mut files = 0;
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if is_dot(name) {
            continue;
        }
        let found = statx(
            directory,
            name,
            AtFlags::SYMLINK_NOFOLLOW,
            StatxFlags::BASIC_STATS,
        )?;
        match FileType::from_raw_mode(found.stx_mode.into()) {
            FileType::Directory => below.push(name.to_owned()),
            _ => files += 1,
        }
    }
    // Not held while going down.
    drop(buffer);
    for name in below {
        files += descend(&open(directory.as_fd(), name.as_c_str())?)?;
    }
    Ok(files)
}

fn open(directory: BorrowedFd<'_>, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}
