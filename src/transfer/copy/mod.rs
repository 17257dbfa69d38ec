//! Copies one tree, from the first name to the last `fsync`; reads one again, and compares it.
//!
//! - `walk`: goes through the source; `workers`: the threads; `work`: the state that these share
//! - `entry`: one file, symlink or fifo; `data`: a file's bytes; `holes`: where the data is; `digest`: the hash
//! - `finish`: hard links and directories; `recheck`: whether the source has changed
//! - `page_cache`: leaves the page cache as it was
//! - [`verify`]: reads a tree again

mod data;
mod digest;
mod entry;
mod finish;
mod holes;
mod page_cache;
mod recheck;
pub(super) mod verify;
mod walk;
mod work;
mod workers;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::sys::at::open_to_list;
use crate::transfer::attributes::loss::{Loss, Losses};
use crate::transfer::attributes::{Attributes, shed_inherited};
use crate::transfer::error::{Context, Error, Failure, Result};
use crate::transfer::manifest::Manifest;
use crate::transfer::options::Selector;
use crate::transfer::{Durability, Options, Writeback};
use finish::{Finish, links};
use recheck::Remembered;
use walk::walk;
use work::{FEW, Found, Target, Work};

/// A tree that has been copied.
#[derive(Debug)]
pub struct Copied {
    /// The content of the copy.
    pub manifest: Manifest,
    /// The attributes that could not be kept.
    pub losses: Vec<Loss>,
    remembered: Remembered,
}

impl Copied {
    /// Checks that the source is still as it was copied: no entry was added, removed or changed, and the entries that
    /// were left out would still be left out. Reads no file. A copy that is durable when it returns does this itself at
    /// its end; the caller must repeat the check before it removes the source.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] with the first entry that is different; an error of looking at the source.
    pub fn unchanged(&self, source: impl AsFd, select: Option<&Selector<'_>>) -> Result<()> {
        self.remembered
            .unchanged(source, &self.manifest, select, false)
    }

    /// As [`Copied::unchanged`], after the source was renamed.
    ///
    /// # Errors
    ///
    /// As [`Copied::unchanged`].
    pub fn unchanged_but_renamed(
        &self,
        source: impl AsFd,
        select: Option<&Selector<'_>>,
    ) -> Result<()> {
        self.remembered
            .unchanged(source, &self.manifest, select, true)
    }
}

/// Copies the content and the attributes of the directory `source` to the directory `copy`, which must be empty and
/// private to the caller: a staging, which is renamed when it is complete.
///
/// Both are descriptors (`O_PATH` is sufficient), and every path is relative to them; no symlink is followed. A process
/// that changes names in the source meanwhile makes the copy fail, but cannot redirect it. The copy keeps contents,
/// holes, hard links of files within the tree, symlinks, fifos, empty directories, modes, times of access and change to
/// the nanosecond, extended attributes and access control lists, and owners where that is permitted. [`Copied`] lists
/// the attributes that could not be kept. A hard link to a file outside of the tree becomes a separate file.
///
/// When the call returns, the copy is durable as `options` specify, except the name of `copy` itself, which the caller
/// must sync. With [`Durability::Together`], the caller must check that the source has not changed
/// ([`Copied::unchanged`]) when the copy is durable. If the call fails, the caller must remove the partial copy.
///
/// # Errors
///
/// [`Error::Io`] with the entry and the operation; [`Error::Changed`] if the source changed meanwhile, and
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

/// Reads the content of the directory `source` as [`copy`] does, and writes nothing.
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

/// Looks at the directory `source` as [`read`] does, and reads no file: the hashes of the manifest are zeros.
///
/// # Errors
///
/// As [`copy`].
pub fn observe(source: impl AsFd, options: &Options<'_>) -> Result<Copied> {
    let top = |failure: Failure| failure.at("".into());
    let from = open_to_list(&source, OsStr::new("."))
        .source("open")
        .map_err(top)?;
    let mut work = Work::new(options, None);
    work.look_only = true;
    walk(&work, from, None);
    let found = work.found()?;
    finish(&work, found, None)
}

/// Makes the links, sets the attributes of directories, and makes the copy durable.
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
    // Where each entry is now.
    let mut places = vec![0; order.len()];
    let mut arranged = HashMap::new();
    let mut ordered = Vec::with_capacity(order.len());
    for (new, old) in order.into_iter().enumerate() {
        ordered.extend(stamps.get(old));
        if let Some(attributes) = directories.remove(&old) {
            arranged.insert(new, attributes);
        }
        if let Some(place) = places.get_mut(old) {
            *place = new;
        }
    }
    let excluded = excluded.into_iter().map(|mut excluded| {
        excluded.parent = places.get(excluded.parent).copied().unwrap_or(0);
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
