//! Reads a directory of the disk from any position on.

use std::cell::RefCell;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{FileType, SeekFrom};
use rustix::io::Result;

use crate::sys::read_dir::{self, EntryBuffer};

thread_local! {
    static BUFFER: RefCell<EntryBuffer> = RefCell::default();
}

/// A directory that is open to be listed.
#[derive(Debug)]
pub(in crate::mount) struct Cursor {
    fd: Arc<OwnedFd>,
    at: Mutex<At>,
}

/// An entry of a directory.
#[derive(Debug)]
pub(in crate::mount) struct OwnedEntry {
    name: CString,
    pub(in crate::mount) kind: FileType,
    pub(in crate::mount) inode: u64,
    /// The position after it.
    pub(in crate::mount) next: u64,
}

impl OwnedEntry {
    pub(in crate::mount) fn name(&self) -> &OsStr {
        OsStr::from_bytes(self.name.to_bytes())
    }
}

/// The state of reading: where it continues.
#[derive(Debug, Default)]
struct At {
    /// The descriptor's position, if known.
    offset: Option<u64>,
    /// Whether the directory ended at that position.
    end: bool,
    /// Whether anything has been read from the descriptor.
    begun: bool,
    /// The entries that were read last and not all returned, from the position `first` up to `offset`.
    entries: Vec<OwnedEntry>,
    first: u64,
}

impl Cursor {
    /// Returns a cursor for a directory from which no entry has been read yet.
    pub(in crate::mount) fn new(fd: Arc<OwnedFd>) -> Cursor {
        Cursor {
            fd,
            at: Mutex::default(),
        }
    }

    pub(in crate::mount) fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// Whether a position is known to be one of this directory: those of the entries that were read last are.
    pub(in crate::mount) fn has(&self, position: u64) -> bool {
        let at = self.at.lock();
        at.offset == Some(position) || at.find(position).is_some()
    }

    /// Whether nothing has been read yet, and nothing is being read.
    pub(in crate::mount) fn is_unread(&self) -> bool {
        self.at.try_lock().is_some_and(|at| !at.begun)
    }

    /// Whether the directory is known to end at a position, so that reading from there asks no disk.
    pub(in crate::mount) fn ends_at(&self, position: u64) -> bool {
        let at = self.at.lock();
        at.end && at.offset == Some(position)
    }

    /// Reads the entries from a position on until `each` returns `false`; returns whether the end was reached. Calls
    /// `fetched` with each batch from the disk before passing any entry of the batch to `each`. The value of `asking` exists while the disk
    /// is asked.
    pub(in crate::mount) fn read<A>(
        &self,
        from: u64,
        asking: impl Fn() -> A,
        fetched: impl Fn(&[OwnedEntry]),
        mut each: impl FnMut(&OwnedEntry) -> bool,
    ) -> Result<bool> {
        // Other threads may list the same directory at the same time.
        let mut at = self.at.lock();
        let mut from = from;
        // The position of the descriptor stays unknown if this fails.
        let unknown = At {
            begun: true,
            ..At::default()
        };
        let mut now = std::mem::replace(&mut *at, unknown);
        let mut skipped = now.find(from);
        if skipped.is_none() {
            let _asking = asking();
            now.seek(&self.fd, from)?;
        }
        loop {
            for entry in now.entries.iter().skip(skipped.take().unwrap_or(0)) {
                from = entry.next;
                if !each(entry) {
                    *at = now;
                    return Ok(false);
                }
            }
            {
                let _asking = asking();
                now.fetch(&self.fd, from)?;
            }
            if now.end {
                *at = now;
                return Ok(true);
            }
            fetched(&now.entries);
        }
    }
}

