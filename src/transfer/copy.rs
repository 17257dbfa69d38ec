//! One copy, from the first name to the last `fsync`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::attributes::{Attributes, shed_inherited};
use super::error::{Context, Error, Failure, Result};
use super::finish::{Finish, links};
use super::loss::{Loss, Losses};
use super::manifest::Manifest;
use super::recheck::Remembered;
use super::select::Select;
use super::walk::walk;
use super::work::{FEW, Found, Target, Work};
use super::{Durability, Options, Writeback};
use crate::sys::at::open_to_list;

/// A tree that has been copied.
#[derive(Debug)]
pub struct Copied {
    /// What the copy holds.
    pub manifest: Manifest,
    /// What could not be kept.
    pub losses: Vec<Loss>,
    remembered: Remembered,
}

impl Copied {
    /// Looks at the source again, and tells whether it is still what was copied: nothing added, removed, or changed,
    /// and what was left out still to be left out. It reads no file. A copy that is durable when it returns does this
    /// itself at its end; do it again before the source is given up.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] names the first entry that is different; what looking at it gives.
    pub fn unchanged(&self, source: impl AsFd, select: Option<&Select<'_>>) -> Result<()> {
        self.remembered
            .unchanged(source, &self.manifest, select, false)
    }

    /// [`Copied::unchanged`], after the source has got another name.
    ///
    /// # Errors
    ///
    /// See there.
    pub fn unchanged_but_renamed(
        &self,
        source: impl AsFd,
        select: Option<&Select<'_>>,
    ) -> Result<()> {
        self.remembered
            .unchanged(source, &self.manifest, select, true)
    }
}

/// Copies what is in the directory `source`, and its attributes, to the directory `copy`, which is empty and the caller's
/// alone: staging, which is renamed when it is whole.
///
/// Both are descriptors (`O_PATH` will do), and everything is relative to them; no symlink is followed. Whoever changes names
/// in the source meanwhile makes the copy fail, and leads it nowhere. Kept are contents, holes, hard links
/// of files within the tree, symlinks, fifos, empty directories, modes, times of access and change to the nanosecond,
/// extended attributes and access control lists, and owners where that is permitted; what could not be kept is told. A hard
/// link to a file outside of the tree becomes a file of its own.
///
/// When it returns, the copy is durable as `options` say, but for the name of `copy` itself: that is the caller's. With
/// [`Durability::Together`], whether the source has held still is for the caller to see ([`Copied::unchanged`]) when the copy is durable.
/// If it fails, what has been written so far is left, for the caller to remove.
///
/// # Errors
///
/// [`Error::Io`] with the entry and what was tried; [`Error::Changed`] if the source did not hold still, and
/// [`Error::Cancelled`].
pub fn copy(source: impl AsFd, copy: impl AsFd, options: &Options<'_>) -> Result<Copied> {
    let top = |failure: Failure| failure.at("".into());
    let here = OsStr::new(".");
    let from = open_to_list(&source, here).source("open").map_err(top)?;
    let to = open_to_list(&copy, here).copy("open").map_err(top)?;
    let own;
    let (writeback, now) = match options.durability {
        Durability::Together(writeback) => (writeback, false),
        Durability::Now => {
            own = Writeback::watch(&to).map_err(|cause| sync_error("open", &cause))?;
            (&own, true)
        }
    };
    shed_inherited(&to).map_err(top)?;
    let target = Target {
        writeback,
        now,
        clones: AtomicBool::new(true),
        created: OnceLock::new(),
        held: Mutex::new(Some(Vec::new())),
    };
    let work = Work::new(options, Some(target));
    let walked = open_to_list(&to, here).copy("open").map_err(top)?;
    walk(&work, from, Some(walked));
    let found = work.found()?;
    let copied = finish(&work, found, Some(to))?;
    if now {
        copied.unchanged(source, options.select)?;
    }
    Ok(copied)
}

/// Reads what is in the directory `source` as [`copy`] does, and writes nothing.
///
/// # Errors
///
/// As [`copy`].
pub fn read(source: impl AsFd, options: &Options<'_>) -> Result<Copied> {
    let top = |failure: Failure| failure.at("".into());
    let from = open_to_list(&source, OsStr::new("."))
        .source("open")
        .map_err(top)?;
    let work = Work::new(options, None);
    walk(&work, from, None);
    let found = work.found()?;
    let read = finish(&work, found, None)?;
    read.unchanged(source, options.select)?;
    Ok(read)
}

/// Links, the attributes of directories, and durability.
fn finish(work: &Work<'_>, found: Found, to: Option<OwnedFd>) -> Result<Copied> {
    let Found {
        mut entries,
        stamps,
        mut directories,
        excluded,
        mut losses,
        ..
    } = found;
    if let (Some(target), Some(to)) = (&work.target, &to) {
        links(work, target, (&mut entries, &mut losses), to)?;
    }
    let (mut manifest, order) = Manifest::arrange(entries);
    let mut places = HashMap::new();
    let mut arranged = HashMap::new();
    let mut ordered = Vec::with_capacity(order.len());
    for (new, old) in order.into_iter().enumerate() {
        ordered.extend(stamps.get(old));
        if let Some(attributes) = directories.remove(&old) {
            arranged.insert(new, attributes);
            places.insert(old, new);
        }
    }
    let excluded = excluded.into_iter().map(|mut excluded| {
        excluded.parent = places.get(&excluded.parent).copied().unwrap_or(0);
        excluded
    });
    let remembered = Remembered {
        stamps: ordered,
        excluded: excluded.collect(),
    };
    let losses = match (&work.target, to) {
        (Some(target), Some(to)) => {
            let directories = (arranged, losses);
            let (losses, modes) = complete(work, target, &manifest, directories, to)?;
            manifest.set_modes(modes);
            losses
        }
        _ => losses,
    };
    Ok(Copied {
        losses: losses.into_list(),
        manifest,
        remembered,
    })
}

fn complete(
    work: &Work<'_>,
    target: &Target<'_>,
    manifest: &Manifest,
    (directories, losses): (HashMap<usize, Attributes>, Losses),
    to: OwnedFd,
) -> Result<(Losses, Vec<(usize, u32)>)> {
    let held = target.held.lock().take();
    let few = held.filter(|files| target.now && files.len() + directories.len() <= FEW);
    let each = few.is_some() || !target.writeback.is_whole();
    let finish = Finish {
        work,
        target,
        manifest,
        directories: RefCell::new(directories),
        each,
        losses: RefCell::new(losses),
        modes: RefCell::default(),
    };
    for file in few.iter().flatten() {
        let synced = rustix::fs::fsync(file).copy("write");
        synced.map_err(|failure| failure.at("".into()))?;
    }
    finish.directories(to)?;
    if target.now && few.is_none() {
        target
            .writeback
            .sync()
            .map_err(|cause| sync_error("write", &cause))?;
    }
    Ok((finish.losses.into_inner(), finish.modes.into_inner()))
}

fn sync_error(operation: &'static str, cause: &std::io::Error) -> Error {
    let errno = Errno::from_io_error(cause).unwrap_or(Errno::IO);
    match Err::<(), _>(errno).copy(operation) {
        Err(failure) => failure.at("".into()),
        Ok(()) => Error::Cancelled,
    }
}
