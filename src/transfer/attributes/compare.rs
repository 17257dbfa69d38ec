//! Compares the attributes of a copy with those of its original.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::OFlags;

use super::Attributes;
use crate::sys::at;
use crate::sys::at::{open_noatime, open_to_list};
use crate::sys::dir_stack::IndexedDirStack;
use crate::transfer::error::{Context, Failure, Result};
use crate::transfer::manifest::{Kind, Manifest};

const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The first file or directory of a tree whose copy differs in its mode, an extended attribute, an access control list,
/// or, where the caller may change owners, in its owner. The path is relative to the top. Times and symlinks are not
/// compared. `manifest` is the tree's; a file that the copy lacks counts as different.
///
/// # Errors
///
/// An error of reading the tree.
pub fn first_difference(
    tree: impl AsFd,
    copy: impl AsFd,
    manifest: &Manifest,
) -> Result<Option<PathBuf>> {
    let at = |index: usize| move |failure: Failure| failure.at(manifest.path(index));
    let open = |top: &dyn AsFd| open_to_list(top.as_fd(), OsStr::new(".")).source("open");
    let tops = open(&tree).and_then(|tree| Ok((tree, open(&copy)?)));
    let (top, other) = tops.map_err(at(0))?;
    if !is_alike(&top, &other).map_err(at(0))? {
        return Ok(Some(manifest.path(0)));
    }
    let (mut here, mut there) = (IndexedDirStack::new(top), IndexedDirStack::new(other));
    for (index, entry) in manifest.entries().iter().enumerate().skip(1) {
        while here.position() != entry.parent {
            let up = here.up().and_then(|up| Ok((up, there.up()?)));
            if up.source("leave").map_err(at(index))?.0.is_none() {
                break;
            }
        }
        let (mine, theirs) = (&**here.current(), &**there.current());
        let other = |failed: bool| failed.then(|| manifest.path(index));
        match entry.kind {
            Kind::Directory => {
                let opened = open_to_list(mine, &entry.name).listed("open");
                let opened = opened.map_err(at(index))?;
                let Ok(copied) = open_to_list(theirs, &entry.name) else {
                    return Ok(other(true));
                };
                if !is_alike(&opened, &copied).map_err(at(index))? {
                    return Ok(other(true));
                }
                let entered = here.down(index, opened).source("look at");
                entered
                    .and_then(|()| there.down(index, copied).source("look at"))
                    .map_err(at(index))?;
            }
            Kind::File { .. } => {
                let opened = open_noatime(mine, &entry.name, READ).listed("open");
                let opened = opened.map_err(at(index))?;
                let Ok(copied) = open_noatime(theirs, &entry.name, READ) else {
                    return Ok(other(true));
                };
                if !is_alike(&opened, &copied).map_err(at(index))? {
                    return Ok(other(true));
                }
            }
            Kind::Symlink { .. } | Kind::Fifo => {}
        }
    }
    Ok(None)
}

fn is_alike(one: &OwnedFd, other: &OwnedFd) -> std::result::Result<bool, Failure> {
    let read = |fd: &OwnedFd| Attributes::read(fd, &at::stat_fd(fd).source("look at")?);
    Ok(read(one)?.are_those_of(&read(other)?))
}