impl At {
    /// Returns how many of the entries that were read last come before a position, if the position is among them.
    fn find(&self, from: u64) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        if from == self.first {
            return Some(0);
        }
        let before = self.entries.iter().position(|entry| entry.next == from)?;
        Some(before + 1)
    }

    /// Moves the descriptor to a position.
    fn seek(&mut self, fd: impl AsFd, from: u64) -> Result<()> {
        self.entries.clear();
        let fresh = !self.begun && from == 0;
        if fresh || self.offset == Some(from) {
            return Ok(());
        }
        if !self.begun {
            // On ext4, a descriptor that is first read from the middle no longer finds any entry at the beginning.
            read_dir::read_once(&fd, &mut EntryBuffer::default(), |_| ())?;
        }
        rustix::fs::seek(fd, SeekFrom::Start(from))?;
        self.begun = true;
        self.end = false;
        self.offset = Some(from);
        Ok(())
    }

    /// Reads the entries that follow position `from`, in place of those that were read last.
    fn fetch(&mut self, fd: impl AsFd, from: u64) -> Result<()> {
        self.entries.clear();
        self.first = from;
        if self.end {
            return Ok(());
        }
        self.begun = true;
        let entries = &mut self.entries;
        BUFFER.with_borrow_mut(|buffer| {
            read_dir::read_once_with_dots(fd, buffer, |entry| {
                entries.push(OwnedEntry::from(entry));
            })
        })?;
        self.offset = Some(self.entries.last().map_or(from, |last| last.next));
        self.end = self.entries.is_empty();
        Ok(())
    }
}

impl From<&read_dir::DirEntry<'_>> for OwnedEntry {
    fn from(entry: &read_dir::DirEntry<'_>) -> OwnedEntry {
        OwnedEntry {
            name: entry.c_name().to_owned(),
            kind: entry.kind(),
            inode: entry.inode(),
            next: entry.next_position(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::ffi::OsString;

    const FILES: usize = 3000;

    fn directory() -> (tempfile::TempDir, Cursor) {
        let top = tempfile::tempdir().unwrap();
        for number in 0..FILES {
            std::fs::write(top.path().join(format!("file-{number}")), "").unwrap();
        }
        let fd = OwnedFd::from(std::fs::File::open(top.path()).unwrap());
        (top, Cursor::new(fd.into()))
    }

    /// Reads `count` entries from a position on: their names with the positions after them.
    fn some(cursor: &Cursor, from: u64, count: usize) -> Vec<(OsString, u64)> {
        let mut read = Vec::new();
        let end = cursor.read(
            from,
            || (),
            |_| (),
            |entry| {
                let room = read.len() < count;
                if room {
                    read.push((entry.name().to_owned(), entry.next));
                }
                room
            },
        );
        assert!(end.unwrap() || read.len() == count);
        read
    }

    #[test]
    fn each_entry_is_read_once_in_any_batch_size() {
        let (_top, cursor) = directory();
        for count in [1, 7, 100, FILES * 2] {
            let (mut names, mut from) = (Vec::new(), 0);
            loop {
                let read = some(&cursor, from, count);
                let Some((_, last)) = read.last() else {
                    break;
                };
                from = *last;
                names.extend(read.into_iter().map(|(name, _)| name));
            }
            assert_eq!(names.len(), FILES + 2, "{count} at a time");
            assert_eq!(names.iter().collect::<HashSet<_>>().len(), FILES + 2);
        }
    }

    #[test]
    fn reading_continues_from_any_position() {
        let (top, cursor) = directory();
        let all = some(&cursor, 0, FILES * 2);
        for at in (0..all.len()).rev().step_by(97).chain(0..50) {
            let read = some(&cursor, all[at].1, 5);
            let rest = &all[at + 1..];
            assert_eq!(read, rest[..rest.len().min(5)], "after {at}");
        }
        // Positions also work for a descriptor that has not read the entries before them.
        let fd = OwnedFd::from(std::fs::File::open(top.path()).unwrap());
        let other = Cursor::new(fd.into());
        assert_eq!(some(&other, all[1000].1, FILES), all[1001..]);
        assert_eq!(some(&other, 0, FILES * 2), all);
    }

    #[test]
    fn each_batch_is_reported_before_its_entries() {
        let (_top, cursor) = directory();
        let fetched = std::cell::RefCell::new(Vec::new());
        let (mut from, mut passed) = (0, 0);
        loop {
            let mut left = 10;
            let names = |entries: &[OwnedEntry]| {
                let names = entries.iter().map(|entry| entry.name().to_owned());
                fetched.borrow_mut().extend(names);
            };
            let end = cursor.read(
                from,
                || (),
                names,
                |entry| {
                    if left == 0 {
                        return false;
                    }
                    left -= 1;
                    assert_eq!(fetched.borrow()[passed], entry.name());
                    passed += 1;
                    from = entry.next;
                    true
                },
            );
            if end.unwrap() {
                break;
            }
        }
        assert_eq!((passed, fetched.borrow().len()), (FILES + 2, FILES + 2));
    }
}
