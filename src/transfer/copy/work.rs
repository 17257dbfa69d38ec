//! The state that the threads of one copy share: the found entries, and whether to go on.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use blake3::Hash;
use parking_lot::Mutex;
use rustix::fs::{FileType, Statx};

use super::holes::Believed;
use crate::sys::file_id::FileId;
use crate::transfer::attributes::Attributes;
use crate::transfer::attributes::loss::{Losses, Lost};
use crate::transfer::error::{Error, Failure};
use crate::transfer::manifest::{Entry, Kind, path};
use crate::transfer::stamp::{Stamp, time};
use crate::transfer::{Options, Writeback};

/// Up to how many files are made durable one by one; more files, by one call for all.
pub(super) const FEW: usize = 8;

/// One running copy or scan.
pub(super) struct Work<'a> {
    pub(super) options: &'a Options<'a>,
    /// The copy; `None` for a scan.
    pub(super) target: Option<Target<'a>>,
    /// Whether an entry that cannot be read is only recorded, and does not end the work.
    pub(super) lenient: bool,
    /// Whether files are read from the disk even if they are cached.
    pub(super) afresh: bool,
    /// Whether files are only looked at and not read: their hashes are zeros then.
    pub(super) look_only: bool,
    /// Which file systems are believed about holes.
    pub(super) believed: Believed,
    found: Mutex<Found>,
    stop: AtomicBool,
}

/// The unit of `stx_blocks`, on every disk.
const BLOCK: u64 = 512;

/// The state of the tree that is written.
pub(super) struct Target<'a> {
    pub(super) writeback: &'a Writeback,
    /// Whether the copy is durable when the call returns, and not later together with others.
    pub(super) now: bool,
    /// Whether cloning has not been refused yet.
    pub(super) clones: AtomicBool,
    /// The owner and the group of new entries.
    pub(super) created: OnceLock<(u32, u32)>,
    /// The files written so far, open, as long as they are few.
    pub(super) held: Mutex<Option<Vec<OwnedFd>>>,
}

/// The found entries and their state, in the order in which they were found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    pub(super) stamps: Vec<Stamp>,
    /// The attributes that directories get when they are complete, by position.
    pub(super) directories: HashMap<usize, Attributes>,
    /// Files of more than one name: the position of the first name found.
    links: HashMap<FileId, usize>,
    /// Bytes that the files use on their disk, without holes.
    pub(super) taken: u64,
    /// Entries that the caller excluded.
    pub(super) excluded: Vec<Excluded>,
    pub(super) losses: Losses,
    /// The errors; the first one ends the work, except in a lenient scan.
    pub(super) errors: Vec<Error>,
}

/// An entry that the caller excluded.
#[derive(Debug)]
pub(super) struct Excluded {
    pub(super) parent: usize,
    pub(super) name: Box<OsStr>,
    pub(super) kind: FileType,
}

impl Found {
    fn path(&self, index: usize) -> PathBuf {
        path(&self.entries, index)
    }

    fn path_in(&self, parent: usize, name: &OsStr) -> PathBuf {
        match name.is_empty() {
            true => self.path(parent),
            false => self.path(parent).join(name),
        }
    }
}

