//! Recovers what a crash of another process left beside a job: an interrupted exchange, staged data, lock files.
//!
//! An exchange by renames that was interrupted left `.replaced.<hash>`:
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
//!
//! In a workspace of a group, each user's copies are made in directories of mode 0700. Another user can neither enter
//! nor remove them, but may rename them where both users have write permission: to `.tmp.<hash>.left`, which the first
//! user's next sweep removes.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::fd::AsFd;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::Staging;
use super::error::{NameContext, Result, StagingError};
use super::names::{LOCK_SUFFIX, OLD_PREFIX, after, before};
use crate::sys::at;
use crate::sys::file_id::FileId;
use crate::sys::read_dir::{self, EntryBuffer};
use crate::transfer::remove::remove_tree;
use crate::transfer::stamp;
use crate::workspace::layout::STAGING_PREFIX;

/// How many renamed leftovers one job may have before a user must remove them.
const LEFT_MAX: usize = 16;

impl Staging {
    /// Writes the note: the identity of the entry that will replace another one. An exchange does so itself; before that, the
    /// note shows the next lock owner that the staged entry was never in the place of the other one.
    ///
    /// # Errors
    ///
    /// [`StagingError::Io`].
    pub fn announce(&self) -> Result<()> {
        let note = self.staged.as_ref().map(|staged| note(&staged.identity));
        let written = self.lock.write(note.unwrap_or_default().as_bytes());
        written.at_name("write to", &self.names.lock)
    }

    /// Whether a previous lock owner that crashed had exchanged `.tmp.<hash>` for the current `<hash>`; `None` if that
    /// is unknown.
    ///
    /// # Errors
    ///
    /// [`StagingError::Io`].
    pub fn exchanged(&self) -> Result<Option<bool>> {
        let found = self.lock.read().at_name("read", &self.names.lock)?;
        if found.is_empty() {
            return Ok(None);
        }
        let hash = &self.names.hash;
        let there = self.identity(hash).at_name("look at", hash)?;
        Ok(Some(
            there.is_some_and(|there| found == note(&there).as_bytes()),
        ))
    }

    /// Clears the note of a previous lock owner, so that it is not read as the note of this process.
    pub(super) fn forget(&self) -> Result<()> {
        let name = &self.names.lock;
        match self.lock.read().at_name("read", name)?.is_empty() {
            true => Ok(()),
            false => self.lock.write(b"").at_name("write to", name),
        }
    }

    /// Whether an exchange left `.replaced.<hash>`.
    pub(super) fn has_leftover(&self) -> bool {
        !matches!(self.identity(&self.names.old), Ok(None))
    }

    /// Recovers an interrupted exchange, as in the table above.
    pub(super) fn settle(&self) -> Result<()> {
        let (hash, aside) = (&self.names.hash, &self.names.old);
        if self.identity(aside).at_name("look at", aside)?.is_none() {
            return Ok(());
        }
        self.check_lock()?;
        let Some(there) = self.identity(hash).at_name("look at", hash)? else {
            tracing::info!("{} has its name back", hash.display());
            return at::rename_new(&self.task, aside, hash).at_name("rename", aside);
        };
        if self.lock.read().at_name("read", &self.names.lock)? == note(&there).as_bytes() {
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

impl Staging {
    /// Removes the entry `.tmp.<hash>`, or renames it if it belongs to another user and cannot be removed.
    ///
    /// # Errors
    ///
    /// As [`Staging::make`].
    pub(super) fn free_name(&mut self) -> Result<()> {
        let error = match self.clear(None) {
            Err(StagingError::Remove(error)) => error,
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
            match at::rename_new(&self.task, staging, &left) {
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

/// The text of a note. The note omits the device number, which can change from one mount to the next.
fn note(identity: &FileId) -> String {
    format!("exchange {}\n", identity.inode())
}

/// Removes the stagings in a task's directory whose lock is free: directories and symlinks `.tmp.<hash>`, and lock
/// files. Recovers interrupted exchanges. Returns the number of jobs that had leftovers. A leftover that cannot be
/// removed does not stop the sweep, and is not an error.
///
/// # Errors
///
/// [`StagingError::Io`] if the directory cannot be listed, for which it must be readable.
pub fn sweep(task: impl AsFd) -> Result<usize> {
    sweep_with(task, &|_| false, &mut |_| {})
}

/// As [`sweep`], but skips some jobs. `elsewhere` removes the data of a swept job in other places, while its lock is
/// held.
///
/// # Errors
///
/// As [`sweep`].
pub fn sweep_with(
    task: impl AsFd,
    leave: &dyn Fn(&OsStr) -> bool,
    elsewhere: &mut dyn FnMut(&OsStr),
) -> Result<usize> {
    let mut swept = 0;
    for hash in leftovers(&task)? {
        if leave(&hash) {
            continue;
        }
        let done = match Staging::take(&task, &hash) {
            // Cannot be recovered, and was logged already.
            Ok(Some(staging)) if staging.has_leftover() => continue,
            Ok(Some(staging)) => {
                elsewhere(&hash);
                staging.finish(None)
            }
            Ok(None) => continue,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => swept += 1,
            Err(error) => tracing::debug!("what is left of {} stays: {error}", hash.display()),
        }
    }
    Ok(swept)
}

/// Lists the jobs in a task's directory that may have a staging: of a running process, or a leftover.
///
/// # Errors
///
/// As [`sweep`].
pub fn leftovers(task: impl AsFd) -> Result<BTreeSet<OsString>> {
    let here = OsStr::new(".");
    let fd = at::open_to_list(&task, here).at_name("open", here)?;
    let mut found = BTreeSet::new();
    let mut buffer = EntryBuffer::default();
    while read_dir::read_once(&fd, &mut buffer, |entry| {
        let name = entry.name();
        if let Some(hash) = after(OLD_PREFIX, name) {
            found.insert(hash.to_owned());
        } else if let Some(staged) = after(STAGING_PREFIX, name) {
            let kind = match entry.kind() {
                FileType::Unknown => at::stat_at(&fd, name).map(|stat| stamp::kind(&stat)),
                kind => Ok(kind),
            };
            let hash = match kind {
                Ok(FileType::Directory | FileType::Symlink) => Some(staged),
                Ok(FileType::RegularFile) => before(LOCK_SUFFIX, staged),
                _ => None,
            };
            found.extend(hash.map(OsStr::to_owned));
        }
    })
    .at_name("list", here)?
    {}
    Ok(found)
}
