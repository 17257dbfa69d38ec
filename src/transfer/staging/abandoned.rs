//! Frees `.tmp.<hash>` when a crash of another user left data there that this user cannot remove.
//!
//! In a workspace of a group, each user's copies are made in directories of mode 0700. Another user can neither enter
//! nor remove them, but may rename them where both users have write permission: to `.tmp.<hash>.left`, which the first
//! user's next sweep removes.

use std::ffi::OsString;
use std::io::ErrorKind;

use rustix::io::Errno;

use super::error::{Error, Result};
use super::{Staging, rename};

/// How many renamed leftovers one job may have before a user must remove them.
const LEFT_MAX: usize = 16;

impl Staging {
    /// Removes the entry `.tmp.<hash>`, or renames it if it belongs to another user and cannot be removed.
    ///
    /// # Errors
    ///
    /// As [`Staging::make`].
    pub(super) fn free_name(&mut self) -> Result<()> {
        let error = match self.clear(None) {
            Err(Error::Remove(error)) => error,
            result => return result,
        };
        let denied = |error: &std::io::Error| error.kind() == ErrorKind::PermissionDenied;
        if !error.io().is_some_and(denied) {
            return Err(error.into());
        }
        let staging = &self.names.staging;
        for number in 1..=LEFT_MAX {
            let mut left: OsString = staging.clone();
            left.push(match number {
                1 => ".left".to_owned(),
                number => format!(".left{number}"),
            });
            match rename::to_free(&self.task, staging, &left) {
                Ok(()) => {
                    let (from, to) = (staging.display(), left.display());
                    tracing::info!("{from} is another user's and cannot be removed: now {to}");
                    return Ok(());
                }
                Err(Errno::EXIST) => {}
                Err(_) => break,
            }
        }
        Err(error.into())
    }
}
