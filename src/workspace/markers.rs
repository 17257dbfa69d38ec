//! The markers of a job, `<name>.done` and `<name>.failed`: how it ended.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;

/// How a job ended, by its markers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// `<name>.done` exists.
    Done,
    /// `<name>.failed` exists, and `<name>.done` does not.
    Failed,
    /// Neither exists: the job never ran, runs, or was interrupted.
    Unfinished,
}

/// Which markers a job has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Markers {
    /// `<name>.done` exists.
    pub done: bool,
    /// `<name>.failed` exists.
    pub failed: bool,
}

impl Markers {
    /// How the job ended; `.done` takes precedence over `.failed`, as in experimaestro's `JobState.from_path`.
    #[must_use]
    pub fn state(self) -> State {
        match self {
            Self { done: true, .. } => State::Done,
            Self { failed: true, .. } => State::Failed,
            _ => State::Unfinished,
        }
    }
}

/// The name of the marker of success, for a job called `name`.
#[must_use]
pub fn done(name: &OsStr) -> OsString {
    with_suffix(name, ".done")
}

/// The name of the marker of failure, for a job called `name`.
#[must_use]
pub fn failed(name: &OsStr) -> OsString {
    with_suffix(name, ".failed")
}

/// Whether the job in `directory`, called `name`, has `<name>.done`. Costs one `stat`.
///
/// # Errors
///
/// See [`read`].
pub fn is_done(directory: impl AsFd, name: &OsStr) -> io::Result<bool> {
    is_marker(directory, &done(name))
}

/// The markers of the job in `directory`, called `name`. Costs two `stat`s; no file is opened.
///
/// A marker is a regular file. A symlink is not followed, unlike in experimaestro, which never makes one: following it could
/// leave the location, or enter a mount that waits for this reply. The content of a `.failed` is not read: very old versions of
/// experimaestro wrote `0` into it for a success.
///
/// # Errors
///
/// The system's error (`EACCES`, `EIO`, `ESTALE` …). A missing file, or a name that cannot exist, is not an error.
pub fn read(directory: impl AsFd, name: &OsStr) -> io::Result<Markers> {
    Ok(Markers {
        done: is_marker(&directory, &done(name))?,
        failed: is_marker(&directory, &failed(name))?,
    })
}

fn is_marker(directory: impl AsFd, marker: &OsStr) -> io::Result<bool> {
    match statat(directory, marker, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile),
        // A task id may be so long that its marker cannot exist.
        Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn with_suffix(name: &OsStr, suffix: &str) -> OsString {
    let mut marker = name.to_os_string();
    marker.push(suffix);
    marker
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::ffi::OsStrExt;

    fn state(files: &[&str]) -> State {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(dir.path().join(file), "").unwrap();
        }
        read(File::open(dir.path()).unwrap(), OsStr::new("train"))
            .unwrap()
            .state()
    }

    #[test]
    fn markers_determine_how_a_job_ended() {
        assert_eq!(state(&[]), State::Unfinished);
        assert_eq!(
            state(&["train.out", "other.done", "Train.done"]),
            State::Unfinished
        );
        assert_eq!(state(&["train.failed"]), State::Failed);
        assert_eq!(state(&["train.done"]), State::Done);
        assert_eq!(state(&["train.done", "train.failed"]), State::Done);
    }

    #[test]
    fn a_directory_or_a_symlink_is_not_a_marker() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("train.done")).unwrap();
        fs::write(dir.path().join("target"), "").unwrap();
        std::os::unix::fs::symlink("target", dir.path().join("train.failed")).unwrap();
        let markers = read(File::open(dir.path()).unwrap(), OsStr::new("train")).unwrap();
        assert_eq!(markers, Markers::default());
    }

    #[test]
    fn names_are_bytes_and_may_be_too_long_for_a_marker() {
        let dir = tempfile::tempdir().unwrap();
        let name = OsStr::from_bytes(b"\xff");
        fs::write(dir.path().join(done(name)), "").unwrap();
        let fd = File::open(dir.path()).unwrap();
        assert!(is_done(&fd, name).unwrap());
        assert!(!is_done(&fd, OsStr::new(&"x".repeat(255))).unwrap());
    }

    #[test]
    fn a_file_in_place_of_a_job_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        let error = read(&file, OsStr::new("train")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
    }
}
