//! Records when all copies of a folder were verified last, in the primary's `.xpmfs/archive/verified/`.

use std::ffi::OsStr;

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
use rustix::io::Result;
use serde::{Deserialize, Serialize};

use super::{places, state_dir};
use crate::sys::at;
use crate::view::Location;

/// The directory of the records, in the primary's `.xpmfs/archive`.
const VERIFIED: &str = "verified";

/// The same, in the primary's `.xpmfs`.
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
}

/// Records the verification of a folder, in place of an earlier one.
///
/// # Errors
///
/// Errors of the primary's file system.
pub fn set(primary: &Location, folder: &Location, last: &LastVerify) -> Result<()> {
    let names = [state_dir::ARCHIVE, VERIFIED].map(OsStr::new);
    let dir = places::make_own(primary, names)?;
    let text = serde_json::to_string(last).unwrap_or_default();
    state_dir::replace(
        primary,
        &dir,
        &state_dir::folder_name(folder),
        text.as_bytes(),
    )
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
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let name = state_dir::folder_name(folder);
    let Some(file) = at::absent(rustix::fs::openat(dir, &name, flags, Mode::empty()))? else {
        return Ok(None);
    };
    let mut text = vec![0; RECORD_MAX];
    let count = rustix::io::read(file, &mut text)?;
    text.truncate(count);
    Ok(serde_json::from_slice(&text).ok())
}
