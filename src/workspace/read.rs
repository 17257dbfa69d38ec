//! Opens files and lists directories safely: does not block on a FIFO, and does not read devices or files without end.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::error::{Cause, PartialList, Result, WorkspaceError};

/// The most bytes of a file that is read as a whole. Files of experimaestro have kilobytes; a larger one is damaged, and must not
/// exhaust the memory.
const MAX_FILE: u64 = 256 << 20;

/// Opens the regular file `name`, relative to `dir`; `shown` is its path in messages. `None` if it does not exist.
///
/// Everything but a regular file is an error: a FIFO would block.
pub(super) fn open(dir: impl AsFd, name: &Path, shown: &Path) -> Result<Option<File>> {
    // NONBLOCK: otherwise opening a FIFO waits for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(WorkspaceError::new("open", shown, errno)),
    };
    let stat = fstat(&fd).map_err(|errno| WorkspaceError::new("stat", shown, errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(WorkspaceError::new(
            "read",
            shown,
            Cause::Content("it is not a regular file".into()),
        ));
    }
    Ok(Some(fd.into()))
}

/// The whole content of the regular file `name`; `None` if it does not exist.
pub(super) fn whole(dir: impl AsFd, name: &Path, shown: &Path) -> Result<Option<Vec<u8>>> {
    let Some(file) = open(dir, name, shown)? else {
        return Ok(None);
    };
    // Most files fit, and are read by one call.
    let mut content = Vec::with_capacity(4096);
    file.take(MAX_FILE + 1)
        .read_to_end(&mut content)
        .map_err(|error| WorkspaceError::new("read", shown, error))?;
    if content.len() as u64 > MAX_FILE {
        let message = format!("it is larger than {} MiB", MAX_FILE >> 20);
        return Err(WorkspaceError::new("read", shown, Cause::Content(message)));
    }
    if content.is_empty() {
        // A full disk, or a crash between `open` and `write`, leaves an empty file.
        return Err(WorkspaceError::new(
            "parse",
            shown,
            Cause::Content("the file is empty".into()),
        ));
    }
    Ok(Some(content))
}

/// The names in the directory `path`, sorted; empty if it does not exist.
pub(super) fn names(path: &Path) -> PartialList<OsString> {
    let mut listing = PartialList::default();
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return listing,
        Err(error) => {
            listing.errors.push(failed("list", path, error));
            return listing;
        }
    };
    for entry in entries {
        match entry {
            Ok(entry) => listing.found.push(entry.file_name()),
            Err(error) => {
                // After an error, the directory stream may repeat it endlessly.
                listing
                    .errors
                    .push(WorkspaceError::new("list", path, error));
                break;
            }
        }
    }
    listing.found.sort_unstable();
    listing
}

/// Whether `path` is a directory, or a symlink to one. A dangling symlink is not.
pub(super) fn is_directory(path: &Path) -> Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("stat", path, error)),
    }
}

/// The error of an operation on a directory: `ENOTDIR` does not say what to do.
fn failed(operation: &'static str, path: &Path, error: io::Error) -> WorkspaceError {
    if error.kind() == io::ErrorKind::NotADirectory {
        let what = "a file is in the place of a directory: move it away";
        return WorkspaceError::new(operation, path, Cause::Content(what.to_owned()));
    }
    WorkspaceError::new(operation, path, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;

    #[test]
    fn a_missing_file_is_none_and_an_empty_one_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert!(whole(CWD, &path, &path).unwrap().is_none());
        fs::write(&path, "").unwrap();
        let error = whole(CWD, &path, &path).unwrap_err();
        assert_eq!(error.path(), path);
        assert!(error.to_string().contains("empty"), "{error}");
    }

    #[test]
    fn a_fifo_is_refused_without_waiting_for_a_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let error = whole(CWD, &path, &path).unwrap_err();
        assert!(error.to_string().contains("regular"), "{error}");
    }

    #[test]
    fn a_symlink_loop_is_an_error_about_that_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loop");
        std::os::unix::fs::symlink("loop", &path).unwrap();
        assert_eq!(is_directory(&path).unwrap_err().path(), path);
        assert_eq!(whole(CWD, &path, &path).unwrap_err().path(), path);
        let listing = names(&path);
        assert!(listing.found.is_empty());
        assert_eq!(listing.errors.len(), 1);
    }
}
