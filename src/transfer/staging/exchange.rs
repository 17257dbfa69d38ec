//! One thing is put in the place of another.

use std::ffi::OsStr;
use std::os::fd::AsFd;

use rustix::io::Errno;

use super::error::{Context, Error, Result};
use super::{Held, Staging, rename};

/// How an exchange was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchanged {
    /// In one step: at every moment, `<hash>` was there.
    AtOnce,
    /// The file system cannot do that: for a moment, nothing was under `<hash>`.
    ByRenames,
}

impl Staging {
    /// Puts what is staged in the place of `old`, which stands under `<hash>` as the caller knows it (`O_PATH` will do; of a
    /// symlink, with `O_NOFOLLOW`), and `old` under `.tmp.<hash>`, where [`Staging::finish`] removes it. In one step, or where the
    /// file system cannot do that, by renames. What is staged must be durable before; the exchange itself is not synced:
    /// [`Staging::sync`].
    ///
    /// # Errors
    ///
    /// - [`Error::Replaced`]: something else than `old` stands under `<hash>`; it was left there.
    /// - [`Error::Lost`]: somebody else may have what was staged; if it was placed nevertheless, what stands under `<hash>` is
    ///   to be looked at.
    /// - [`Error::Occupied`]: renames are needed, and the name for `old` meanwhile has data under it. Nothing was changed.
    /// - [`Error::Io`]: what the renames give. `old` has its name again, or else, should the last of three renames fail, is
    ///   `.replaced.<hash>`, which letting go removes.
    pub fn exchange(&mut self, old: impl AsFd) -> Result<Exchanged> {
        let old = Held::new(old).told("look at", &self.names.hash)?;
        self.check()?;
        self.swap(old)
    }

    /// Takes an exchange back, for a caller who finds afterwards that something was wrong with it: what was under `<hash>` before
    /// is there again, and what replaced it under `.tmp.<hash>`.
    ///
    /// # Errors
    ///
    /// As [`Staging::exchange`]; `EINVAL` if nothing was exchanged.
    pub fn undo(&mut self) -> Result<Exchanged> {
        self.check()?;
        match self.placed.take() {
            Some(placed) => self.swap(placed),
            None => Err(Errno::INVAL).told("put back", &self.names.hash),
        }
    }

    fn swap(&mut self, old: Held) -> Result<Exchanged> {
        let (staging, hash) = (&self.names.staging, &self.names.hash);
        self.expect(hash, &old)?;
        // Where the disk is full, a move is what makes it less so: only renames cannot do without the note.
        let announced = self.announce();
        let swapped = match rename::swap(&self.task, staging, hash) {
            Err(Errno::NOENT) => return Err(self.replaced()),
            swapped => swapped.told("exchange", hash)?,
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

    /// After something else than what was known has been exchanged: that goes back to where it was.
    fn swap_back(&self) -> Error {
        let (staging, hash) = (&self.names.staging, &self.names.hash);
        let swapped = rename::swap(&self.task, staging, hash).is_ok_and(|swapped| swapped);
        match swapped && self.holds().is_ok_and(|holds| holds) {
            true => self.replaced(),
            false => self.lost(true),
        }
    }

    /// Exchanges in three renames. At every moment each of the two has a name that nobody else removes; how it goes on
    /// after a crash is in [`leftover`](super::leftover).
    fn by_renames(&self, old: &Held) -> Result<()> {
        let (staging, hash, aside) = (&self.names.staging, &self.names.hash, &self.names.old);
        match rename::to_free(&self.task, hash, aside) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(self.occupied()),
            Err(Errno::NOENT) => return Err(self.replaced()),
            Err(errno) => return Err(errno).told("rename", hash),
        }
        let placed = self.expect(aside, old).and_then(|()| {
            let placed = rename::to_free(&self.task, staging, hash);
            placed.told("put the copy in its place as", hash)
        });
        if let Err(error) = placed {
            // If somebody has made another in its place meanwhile, it stays where it is, and is told of.
            return match rename::to_free(&self.task, aside, hash) {
                Ok(()) => Err(error),
                Err(Errno::EXIST) => Err(self.occupied()),
                Err(_) => Err(error),
            };
        }
        rename::to_free(&self.task, aside, staging).told("rename", aside)
    }

    /// Makes sure that something stands under a name.
    fn expect(&self, name: &OsStr, held: &Held) -> Result<()> {
        match self.identity(name).told("look at", name)? == Some(held.identity) {
            true => Ok(()),
            false => Err(self.replaced()),
        }
    }

    fn replaced(&self) -> Error {
        Error::Replaced {
            name: self.names.hash.clone(),
        }
    }

    fn occupied(&self) -> Error {
        Error::Occupied {
            name: self.names.old.clone(),
            hash: self.names.hash.clone(),
        }
    }
}
