//! Whether a location has space for a copy: a disk that is not filled to the last byte is of use to others.

use super::error::{Cause, Context, Error, Result};
use crate::view::Location;
use crate::workspace::jobs::JobId;

/// Where so many bytes are free, it is of no use to look at each file, which costs something.
const PLENTY: u64 = 64 << 30;

/// Makes sure that a location has as many bytes free as a copy of a job takes. `needed` is asked only where it matters.
///
/// # Errors
///
/// It has not; what its file system, or `needed`, gave.
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
