//! Records when copies were verified last, in the primary's `.xpmfs/archive/`.
//!
//! | file | meaning |
//! | --- | --- |
//! | `verified/<BLAKE3 of the folder's path>` | when all copies of the folder were verified |
//! | `verified-copies/<BLAKE3 of the folder's path>/<task_id>/<hash>` | when this copy was verified by itself, since then, and found intact |

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
use rustix::io::Result;
use serde::{Deserialize, Serialize};

use super::{places, state_dir};
use crate::sys::at;
use crate::view::Location;
use crate::workspace::jobs::JobId;

/// The directory of the records of folders, in the primary's `.xpmfs/archive`.
const VERIFIED: &str = "verified";

/// The directory of the records of single copies, in the primary's `.xpmfs/archive`.
const VERIFIED_COPIES: &str = "verified-copies";

/// The records of folders, in the primary's `.xpmfs`.
pub const RECORDS: &str = "archive/verified";

/// The most bytes of a record that are read.
const RECORD_MAX: usize = 1024;

/// When all copies of a folder were verified, and how many there were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastVerify {
    /// When the verification began: copies that were made later were not read. Earlier versions have not recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When the verification ended.
    pub at: Timestamp,
    /// How many copies it compared with their manifests, those included that are missing.
    pub copies: u64,
    /// How many of these were damaged, incomplete, missing or unreadable.
    pub wrong: u64,
    /// How many of the wrong ones could not be read, so that nothing else is recorded of them. Earlier versions have not recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<u64>,
    /// How many other copies had no manifest to be compared with, so that they were not verified. Earlier versions have not recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_manifest: Option<u64>,
}

impl LastVerify {
    /// How many of the wrong copies were made anew or found intact since, if `damaged` copies of the folder are on record now.
    #[must_use]
    pub fn mended(&self, damaged: u64) -> u64 {
        let unread = self.unread.unwrap_or(self.wrong);
        self.wrong.saturating_sub(damaged.saturating_add(unread))
    }
}

/// When one copy was verified by itself.
#[derive(Debug, Serialize, Deserialize)]
struct VerifiedCopy {
    /// When the verification began.
    since: Timestamp,
}

/// Records the verification of a folder, in place of an earlier one and of those of its single copies.
///
/// # Errors
///
/// Errors of the primary's file system.
pub fn set(primary: &Location, folder: &Location, last: &LastVerify) -> Result<()> {
    let names = [state_dir::ARCHIVE, VERIFIED].map(OsStr::new);
    let dir = places::make_own(primary, names)?;
    let text = serde_json::to_string(last).unwrap_or_default();
    let name = state_dir::folder_name(folder);
    state_dir::replace(primary, &dir, &name, text.as_bytes())?;
    state_dir::retain(primary, VERIFIED_COPIES, folder, |_| false)
}

/// Returns the last verification of a folder; `None` if there was none, or its record cannot be understood.
///
/// # Errors
///
/// Errors of the primary's file system.
pub fn of(primary: &Location, folder: &Location) -> Result<Option<LastVerify>> {
    let Some(dir) = state_dir::open(primary, &[OsStr::new(VERIFIED)])? else {
        return Ok(None);
    };
    read(&dir, &state_dir::folder_name(folder))
}

/// Records that a folder's copy of a job was verified by itself and found intact; `since`: when that began.
///
/// # Errors
///
/// Errors of the primary's file system.
pub fn set_copy(
    primary: &Location,
    folder: &Location,
    job: &JobId,
    since: Timestamp,
) -> Result<()> {
    let folder = state_dir::folder_name(folder);
    let names = [state_dir::ARCHIVE, VERIFIED_COPIES].map(OsStr::new);
    let names = names.into_iter().chain([&*folder, job.task_id()]);
    let dir = places::make_own(primary, names)?;
    let text = serde_json::to_string(&VerifiedCopy { since }).unwrap_or_default();
    state_dir::replace(primary, &dir, job.hash(), text.as_bytes())
}

/// When a folder's copy of a job was verified last, by itself or with all others; `written`: when its manifest was written, since a
/// verification that began earlier has read another copy.
///
/// # Errors
///
/// Errors of the primary's file system.
pub fn of_copy(
    primary: &Location,
    folder: &Location,
    job: &JobId,
    written: Timestamp,
) -> Result<Option<Timestamp>> {
    let names = [
        OsStr::new(VERIFIED_COPIES),
        &state_dir::folder_name(folder),
        job.task_id(),
    ];
    let single: Option<VerifiedCopy> = match state_dir::open(primary, &names)? {
        Some(dir) => read(&dir, job.hash())?,
        None => None,
    };
    let single = single.map(|copy| (copy.since, copy.since));
    let all = of(primary, folder)?.and_then(|last| Some((last.since?, last.at)));
    let known = [single, all].into_iter().flatten();
    Ok(known
        .filter(|(since, _)| written < *since)
        .map(|(_, at)| at)
        .max())
}

fn read<T: serde::de::DeserializeOwned>(dir: &OwnedFd, name: &OsStr) -> Result<Option<T>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Some(file) = at::absent(rustix::fs::openat(dir, name, flags, Mode::empty()))? else {
        return Ok(None);
    };
    let mut text = vec![0; RECORD_MAX];
    let count = rustix::io::read(file, &mut text)?;
    text.truncate(count);
    Ok(serde_json::from_slice(&text).ok())
}
