//! Exchanges the staged entry with the entry that has the job's name.

use std::ffi::OsStr;
use std::os::fd::AsFd;

use rustix::io::Errno;

use super::error::{NameContext, Result, StagingError};
use super::{Held, Staging};
use crate::sys::at;

/// How an exchange was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchanged {
    /// In one step: `<hash>` existed at every moment.
    AtOnce,
    /// The file system cannot exchange in one step: `<hash>` was missing for a moment.
    ByRenames,
}

impl Staging {
    /// Puts the staged entry in the place of `old`, and `old` under `.tmp.<hash>`, where [`Staging::finish`] removes
    /// it. `old` is the entry `<hash>` as the caller knows it (`O_PATH` is sufficient; with `O_NOFOLLOW` for a
    /// symlink). Exchanges in one step, or by renames where the file system cannot do that. The staged entry must be
    /// durable before. The exchange itself is not synced: [`Staging::sync`] does that.
    ///
    /// # Errors
    ///
    /// - [`StagingError::Replaced`]: `<hash>` is not `old`; the entry was kept there.
    /// - [`StagingError::Lost`]: another process may have the staged entry. If the entry was placed nevertheless, the caller
    ///   must verify `<hash>`.
    /// - [`StagingError::Occupied`]: renames are needed, and the intermediate name for `old` has data. Nothing was changed.
    /// - [`StagingError::Io`]: a rename failed. `old` has its name again, or, if the last of three renames failed, is
    ///   `.replaced.<hash>`, which is removed when the lock is released.
    pub fn exchange(&mut self, old: impl AsFd) -> Result<Exchanged> {
        let old = Held::new(old).at_name("look at", &self.names.hash)?;
        self.check()?;
        self.swap(old)
    }

    /// Reverts an exchange that the caller found to be wrong: the previous entry is `<hash>` again, and its replacement
    /// is `.tmp.<hash>`.
    ///
    /// # Errors
    ///
    /// As [`Staging::exchange`]; `EINVAL` if nothing was exchanged.
    pub fn undo(&mut self) -> Result<Exchanged> {
        self.check()?;
        match self.placed.take() {
            Some(placed) => self.swap(placed),
            None => Err(Errno::INVAL).at_name("put back", &self.names.hash),
        }
    }

    fn swap(&mut self, old: Held) -> Result<Exchanged> {
        let (staging, hash) = (&self.names.staging, &self.names.hash);
        self.expect(hash, &old)?;
        // Writing the note fails on a full disk, and the exchange may end a move that frees space there. Only the
        // exchange by renames requires the note.
        let announced = self.announce();
        let swapped = match at::rename_exchange(&self.task, staging, hash) {
            Err(Errno::NOENT) => return Err(self.replaced()),
            swapped => swapped.at_name("exchange", hash)?,
        };
        let how = if swapped {
            if self.expect(staging, &old).is_err() {
                return Err(self.swap_back());
            }
            Exchanged::AtOnce
        } else {
            announced?;
            self.by_renames(&old)?;
            Exchanged::ByRenames
        };
        self.placed = self.staged.replace(old);
        self.check_placed()?;
        Ok(how)
    }

    /// Reverts an exchange that moved another entry than `old`: the entry gets its former name.
    fn swap_back(&self) -> StagingError {
        let (staging, hash) = (&self.names.staging, &self.names.hash);
        let swapped = at::rename_exchange(&self.task, staging, hash).is_ok_and(|swapped| swapped);
        match swapped && self.holds().is_ok_and(|holds| holds) {
            true => self.replaced(),
            false => self.lost(true),
        }
    }

    /// Exchanges in three renames. At every moment each entry has a name that no other process removes;
    /// `sweep` describes the recovery after a crash.
    fn by_renames(&self, old: &Held) -> Result<()> {
        let (staging, hash, aside) = (&self.names.staging, &self.names.hash, &self.names.old);
        match at::rename_new(&self.task, hash, aside) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(self.occupied()),
            Err(Errno::NOENT) => return Err(self.replaced()),
            Err(errno) => return Err(errno).at_name("rename", hash),
        }
        let placed = self.expect(aside, old).and_then(|()| {
            let placed = at::rename_new(&self.task, staging, hash);
            placed.at_name("put the copy in its place as", hash)
        });
        if let Err(error) = placed {
            // If another process has made an entry in its place meanwhile, `old` stays here, and the error names it.
            return match at::rename_new(&self.task, aside, hash) {
                Ok(()) => Err(error),
                Err(Errno::EXIST) => Err(self.occupied()),
                Err(_) => Err(error),
            };
        }
        at::rename_new(&self.task, aside, staging).at_name("rename", aside)
    }

    /// Checks that the given entry has this name.
    fn expect(&self, name: &OsStr, held: &Held) -> Result<()> {
        match self.identity(name).at_name("look at", name)? == Some(held.identity) {
            true => Ok(()),
            false => Err(self.replaced()),
        }
    }

    fn replaced(&self) -> StagingError {
        StagingError::Replaced {
            name: self.names.hash.clone(),
        }
    }

    fn occupied(&self) -> StagingError {
        StagingError::Occupied {
            name: self.names.old.clone(),
            hash: self.names.hash.clone(),
        }
    }
}
