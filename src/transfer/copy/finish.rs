//! Makes hard links and sets the attributes of directories, after all files have been copied.
//!
//! Directories are finished from the bottom up, because a new entry in a directory changes its times.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::entry;
use super::work::{Target, Work};
use crate::sys::at::{open_dirs, open_to_list};
use crate::sys::dir_stack::IndexedDirStack;
use crate::transfer::attributes::Attributes;
use crate::transfer::attributes::loss::{Losses, Lost};
use crate::transfer::durable::sync_directory;
use crate::transfer::error::{Context, Error, Failure};
use crate::transfer::manifest::{self, Entry, Kind, Manifest};

/// A copy that has all its files.
pub(super) struct Finish<'a> {
    pub(super) work: &'a Work<'a>,
    pub(super) target: &'a Target<'a>,
    pub(super) manifest: &'a Manifest,
    /// The attributes that directories get, by their position in the manifest.
    pub(super) directories: RefCell<HashMap<usize, Attributes>>,
    /// Whether each directory must be synced.
    pub(super) each: bool,
    /// The attributes of directories that could not be kept.
    pub(super) losses: RefCell<Losses>,
    /// The final modes of directories, by their positions.
    pub(super) modes: RefCell<Vec<(usize, u32)>>,
}

impl Finish<'_> {
    /// Sets the attributes of every directory, the top last.
    pub(super) fn directories(&self, top: OwnedFd) -> Result<(), Error> {
        let mut steps = IndexedDirStack::new(top);
        for (index, entry) in self.manifest.entries().iter().enumerate().skip(1) {
            if !matches!(entry.kind, Kind::Directory) {
                continue;
            }
            while steps.position() != entry.parent {
                if !self.go_up(&mut steps)? {
                    break;
                }
            }
            let entered = open_to_list(&**steps.current(), &entry.name)
                .copy("open")
                .and_then(|fd| steps.down(index, fd).copy("look at"));
            entered.map_err(|failure| failure.at(self.manifest.path(index)))?;
        }
        while self.go_up(&mut steps)? {}
        self.directory(0, steps.current())
    }

    /// Goes up, and finishes the directory that was left; returns false at the top.
    fn go_up(&self, steps: &mut IndexedDirStack) -> Result<bool, Error> {
        let index = steps.position();
        // Goes up first: the final mode of a directory may forbid looking up `..` in it.
        let left = steps.up().copy("leave");
        match left.map_err(|failure| failure.at(self.manifest.path(index)))? {
            Some(left) => self.directory(index, &left).map(|()| true),
            None => Ok(false),
        }
    }

    fn directory(&self, index: usize, fd: &Arc<OwnedFd>) -> Result<(), Error> {
        let finish = || {
            self.work.go_on()?;
            // Each directory is finished once.
            let attributes = self.directories.borrow_mut().remove(&index);
            if let Some(mut attributes) = attributes {
                if let Some(originals) = self.work.options.originals {
                    let (path, mtime) = (self.manifest.path(index), attributes.mtime());
                    let original = originals.mtime(&path, &Kind::Directory, mtime);
                    attributes.set_times(original.unwrap_or(mtime));
                }
                let mode = attributes.apply(&self.target.created, &**fd, |lost| {
                    let path = || self.manifest.path(index);
                    self.losses.borrow_mut().add(lost, path);
                })?;
                self.modes.borrow_mut().push((index, mode));
            }
            if self.each {
                sync_directory(&**fd).copy("write")?;
            }
            Ok(())
        };
        finish().map_err(|failure: Failure| failure.at(self.manifest.path(index)))
    }
}

/// Makes the further names of files, after the first names have been written. The entries are in the order in which
/// they were found, so the first name of a file is the written one. Where the disk has no hard links, or permits no
/// more of one file, each further name becomes a separate file, also in the entries.
pub(super) fn links(
    work: &Work<'_>,
    target: &Target<'_>,
    (entries, losses): (&mut [Entry], &mut Losses),
    top: impl AsFd,
) -> Result<(), Error> {
    let mut opened: Option<(usize, OwnedFd)> = None;
    for index in 0..entries.len() {
        let Some(entry) = entries.get(index) else {
            break;
        };
        let Kind::File {
            link: Some(first), ..
        } = entry.kind
        else {
            continue;
        };
        let linked = work
            .go_on()
            .and_then(|()| link((work, target), entries, &top, (first, index), &mut opened));
        let linked = linked.map_err(|failure| failure.at(manifest::path(entries, index)))?;
        if !linked {
            losses.add(Lost::HardLink, || manifest::path(entries, index));
            if let Some(entry) = entries.get_mut(index)
                && let Kind::File { link, .. } = &mut entry.kind
            {
                *link = None;
            }
        }
    }
    Ok(())
}

/// Returns whether the new name is a hard link.
fn link(
    (work, target): (&Work<'_>, &Target<'_>),
    entries: &[Entry],
    top: impl AsFd,
    (first, index): (usize, usize),
    opened: &mut Option<(usize, OwnedFd)>,
) -> Result<bool, Failure> {
    let (Some(from), Some(to)) = (entries.get(first), entries.get(index)) else {
        return Ok(true);
    };
    // Links to one file often follow each other.
    let from_dir = match opened.take() {
        Some((position, fd)) if position == from.parent => fd,
        _ => open(entries, &top, from.parent)?,
    };
    let to_dir = open(entries, &top, to.parent)?;
    let flags = AtFlags::empty();
    let linked = match rustix::fs::linkat(&from_dir, &*from.name, &to_dir, &*to.name, flags) {
        // vfat, some of CIFS and of FUSE; too many links; another quota project.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::XDEV) => {
            entry::duplicate(work, target, (&from_dir, &from.name), (&to_dir, &to.name))?;
            false
        }
        linked => linked.copy("link").map(|()| true)?,
    };
    *opened = Some((from.parent, from_dir));
    Ok(linked)
}

/// Opens a directory of the copy, by its position.
fn open(entries: &[Entry], top: impl AsFd, index: usize) -> Result<OwnedFd, Failure> {
    open_dirs(top, manifest::names(entries, index).into_iter()).copy("open")
}
