//! Records which copies of runs and partials were found damaged or missing, for `status`.
//!
//! The record of a copy is `<primary>/.xpmfs/archive/damaged-items/<BLAKE3 of the folder's path>/<BLAKE3 of the item's name>`: a JSON list
//! of the item's name and of what is wrong with its copy.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::Item;
use crate::archive::{places, state_dir};
use crate::sys::at;
use crate::view::Location;
use crate::view::jobs::names;

/// Where damaged copies are recorded, in the primary's `.xpmfs`.
pub const DAMAGED_ITEMS: &str = "archive/damaged-items";

/// The directory of the records, in `.xpmfs/archive`.
const DAMAGED: &str = "damaged-items";

/// The most bytes of a finding, and of a record that is read.
const FINDING_MAX: usize = 1024;
const RECORD_MAX: u64 = 16 << 10;

/// The most records of a folder that are counted.
const COUNT_MAX: usize = 10_000;

/// Copies of a folder that were found damaged or missing.
#[derive(Debug, Default)]
pub struct DamagedItems {
    /// How many, at most [`COUNT_MAX`].
    pub count: usize,
    /// The first few: the names of the items, and the findings.
    pub first: Vec<(String, String)>,
}

/// Records what is wrong with a folder's copy of an item; `None` removes the record.
///
/// # Errors
///
/// Errors of the primary's file system.
pub fn set(
    primary: &Location,
    folder: &Location,
    item: &Item,
    finding: Option<&str>,
) -> Result<()> {
    let folder = state_dir::folder_name(folder);
    let names = [OsStr::new(DAMAGED), &folder];
    let Some(finding) = finding else {
        let Some(dir) = state_dir::open(primary, &names)? else {
            return Ok(());
        };
        return at::absent(rustix::fs::unlinkat(dir, file(item), AtFlags::empty())).map(drop);
    };
    let names = [OsStr::new(state_dir::ARCHIVE)].into_iter().chain(names);
    let dir = places::make_own(primary, names)?;
    let short: String = finding.chars().take(FINDING_MAX).collect();
    let record = serde_json::to_vec(&(item.to_string(), short)).map_err(|_| Errno::INVAL)?;
    state_dir::replace(primary, &dir, &file(item), &record)
}

/// Removes the records of a folder that are about other items than these: their copies and manifests are gone.
///
/// # Errors
///
/// Errors of the primary's file system.
pub fn retain(primary: &Location, folder: &Location, items: &[Item]) -> Result<()> {
    let folder = state_dir::folder_name(folder);
    let Some(dir) = state_dir::open(primary, &[OsStr::new(DAMAGED), &folder])? else {
        return Ok(());
    };
    let files: std::collections::HashSet<OsString> = items.iter().map(file).collect();
    for name in names(&dir)? {
        if !files.contains(&name) {
            at::absent(rustix::fs::unlinkat(&dir, &name, AtFlags::empty()))?;
        }
    }
    Ok(())
}

/// The copies of a folder that were found damaged or missing, the first `limit` of them with the findings.
///
/// # Errors
///
/// Errors of the primary's file system.
pub fn list(primary: &Location, folder: &Location, limit: usize) -> Result<DamagedItems> {
    let mut damaged = DamagedItems::default();
    let folder = state_dir::folder_name(folder);
    let Some(dir) = state_dir::open(primary, &[OsStr::new(DAMAGED), &folder])? else {
        return Ok(damaged);
    };
    for name in names(&dir)? {
        damaged.count += 1;
        if damaged.first.len() < limit {
            damaged.first.extend(read(&dir, &name));
        }
        if damaged.count == COUNT_MAX {
            break;
        }
    }
    damaged.first.sort();
    Ok(damaged)
}

/// The name of an item and the finding; `None` for a record that cannot be read: the next verification replaces it.
fn read(dir: &OwnedFd, name: &OsStr) -> Option<(String, String)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, name, flags, Mode::empty()).ok()?;
    let mut text = Vec::new();
    let mut file = File::from(opened).take(RECORD_MAX);
    file.read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The name of the record of an item, which may be longer than a file name.
fn file(item: &Item) -> OsString {
    let path = item.parents().join(OsStr::new("/"));
    let mut hasher = blake3::Hasher::new();
    hasher.update(path.as_encoded_bytes());
    hasher.update(b"/");
    hasher.update(item.name().as_encoded_bytes());
    hasher.finalize().to_hex().as_str().into()
}
