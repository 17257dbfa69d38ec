//! Finds files of a tree that a process has open for writing, by whatever path.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::{Context, Failure, Result};
use super::manifest::{Kind, Manifest};
use crate::sys::at::{open_noatime, open_to_list};
use crate::sys::calls;
use crate::sys::dir_stack::IndexedDirStack;

/// The first file of a tree that a process on this machine has open for writing, or has mapped for writing. The path is
/// relative to the top.
///
/// The kernel grants a read lease only on a file that no process has open for writing (fcntl(2)). A lease on each file
/// is requested, and released at once. The state of other users' files, and of files on file systems without leases, is
/// unknown: they count as closed. So do files that are gone.
///
/// # Errors
///
/// An error of opening a directory or a file of the tree.
pub fn being_written(tree: impl AsFd, manifest: &Manifest) -> Result<Option<std::path::PathBuf>> {
    let at = |index: usize| move |failure: Failure| failure.at(manifest.path(index));
    let top = open_to_list(tree, OsStr::new(".")).source("open");
    let mut steps = IndexedDirStack::new(top.map_err(at(0))?);
    for (index, entry) in manifest.entries().iter().enumerate().skip(1) {
        while steps.position() != entry.parent {
            if steps.up().source("leave").map_err(at(index))?.is_none() {
                break;
            }
        }
        let directory = &**steps.current();
        match entry.kind {
            Kind::Directory => {
                let opened = open_to_list(directory, &entry.name).listed("open");
                let entered = opened.and_then(|fd| steps.down(index, fd).source("look at"));
                entered.map_err(at(index))?;
            }
            Kind::File { .. } => {
                if is_written(directory, &entry.name)
                    .source("open")
                    .map_err(at(index))?
                {
                    return Ok(Some(manifest.path(index)));
                }
            }
            Kind::Symlink { .. } | Kind::Fifo => {}
        }
    }
    Ok(None)
}

fn is_written(directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match open_noatime(directory, name, flags) {
        Ok(file) => Ok(calls::has_writers(&file)),
        Err(Errno::NOENT | Errno::LOOP | Errno::ACCESS | Errno::NXIO) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The first directory of a tree whose entries the caller may not remove, because it is not writable and searchable;
/// `None` if the caller may remove all.
///
/// # Errors
///
/// An error of opening a directory.
pub fn unremovable(tree: impl AsFd, manifest: &Manifest) -> Result<Option<std::path::PathBuf>> {
    use rustix::fs::{Access, AtFlags, accessat};
    let at = |index: usize| move |failure: Failure| failure.at(manifest.path(index));
    let top = open_to_list(tree, OsStr::new(".")).source("open");
    let mut steps = IndexedDirStack::new(top.map_err(at(0))?);
    let may = |directory: &OwnedFd| {
        let access = Access::WRITE_OK | Access::EXEC_OK;
        // The owner may add the right.
        let own = rustix::fs::fstat(directory)
            .is_ok_and(|stat| stat.st_uid == rustix::process::geteuid().as_raw());
        own || accessat(directory, ".", access, AtFlags::EACCESS) != Err(Errno::ACCESS)
    };
    if !may(steps.current()) {
        return Ok(Some(manifest.path(0)));
    }
    for (index, entry) in manifest.entries().iter().enumerate().skip(1) {
        if !matches!(entry.kind, Kind::Directory) {
            continue;
        }
        while steps.position() != entry.parent {
            if steps.up().source("leave").map_err(at(index))?.is_none() {
                break;
            }
        }
        let opened = rustix::fs::openat(
            &**steps.current(),
            &*entry.name,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let opened = opened.listed("open").map_err(at(index))?;
        if !may(&opened) {
            return Ok(Some(manifest.path(index)));
        }
        steps
            .down(index, opened)
            .source("look at")
            .map_err(at(index))?;
    }
    Ok(None)
}
