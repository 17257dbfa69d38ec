//! Checks that a location has space for a copy, so that a copy does not fill a disk that others use.

use super::error::{Cause, Context, Error, Result};
use crate::view::Location;
use crate::workspace::jobs::JobId;

/// With this many free bytes, the size of the copy is not computed: that reads the metadata of each file.
const PLENTY: u64 = 64 << 30;

/// Checks that a location has enough free bytes for a copy of a job.
///
/// Calls `needed` only if less than `PLENTY` is free.
///
/// # Errors
///
/// Fails with [`Cause::Folder`] if the space is too small; otherwise as `fstatvfs` and `needed`.
pub(super) fn expect(
    location: &Location,
    job: &JobId,
    needed: impl FnOnce() -> Result<u64>,
) -> Result<()> {
    let at = location.path();
    let root = location.root().tried(job, "open", at)?;
    let space = rustix::fs::fstatvfs(root.fd()).tried(job, "look at the space of", at)?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if free >= PLENTY {
        return Ok(());
    }
    let needed = needed()?;
    if needed <= free {
        return Ok(());
    }
    let why = format!(
        "no space: {needed} bytes are needed, and {free} are free: make room there and try again"
    );
    let folder = at.to_owned();
    Err(Error::new(job, Cause::Folder { folder, why }))
}
