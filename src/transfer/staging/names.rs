//! The names beside a job's directory.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::error::{Error, Result};
use crate::workspace::jobs::is_job_entry;
use crate::workspace::layout::STAGING_PREFIX;

/// What follows the name of a staging in that of its lock file.
pub(super) const LOCK_SUFFIX: &str = ".lock";

/// How the name starts under which an exchange in several renames keeps what was there before. experimaestro's sweep
/// removes directories `.tmp.*`, and a lock that would keep it from that is gone with whoever held it. It leaves these
/// alone. Nor is it a name that people give to a job that they set aside. No longer than what a lock file's name adds.
pub(super) const OLD_PREFIX: &str = ".replaced.";

/// The longest name that a file system of Linux takes, in bytes.
const LONGEST: usize = 255;

pub(super) const TOO_LONG: &str = "is too long a name for a job that is to be copied: beside it there must be room for one that is 10 bytes longer";

/// A job's name, and those beside it.
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
    /// [`Error::Name`] for what cannot be a job's name, or is too long.
    pub(super) fn of(hash: &OsStr) -> Result<Names> {
        let wrong = |why| Error::Name {
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

/// What follows a prefix in a name.
pub(super) fn after<'a>(prefix: &str, name: &'a OsStr) -> Option<&'a OsStr> {
    let rest = name.as_bytes().strip_prefix(prefix.as_bytes())?;
    Some(OsStr::from_bytes(rest))
}

/// What is before a suffix in a name.
pub(super) fn before<'a>(suffix: &str, name: &'a OsStr) -> Option<&'a OsStr> {
    let rest = name.as_bytes().strip_suffix(suffix.as_bytes())?;
    Some(OsStr::from_bytes(rest))
}