impl<'a> Work<'a> {
    pub(super) fn new(options: &'a Options<'a>, target: Option<Target<'a>>) -> Work<'a> {
        Work {
            options,
            target,
            lenient: false,
            afresh: false,
            look_only: false,
            believed: Believed::default(),
            found: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    /// Records an entry, and returns its position.
    pub(super) fn add(&self, parent: usize, name: &OsStr, stat: &Statx, kind: Kind) -> usize {
        let entry = Entry {
            parent,
            name: name.into(),
            mode: u32::from(stat.stx_mode) & 0o7777,
            mtime: time(stat.stx_mtime),
            kind,
        };
        let mut found = self.found.lock();
        found.entries.push(entry);
        found.stamps.push(Stamp::of(stat));
        found.entries.len() - 1
    }

    /// Records a file whose hash is not known yet. Returns its position, and the position of the first name of the same
    /// file, if this is a further name.
    pub(super) fn add_file(
        &self,
        parent: usize,
        name: &OsStr,
        stat: &Statx,
    ) -> (usize, Option<usize>) {
        let index = self.add(
            parent,
            name,
            stat,
            Kind::File {
                size: stat.stx_size,
                hash: Hash::from_bytes([0; blake3::OUT_LEN]),
                link: None,
            },
        );
        let taken = stat.stx_size.min(stat.stx_blocks.saturating_mul(BLOCK));
        let mut found = self.found.lock();
        let first = match stat.stx_nlink {
            0 | 1 => index,
            _ => *found.links.entry(FileId::of(stat)).or_insert(index),
        };
        if first == index {
            found.taken = found.taken.saturating_add(taken);
            return (index, None);
        }
        if let Some(Entry {
            kind: Kind::File { link, .. },
            ..
        }) = found.entries.get_mut(index)
        {
            *link = Some(first);
        }
        (index, Some(first))
    }

    /// Whether another name of the same symlink or fifo was found before; such links are not kept.
    pub(super) fn is_further_name(&self, stat: &Statx) -> bool {
        if stat.stx_nlink < 2 {
            return false;
        }
        let mut found = self.found.lock();
        // The position is not used: only files are linked to their first name.
        found.links.insert(FileId::of(stat), 0).is_some()
    }

    /// Sets the times of an entry that is restored from an archive.
    pub(super) fn restore_times(
        &self,
        attributes: &mut Attributes,
        parent: usize,
        name: &OsStr,
        kind: &Kind,
    ) {
        if let Some(originals) = self.options.originals {
            let path = self.found.lock().path_in(parent, name);
            let mtime = attributes.mtime();
            attributes.set_times(originals.mtime(&path, kind, mtime).unwrap_or(mtime));
        }
    }

    /// Records a file's hash, and the mode of its copy.
    pub(super) fn finish_file(&self, index: usize, content: Hash, mode: Option<u32>) {
        if let Some(entry) = self.found.lock().entries.get_mut(index) {
            if let Kind::File { hash, .. } = &mut entry.kind {
                *hash = content;
            }
            entry.mode = mode.unwrap_or(entry.mode);
        }
    }

    /// Records the mode of an entry's copy, if it was written.
    pub(super) fn set_mode(&self, index: usize, mode: Option<u32>) {
        if let Some(entry) = self.found.lock().entries.get_mut(index) {
            entry.mode = mode.unwrap_or(entry.mode);
        }
    }

    pub(super) fn add_directory(&self, index: usize, attributes: Attributes) {
        self.found.lock().directories.insert(index, attributes);
    }

    pub(super) fn add_excluded(&self, excluded: Excluded) {
        self.found.lock().excluded.push(excluded);
    }

    /// Records that an attribute of the entry `name` in `parent` could not be kept.
    pub(super) fn lose(&self, what: Lost, parent: usize, name: &OsStr) {
        let mut found = self.found.lock();
        let example = found.path_in(parent, name);
        found.losses.add(what, || example);
    }

    /// Records a failure with the entry `name` in `parent`, or with the directory `parent` if `name` is empty.
    pub(super) fn fail(&self, failure: Failure, parent: usize, name: &OsStr) {
        let cancelled = matches!(failure, Failure::Cancelled);
        if cancelled || !self.lenient {
            self.stop.store(true, Ordering::Relaxed);
        }
        let mut found = self.found.lock();
        let error = failure.at(found.path_in(parent, name));
        found.errors.push(error);
    }

    /// Fails with [`Failure::Cancelled`] if the work was stopped or cancelled.
    pub(super) fn go_on(&self) -> Result<(), Failure> {
        let cancelled = |progress: &crate::transfer::Progress| progress.is_cancelled();
        if self.options.progress.is_some_and(cancelled) || self.stopped() {
            return Err(Failure::Cancelled);
        }
        Ok(())
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn wait_for_bandwidth(&self, bytes: u64) -> Result<(), Failure> {
        if let Some(bandwidth) = self.options.bandwidth {
            bandwidth.take(bytes, || self.go_on().is_err());
            return self.go_on();
        }
        Ok(())
    }

    pub(super) fn count_bytes(&self, bytes: u64) {
        if let Some(progress) = self.options.progress {
            progress.add_bytes(bytes);
        }
    }

    pub(super) fn count_file(&self) {
        if let Some(progress) = self.options.progress {
            progress.add_file();
        }
    }

    /// The result, after all threads have ended.
    ///
    /// # Errors
    ///
    /// The first error, unless the scan is lenient.
    pub(super) fn found(&self) -> Result<Found, Error> {
        let mut found = std::mem::take(&mut *self.found.lock());
        if self.stopped() && !found.errors.is_empty() {
            // The error that stopped the other threads, which then report that they were cancelled. A lenient scan is
            // stopped only by a cancellation.
            let first = found
                .errors
                .iter()
                .position(|error| matches!(error, Error::Cancelled) == self.lenient);
            return Err(found.errors.swap_remove(first.unwrap_or(0)));
        }
        found.share_hashes();
        Ok(found)
    }
}

impl Found {
    /// Copies the hash and the mode of a file's first name to its further names.
    fn share_hashes(&mut self) {
        for index in 0..self.entries.len() {
            let Some(Entry {
                kind: Kind::File {
                    link: Some(first), ..
                },
                ..
            }) = self.entries.get(index)
            else {
                continue;
            };
            let shared = self
                .entries
                .get(*first)
                .map(|first| (first.kind.clone(), first.mode));
            if let Some((Kind::File { hash, .. }, mode)) = shared
                && let Some(entry) = self.entries.get_mut(index)
                && let Kind::File { hash: own, .. } = &mut entry.kind
            {
                *own = hash;
                entry.mode = mode;
            }
        }
    }
}
