//! Reads a tree again, and compares it with its manifest.

use std::ffi::OsStr;
use std::os::fd::AsFd;

use super::walk::walk;
use super::work::{Found, Work};
use crate::sys::at::open_to_list;
use crate::transfer::Options;
use crate::transfer::error::{Context, Result};
use crate::transfer::manifest::{Difference, Entry, Kind, Manifest, Time, What};
use crate::transfer::progress::Size;

/// The attributes of a tree whose files have not been read.
#[derive(Debug)]
pub struct Measured {
    /// The time of the last change of the tree or an entry: content or attributes.
    pub newest: Time,
    /// Bytes that the files use on their disk, each file once and without holes; some disks report less until a file is
    /// written back.
    pub taken: u64,
    /// The amount that a copy of the tree counts.
    pub size: Size,
}

/// Looks at every entry of a tree, and reads no file.
///
/// # Errors
///
/// As [`scan`].
pub fn measure(tree: impl AsFd, options: &Options<'_>) -> Result<Measured> {
    let Found {
        stamps,
        taken,
        entries,
        ..
    } = look(tree, options)?;
    let newest = stamps
        .iter()
        .map(crate::transfer::stamp::Stamp::newest)
        .max();
    Ok(Measured {
        newest: newest.unwrap_or_default(),
        taken,
        size: size(&entries),
    })
}

fn size(entries: &[Entry]) -> Size {
    let mut size = Size::default();
    for entry in entries {
        match &entry.kind {
            Kind::Directory => continue,
            Kind::File {
                size: bytes,
                link: None,
                ..
            } => size.bytes = size.bytes.saturating_add(*bytes),
            _ => {}
        }
        size.files += 1;
    }
    size
}

/// The manifest of a tree without the contents of its files: their hashes are zeros.
///
/// # Errors
///
/// As [`scan`].
pub fn outline(tree: impl AsFd, options: &Options<'_>) -> Result<Manifest> {
    Ok(Manifest::arrange(look(tree, options)?.entries).0)
}

fn look(tree: impl AsFd, options: &Options<'_>) -> Result<Found> {
    let top = open_to_list(tree, OsStr::new("."))
        .source("open")
        .map_err(|failure| failure.at("".into()))?;
    let mut work = Work::new(options, None);
    work.look_only = true;
    walk(&work, top, None);
    work.found()
}

/// Reads and hashes a tree, without copying it.
///
/// # Errors
///
/// The first entry that could not be read; [`Error::Cancelled`](crate::transfer::Error::Cancelled). Changes are not detected, so
/// the manifest of a tree that changes meanwhile may describe a state that never existed.
pub fn scan(tree: impl AsFd, options: &Options<'_>) -> Result<Manifest> {
    run(tree, options, false).map(|(manifest, _)| manifest)
}

/// Reads a tree again, from the disk and not from the cache, and returns every difference from a manifest: the manifest
/// of the copy itself, or one that [`scan`] has made of another tree. Entries that `options.select` excludes are
/// ignored.
///
/// # Errors
///
/// If the top cannot be opened, or the call is cancelled. An entry that cannot be read is a difference.
pub fn verify(
    tree: impl AsFd,
    manifest: &Manifest,
    options: &Options<'_>,
) -> Result<Vec<Difference>> {
    let (found, unreadable) = run(tree, options, true)?;
    let mut differences = manifest.differences(&found);
    // The state of an unreadable entry, and of all entries in it, is unknown.
    differences.retain(|difference| {
        !unreadable
            .iter()
            .any(|entry| difference.path.starts_with(&entry.path))
    });
    differences.extend(unreadable);
    differences.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(differences)
}

fn run(
    tree: impl AsFd,
    options: &Options<'_>,
    verify: bool,
) -> Result<(Manifest, Vec<Difference>)> {
    let top = open_to_list(tree, OsStr::new("."))
        .source("open")
        .map_err(|failure| failure.at("".into()))?;
    let mut work = Work::new(options, None);
    work.lenient = verify;
    work.afresh = verify;
    walk(&work, top, None);
    let found = work.found()?;
    let unreadable = found.errors.into_iter().map(|error| Difference {
        path: error.path().map(ToOwned::to_owned).unwrap_or_default(),
        what: What::Unreadable(error),
    });
    let (manifest, _) = Manifest::arrange(found.entries);
    Ok((manifest, unreadable.collect()))
}
