//! Separates the files that experimaestro keeps for itself in a job from the user's data.
//!
//! These functions use names alone: the mount calls them before it knows whether an entry exists.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::layout;

/// The minimum number of digits in the name of a removed file: a shorter name may be the user's.
const REMOVED_DIGITS_MIN: usize = 4;

/// To whom an entry of a job belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// experimaestro's own, with any content.
    Internal,
    /// A `*.lock` that is a lock of experimaestro or of a task for as long as it is empty. With content, it is
    /// [`Class::Data`].
    EmptyLock,
    /// The user's.
    Data,
}

impl Class {
    /// Whether the entry is an internal file now.
    #[must_use]
    pub fn is_internal(self) -> bool {
        matches!(self, Self::Internal | Self::EmptyLock)
    }
}

/// Classifies the entry `name` at the top of a job that is called `job_name`.
///
/// `size` is the entry's size in bytes (`st_size`, of a symlink itself), or `None` if it does not exist: a lock that will be
/// created is empty.
///
/// Internal are `*.pid` (also `<name>.pid`), `<name>.lock`, `.lock`, an empty `*.lock`, and the directory `.scheduler/`. Other
/// `*.lock` files with content are data, such as `uv.lock` or `poetry.lock`; so is a directory with another name. experimaestro's
/// own copies (`_should_copy` in its `folders.py`) use the names alone and lose these.
#[must_use]
pub fn classify(name: &[u8], job_name: &[u8], is_dir: bool, size: Option<u64>) -> Class {
    if is_dir {
        return if name == b".scheduler" {
            Class::Internal
        } else {
            Class::Data
        };
    }
    if name.ends_with(b".pid") {
        return Class::Internal;
    }
    classify_lock(name, job_name, size)
}

/// Classifies the entry `name` of `.experimaestro/` in a job that is called `job_name`.
///
/// `.experimaestro/` is data and is archived: a replay needs `task-outputs.jsonl`. But it may have a lock,
/// `.experimaestro/<name>.lock`: older layouts have the job's lock there, and experimaestro 2.7 still locks it when it removes the
/// `.pid` of a job that died (`cleanup.py`) and when it monitors (`BaseJob.lockpath` in `interfaces.py`). The `.pid` itself is
/// never there.
#[must_use]
pub fn classify_nested(name: &[u8], job_name: &[u8], is_dir: bool, size: Option<u64>) -> Class {
    if is_dir {
        return Class::Data;
    }
    classify_lock(name, job_name, size)
}

/// Whether experimaestro rewrites `name` in `.experimaestro/` when a plan runs again and the job's path has changed: the path is
/// in `status.json` (`finalize_status` in its `interfaces.py`). This happens in every job of a colleague's workspace, in every
/// job of a mount that is not in place, and, through the primary's symlink, in every job that was moved. The file is archived
/// like others, but a write to it does not count as a change of the job, as a lock does not.
#[must_use]
pub fn is_bookkeeping(name: &[u8]) -> bool {
    [
        &b"status.json"[..],
        b"status.json.tmp",
        b".status.json.lock",
    ]
    .contains(&name)
}

/// Whether a file of this name is one that was removed while it was open: NFS (`.nfs00000000004c29a300000005`) and FUSE
/// (`.fuse_hidden0000000500000001`) rename it, and remove it when it is closed.
#[must_use]
pub fn is_removed(name: &OsStr) -> bool {
    let prefixes = [&b".nfs"[..], b".fuse_hidden"];
    let mut rest = prefixes
        .into_iter()
        .filter_map(|prefix| name.as_bytes().strip_prefix(prefix));
    rest.any(|rest| rest.len() >= REMOVED_DIGITS_MIN && rest.iter().all(u8::is_ascii_hexdigit))
}

/// Whether `name` in `directory`, relative to a job called `job_name`, is written in a job that does not run, or read every day: by a
/// plan that checks the job, by a monitor, or by `xpmfs jobs opt-out`. So it shows neither that the job is used, nor, if it is the
/// only file that is left, that the job is whole.
///
/// These are the internal files, the status, the event files and their directory, the opt-out file, and the empty files that test whether the disk has hard
/// links.
#[must_use]
pub fn is_rewritten(
    directory: &Path,
    name: &OsStr,
    job_name: &OsStr,
    is_dir: bool,
    size: u64,
) -> bool {
    let (bytes, job_name) = (name.as_bytes(), job_name.as_bytes());
    if !is_dir && (is_removed(name) || (size == 0 && bytes.starts_with(b".hardlink_test"))) {
        return true;
    }
    if directory.as_os_str().is_empty() {
        return classify(bytes, job_name, is_dir, Some(size)).is_internal();
    }
    let Ok(below) = directory.strip_prefix(layout::JOB_STATE) else {
        return false;
    };
    if is_dir {
        return below.as_os_str().is_empty() && bytes == b"events";
    }
    if below.as_os_str().is_empty() {
        return is_bookkeeping(bytes)
            || bytes == layout::OPT_OUT_FILE.as_bytes()
            || classify_nested(bytes, job_name, false, Some(size)).is_internal();
    }
    below == Path::new("events") && bytes.starts_with(b"event") && bytes.ends_with(b".jsonl")
}

