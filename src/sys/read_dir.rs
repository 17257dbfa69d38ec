//! Reads the entries of an open directory.

use std::ffi::{CStr, OsStr};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, RawDir, RawDirEntry};
use rustix::io::Result;

/// Bytes of entries that are requested from the kernel at a time.
const BUFFER: usize = 32 << 10;

/// The memory that entries are read into, for one directory after another. Allocated with its first use.
#[derive(Debug, Default)]
pub struct EntryBuffer(Vec<MaybeUninit<u8>>);

impl EntryBuffer {
    fn read<Fd: AsFd>(&mut self, fd: Fd) -> RawDir<'_, Fd> {
        self.0.resize(BUFFER, MaybeUninit::uninit());
        RawDir::new(fd, &mut self.0)
    }
}

/// An entry of a directory.
#[derive(Debug)]
pub struct DirEntry<'a>(RawDirEntry<'a>);

impl DirEntry<'_> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        OsStr::from_bytes(self.c_name().to_bytes())
    }

    /// Its name, as a C string.
    #[must_use]
    pub fn c_name(&self) -> &CStr {
        self.0.file_name()
    }

    /// Its type; [`FileType::Unknown`] on file systems that do not store the type in the directory.
    #[must_use]
    pub fn kind(&self) -> FileType {
        self.0.file_type()
    }

    /// Its inode number.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.0.ino()
    }

    /// The position of the next entry.
    #[must_use]
    pub fn next_position(&self) -> u64 {
        self.0.next_entry_cookie()
    }

    fn is_dot(&self) -> bool {
        matches!(self.c_name().to_bytes(), b"." | b"..")
    }
}

/// Passes the entries from the current position of `fd` to the end to `each`, without `.` and `..`, until that breaks.
///
/// # Errors
///
/// As `getdents64`: `ENOENT` for a directory that has been removed.
pub fn read<B>(
    fd: impl AsFd,
    buffer: &mut EntryBuffer,
    mut each: impl FnMut(&DirEntry<'_>) -> ControlFlow<B>,
) -> Result<ControlFlow<B>> {
    let mut entries = buffer.read(fd);
    while let Some(entry) = entries.next() {
        let entry = DirEntry(entry?);
        if !entry.is_dot()
            && let ControlFlow::Break(value) = each(&entry)
        {
            return Ok(ControlFlow::Break(value));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Passes as many entries to `each` as the kernel returns at a time, without `.` and `..`. Returns `false` at the end.
///
/// # Errors
///
/// As [`read`].
pub fn read_once(
    fd: impl AsFd,
    buffer: &mut EntryBuffer,
    mut each: impl FnMut(&DirEntry<'_>),
) -> Result<bool> {
    read_once_with_dots(fd, buffer, |entry| {
        if !entry.is_dot() {
            each(entry);
        }
    })
}

/// As [`read_once`], with `.` and `..`.
///
/// # Errors
///
/// As [`read`].
pub fn read_once_with_dots(
    fd: impl AsFd,
    buffer: &mut EntryBuffer,
    mut each: impl FnMut(&DirEntry<'_>),
) -> Result<bool> {
    let mut entries = buffer.read(fd);
    let mut any = false;
    while !(any && entries.is_buffer_empty()) {
        let Some(entry) = entries.next() else {
            break;
        };
        any = true;
        each(&DirEntry(entry?));
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn every_function_passes_each_entry_once() {
        let top = tempfile::tempdir().unwrap();
        let names: HashSet<String> = (0..3000).map(|number| format!("file-{number}")).collect();
        for name in &names {
            fs::write(top.path().join(name), "").unwrap();
        }
        let open = || File::open(top.path()).unwrap();
        let buffer = &mut EntryBuffer::default();
        let mut found = Vec::new();
        let mut find = |entry: &DirEntry<'_>| found.push(entry.name().to_str().unwrap().to_owned());
        let ended = read(open(), buffer, |entry| {
            find(entry);
            ControlFlow::<()>::Continue(())
        });
        assert_eq!(ended, Ok(ControlFlow::Continue(())));
        let dir = open();
        while read_once(&dir, buffer, &mut find).unwrap() {}
        assert_eq!(found.len(), 2 * names.len());
        assert_eq!(found.iter().cloned().collect::<HashSet<_>>(), names);
        let first = read(open(), buffer, |entry| ControlFlow::Break(entry.inode()));
        assert!(matches!(first, Ok(ControlFlow::Break(_))));
    }
}
