//! The names of a staging, its lock and its leftovers beside a job's directory.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::error::{Result, StagingError};
use crate::workspace::jobs::is_job_entry;
use crate::workspace::layout::STAGING_PREFIX;

/// The suffix of the lock file: its name is that of the staging with this suffix.
pub(super) const LOCK_SUFFIX: &str = ".lock";

/// The prefix of the name under which an exchange by renames keeps the previous entry. experimaestro's sweep removes
/// directories `.tmp.*` when their lock is free, and a crash frees the lock; the sweep ignores this prefix. Users do
/// not use this prefix for jobs that they set aside. It is no longer than the additions in a lock file's name.
pub(super) const OLD_PREFIX: &str = ".replaced.";

/// The longest name of a Linux file system, in bytes.
const LONGEST: usize = 255;

pub(super) const TOO_LONG: &str = "is too long a name for a job that is to be copied: beside it there must be room for one that is 10 bytes longer";

/// A job's name, and the names beside it.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) hash: OsString,
    pub(super) staging: OsString,
    pub(super) lock: OsString,
    pub(super) old: OsString,
}

impl Names {
    /// # Errors
    ///
    /// [`StagingError::Name`] if the name cannot be a job's or is too long.
    pub(super) fn of(hash: &OsStr) -> Result<Names> {
        let wrong = |why| StagingError::Name {
            name: hash.to_owned(),
            why,
        };
        if !is_job_entry(hash) {
            return Err(wrong("cannot be the name of a job"));
        }
        let staging = joined(&[OsStr::new(STAGING_PREFIX), hash]);
        let lock = joined(&[&staging, OsStr::new(LOCK_SUFFIX)]);
        if lock.len() > LONGEST {
            return Err(wrong(TOO_LONG));
        }
        Ok(Names {
            hash: hash.to_owned(),
            old: joined(&[OsStr::new(OLD_PREFIX), hash]),
            staging,
            lock,
        })
    }
}

fn joined(parts: &[&OsStr]) -> OsString {
    parts.iter().copied().collect()
}

/// The part of a name after a prefix.
pub(super) fn after<'a>(prefix: &str, name: &'a OsStr) -> Option<&'a OsStr> {
    let rest = name.as_bytes().strip_prefix(prefix.as_bytes())?;
    Some(OsStr::from_bytes(rest))
}

/// The part of a name before a suffix.
pub(super) fn before<'a>(suffix: &str, name: &'a OsStr) -> Option<&'a OsStr> {
    let rest = name.as_bytes().strip_suffix(suffix.as_bytes())?;
    Some(OsStr::from_bytes(rest))
}
