//! Separates the files that experimaestro keeps for itself in a job from the user's data.
//!
//! These functions use names alone: the mount calls them before it knows whether an entry exists.

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
}