fn classify_lock(name: &[u8], job_name: &[u8], size: Option<u64>) -> Class {
    match name.strip_suffix(b".lock") {
        Some(stem) if stem.is_empty() || stem == job_name => Class::Internal,
        Some(_) if size.unwrap_or(0) == 0 => Class::EmptyLock,
        _ => Class::Data,
    }
}

#[cfg(test)]
mod tests {
    use super::Class::{Data, EmptyLock, Internal};
    use super::*;

    fn file(name: &str, size: u64) -> Class {
        classify(name.as_bytes(), b"train", false, Some(size))
    }

    #[test]
    fn experimaestros_own_files_are_internal_with_any_content() {
        for size in [0, 10] {
            for name in ["train.pid", "other.pid", ".pid", "train.lock", ".lock"] {
                assert_eq!(file(name, size), Internal, "{name} {size}");
            }
        }
        assert_eq!(
            classify(b".scheduler", b"train", true, Some(4096)),
            Internal
        );
    }

    #[test]
    fn a_lock_with_content_is_the_users() {
        assert_eq!(file("uv.lock", 0), EmptyLock);
        assert_eq!(file("uv.lock", 1), Data);
        assert_eq!(file("Train.lock", 1), Data);
        assert_eq!(classify(b"uv.lock", b"train", false, None), EmptyLock);
        assert!(EmptyLock.is_internal() && Internal.is_internal() && !Data.is_internal());
    }

    #[test]
    fn all_other_entries_are_the_users() {
        for name in [
            "params.json",
            "train.done",
            "train.failed",
            "train.out",
            "train.lock.bak",
            "pid",
            "lock",
            "trainpid",
            ".experimaestro",
            ".scheduler",
        ] {
            assert_eq!(file(name, 0), Data, "{name}");
        }
        for name in ["train.lock", "a.pid", "data", ".experimaestro"] {
            assert_eq!(
                classify(name.as_bytes(), b"train", true, Some(4096)),
                Data,
                "{name}"
            );
        }
        assert_eq!(classify(b"\xff\xfe", b"train", false, Some(1)), Data);
    }

    #[test]
    fn the_older_lock_is_internal_and_its_neighbours_are_not() {
        assert_eq!(
            classify_nested(b"train.lock", b"train", false, Some(3)),
            Internal
        );
        assert_eq!(
            classify_nested(b"other.lock", b"train", false, Some(3)),
            Data
        );
        for name in ["status.json", "task-outputs.jsonl", "events", "train.pid"] {
            assert_eq!(
                classify_nested(name.as_bytes(), b"train", false, Some(0)),
                Data
            );
        }
    }

    #[test]
    fn leftovers_of_removed_open_files_are_recognized_by_name() {
        for name in [
            ".nfs00000000004c29a300000005",
            ".fuse_hidden0000000500000001",
            ".nfs0001",
        ] {
            assert!(is_removed(OsStr::new(name)), "{name}");
        }
        for name in [
            ".nfs",
            ".nfsrc",
            ".nfs_notes",
            ".nfsabc",
            "x.nfs00000001",
            ".fuse_hidden",
        ] {
            assert!(!is_removed(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn bookkeeping_is_rewritten_in_a_job_that_does_not_run() {
        let rewritten = |path: &str, size| {
            let path = Path::new(path);
            let (dir, name) = (path.parent().unwrap(), path.file_name().unwrap());
            is_rewritten(dir, name, OsStr::new("train"), false, size)
        };
        for path in [
            "train.lock",
            "x.pid",
            "sub/.nfs00000000004c29a300000005",
            ".experimaestro/status.json",
            ".experimaestro/status.json.tmp",
            ".experimaestro/train.lock",
            ".experimaestro/no-backup",
            ".experimaestro/events/event-0.jsonl",
        ] {
            assert!(rewritten(path, 7), "{path}");
        }
        for path in [
            "train.done",
            "train.failed",
            "params.json",
            "status.json",
            "data/train.lock",
            "uv.lock",
            ".hardlink_test",
            ".experimaestro/task-outputs.jsonl",
            ".experimaestro/events/notes",
            "events/event-0.jsonl",
        ] {
            assert!(!rewritten(path, 7), "{path}");
        }
        assert!(rewritten(".experimaestro/events/.hardlink_test", 0));
        assert!(rewritten("uv.lock", 0));
    }
}
