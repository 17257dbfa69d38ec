//! What an exchange in several renames leaves when it is broken off: `.replaced.<hash>`.
//!
//! | under `<hash>` | what happened | what is done |
//! | --- | --- | --- |
//! | nothing | it ended after its first rename | `.replaced.<hash>` gets its name back |
//! | what was staged | it ended after its second rename | `.replaced.<hash>` is removed |
//! | anything else | after the first, and somebody has made another | nothing: both are left for a person to look at |
//!
//! What was staged is known by its inode number, which is written to the lock file before the first rename. If it is not
//! there (a power cut; experimaestro, which wipes the file when it takes the lock), nothing is removed either.
//!
//! The note is written also where the exchange is one step: what is left under `.tmp.<hash>` is either what was to be
//! put in its place or what stood there before, and it is all that tells the one from the other ([`Staging::exchanged`]).

use super::error::{Context, Result};
use super::{Staging, rename};
use crate::sys::file_id::FileId;
use crate::transfer::remove::remove_tree;

impl Staging {
    /// Writes down what is going to be put in the place of something else.
    pub(super) fn announce(&self) -> Result<()> {
        let note = self.staged.as_ref().map(|staged| note(&staged.identity));
        let written = self.lock.write(note.unwrap_or_default().as_bytes());
        written.told("write to", &self.names.lock)
    }

    /// Whether who had the lock before us, and did not end properly, had exchanged what is under `.tmp.<hash>` now for what
    /// stands under `<hash>`; `None` if that is not known.
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

    /// Makes sure that no note of somebody before us is taken for ours.
    pub(super) fn forget(&self) -> Result<()> {
        let name = &self.names.lock;
        match self.lock.read().told("read", name)?.is_empty() {
            true => Ok(()),
            false => self.lock.write(b"").told("write to", name),
        }
    }

    /// Whether there is something that an exchange has left.
    pub(super) fn has_leftover(&self) -> bool {
        !matches!(self.identity(&self.names.old), Ok(None))
    }

    /// Puts in order what an exchange has left.
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

/// How something is written down. Device numbers do not last from one mount to the next.
fn note(identity: &FileId) -> String {
    format!("exchange {}\n", identity.inode())
}
