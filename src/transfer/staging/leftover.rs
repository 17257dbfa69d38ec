//! Recovers an exchange by renames that was interrupted and left `.replaced.<hash>`.
//!
//! | `<hash>` | what happened | recovery |
//! | --- | --- | --- |
//! | missing | the exchange ended after its first rename | `.replaced.<hash>` gets its name back |
//! | the staged entry | the exchange ended after its second rename | `.replaced.<hash>` is removed |
//! | any other entry | after the first rename, another process made an entry | none: a person must look at both |
//!
//! The staged entry is recognized by its inode number, which is written to the lock file before the first rename. If
//! this note is missing (after a power cut, or because experimaestro truncated the file when it locked it), nothing is
//! removed.
//!
//! An exchange in one step writes the note too: `.tmp.<hash>` is then either the new entry or the replaced one, and
//! only the note distinguishes the two ([`Staging::exchanged`]).

use super::error::{Context, Result};
use super::{Staging, rename};
use crate::sys::file_id::FileId;
use crate::transfer::remove::remove_tree;

impl Staging {
    /// Writes the note: the identity of the entry that will replace another one.
    pub(super) fn announce(&self) -> Result<()> {
        let note = self.staged.as_ref().map(|staged| note(&staged.identity));
        let written = self.lock.write(note.unwrap_or_default().as_bytes());
        written.told("write to", &self.names.lock)
    }

    /// Whether a previous lock owner that crashed had exchanged `.tmp.<hash>` for the current `<hash>`; `None` if that
    /// is unknown.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](super::Error::Io).
    pub fn exchanged(&self) -> Result<Option<bool>> {
        let found = self.lock.read().told("read", &self.names.lock)?;
        if found.is_empty() {
            return Ok(None);
        }
        let hash = &self.names.hash;
        let there = self.identity(hash).told("look at", hash)?;
        Ok(Some(
            there.is_some_and(|there| found == note(&there).as_bytes()),
        ))
    }

    /// Clears the note of a previous lock owner, so that it is not read as the note of this process.
    pub(super) fn forget(&self) -> Result<()> {
        let name = &self.names.lock;
        match self.lock.read().told("read", name)?.is_empty() {
            true => Ok(()),
            false => self.lock.write(b"").told("write to", name),
        }
    }

    /// Whether an exchange left `.replaced.<hash>`.
    pub(super) fn has_leftover(&self) -> bool {
        !matches!(self.identity(&self.names.old), Ok(None))
    }

    /// Recovers an interrupted exchange, as in the table above.
    pub(super) fn settle(&self) -> Result<()> {
        let (hash, aside) = (&self.names.hash, &self.names.old);
        if self.identity(aside).told("look at", aside)?.is_none() {
            return Ok(());
        }
        self.check_lock()?;
        let Some(there) = self.identity(hash).told("look at", hash)? else {
            tracing::info!("{} has its name back", hash.display());
            return rename::to_free(&self.task, aside, hash).told("rename", aside);
        };
        if self.lock.read().told("read", &self.names.lock)? == note(&there).as_bytes() {
            return Ok(remove_tree(&self.task, aside, None)?);
        }
        tracing::warn!(
            "{} is left from an exchange that was broken off, and {} is there too: see which of the two is right",
            aside.display(),
            hash.display()
        );
        Ok(())
    }
}

/// The text of a note. The note omits the device number, which can change from one mount to the next.
fn note(identity: &FileId) -> String {
    format!("exchange {}\n", identity.inode())
}
