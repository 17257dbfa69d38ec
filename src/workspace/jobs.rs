//! Ids of jobs, and the directories below `jobs/` that are jobs.
//!
//! A job is `jobs/<task_id>/<hash>/`. Both parts are bytes here: experimaestro writes a Python path in lower case and 64 hex
//! digits, but a task may choose its own identifier, and a workspace may have any names.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::PartialList;
use super::read;

/// Identifies a job in a workspace: its task's id and its own hash.
///
/// Each part is one safe file name: not empty, without `/` or NUL, not starting with a dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId {
    task_id: OsString,
    hash: OsString,
}

/// A text that does not name a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} does not name a job: write it as task_id/hash, as in my.module.train/0123…")]
pub struct InvalidJobId {
    /// The text; bytes that are not UTF-8 are replaced.
    pub text: String,
}

impl JobId {
    /// The job `hash` of the task `task_id`.
    ///
    /// # Errors
    ///
    /// A part is not a valid name of a job's directory (see [`is_job_entry`]).
    pub fn new(
        task_id: impl Into<OsString>,
        hash: impl Into<OsString>,
    ) -> Result<Self, InvalidJobId> {
        let id = Self {
            task_id: task_id.into(),
            hash: hash.into(),
        };
        if is_job_entry(&id.task_id) && is_job_entry(&id.hash) {
            Ok(id)
        } else {
            Err(InvalidJobId {
                text: id.to_string(),
            })
        }
    }

    /// Reads `task_id/hash`, with exactly one slash.
    ///
    /// # Errors
    ///
    /// Every other text; nothing is trimmed or normalised.
    pub fn parse(text: impl AsRef<OsStr>) -> Result<Self, InvalidJobId> {
        let bytes = text.as_ref().as_bytes();
        let mut parts = bytes.splitn(2, |byte| *byte == b'/');
        let task_id = OsStr::from_bytes(parts.next().unwrap_or_default());
        let hash = OsStr::from_bytes(parts.next().unwrap_or_default());
        Self::new(task_id, hash).map_err(|_| InvalidJobId {
            text: text.as_ref().to_string_lossy().into_owned(),
        })
    }

    /// The task's id: the directory below `jobs/`.
    #[must_use]
    pub fn task_id(&self) -> &OsStr {
        &self.task_id
    }

    /// The job's hash: the directory below its task's.
    #[must_use]
    pub fn hash(&self) -> &OsStr {
        &self.hash
    }

    /// The job's name, which begins the names of its own files (`train` in `train.done`).
    #[must_use]
    pub fn name(&self) -> &OsStr {
        name(&self.task_id)
    }

    /// `task_id/hash`, relative to `jobs/`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(&self.task_id).join(&self.hash)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}/{}",
            self.task_id.display(),
            self.hash.display()
        )
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "JobId({self})")
    }
}

impl std::str::FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, InvalidJobId> {
        Self::parse(text)
    }
}

/// Writes `"task_id/hash"`, or `{"hex": "…"}` with its bytes if they are not UTF-8.
impl serde::Serialize for JobId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let path = self.path();
        if let Some(text) = path.to_str() {
            return to.serialize_str(text);
        }
        let bytes = path.as_os_str().as_bytes().iter();
        let hex = bytes.map(|byte| format!("{byte:02x}")).collect();
        Written::Bytes { hex }.serialize(to)
    }
}

impl<'de> serde::Deserialize<'de> for JobId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<JobId, D::Error> {
        let bytes = match Written::deserialize(from)? {
            Written::Text(text) => Some(text.into_bytes()),
            Written::Bytes { hex } => (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok())
                .collect(),
        };
        let bytes = bytes.ok_or_else(|| serde::de::Error::custom("not hexadecimal digits"))?;
        JobId::parse(OsStr::from_bytes(&bytes)).map_err(serde::de::Error::custom)
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Bytes { hex: String },
}

/// The name of the jobs of a task: the part of its id after the last dot.
///
/// As experimaestro's `BaseJob.get_scriptname`: `task_id.rsplit(".", 1)[-1]`. The id on disk is in
/// lower case (`__main__.train` for `__main__.Train`), and is not changed here.
#[must_use]
pub fn name(task_id: &OsStr) -> &OsStr {
    let bytes = task_id.as_bytes();
    OsStr::from_bytes(bytes.rsplit(|byte| *byte == b'.').next().unwrap_or(bytes))
}

/// Whether a name is valid for a task's directory below `jobs/`, or for a job's below that.
///
/// Names with a dot at the start are not: `.tmp.<hash>` is an unfinished copy, `.tmp.<hash>.lock` guards it, and `.` and `..`
/// are other directories. The caller checks whether the entry is a directory.
#[must_use]
pub fn is_job_entry(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty() && !bytes.starts_with(b".") && !bytes.iter().any(|b| matches!(b, b'/' | 0))
}

/// Lists the jobs in a directory of the form `<task_id>/<hash>`: `jobs/` of a workspace, folder or run, or `xp/<id>/jobs`.
///
/// Only names are read: an entry may be a directory, a symlink to one, or a dangling symlink. Regular files at the level of tasks
/// are ignored. A missing directory has no jobs.
#[must_use]
pub fn list(directory: &Path) -> PartialList<JobId> {
    let tasks = read::names(directory);
    let mut jobs = PartialList {
        found: Vec::new(),
        errors: tasks.errors,
    };
    for task_id in tasks.found.into_iter().filter(|name| is_job_entry(name)) {
        let path = directory.join(&task_id);
        match read::is_directory(&path) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(error) => {
                jobs.errors.push(error);
                continue;
            }
        }
        let hashes = read::names(&path);
        jobs.errors.extend(hashes.errors);
        let ids = hashes
            .found
            .into_iter()
            .filter_map(|hash| JobId::new(&task_id, hash).ok());
        jobs.found.extend(ids);
    }
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_parsed_named_and_shown() {
        let job = JobId::parse("my.module.train/0123").unwrap();
        assert_eq!(job.task_id(), "my.module.train");
        assert_eq!(job.hash(), "0123");
        assert_eq!(job.name(), "train");
        assert_eq!(job.path(), Path::new("my.module.train/0123"));
        assert_eq!(job.to_string(), "my.module.train/0123");
        assert_eq!("my.module.train/0123".parse::<JobId>().unwrap(), job);
    }

    #[test]
    fn names_are_those_of_python() {
        // python: task_id.rsplit(".", 1)[-1]
        for (task_id, expected) in [
            ("train", "train"),
            ("a.b", "b"),
            ("a.b.", ""),
            ("m.f.<locals>.task", "task"),
            ("m.Été", "Été"),
        ] {
            assert_eq!(name(OsStr::new(task_id)), expected);
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_not_a_job() {
        for text in [
            "", "/", "a", "a/", "/a", "a/b/c", "a//b", "../b", "a/..", "./b", "a/.", "a/.tmp.b",
            ".tmp.a/b", "a/b/", "a/b\0", "a\0/b",
        ] {
            assert!(JobId::parse(text).is_err(), "{text:?}");
        }
        let error = JobId::parse("a/..").unwrap_err();
        assert!(error.to_string().contains("task_id/hash"), "{error}");
    }

    #[test]
    fn ids_are_bytes() {
        let bytes = OsStr::from_bytes(b"m.\xff/\xfe");
        let job = JobId::parse(bytes).unwrap();
        assert_eq!(job.name().as_bytes(), b"\xff");
        assert_eq!(job.path().as_os_str(), bytes);
        assert_eq!(job.to_string(), "m.\u{fffd}/\u{fffd}");
    }

    #[test]
    fn an_id_is_the_same_after_it_was_json() {
        for bytes in [&b"m.t/0"[..], b"m.\xff/\xfe"] {
            let job = JobId::parse(OsStr::from_bytes(bytes)).unwrap();
            let json = serde_json::to_string(&job).unwrap();
            assert_eq!(serde_json::from_str::<JobId>(&json).unwrap(), job, "{json}");
        }
        for bad in [
            r#""a""#,
            r#"{"hex": "2f"}"#,
            r#"{"hex": "6"}"#,
            r#"{"hex": "é/a"}"#,
            "1",
        ] {
            assert!(serde_json::from_str::<JobId>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_directory_of_jobs_is_listed_in_order_without_other_entries() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for job in ["b.t/2", "b.t/1", "b.t/.tmp.3", "a/9", ".hidden/1"] {
            std::fs::create_dir_all(root.join(job)).unwrap();
        }
        std::os::unix::fs::symlink("/nowhere", root.join("b.t/4")).unwrap();
        std::fs::write(root.join("b.t/.tmp.3.lock"), "").unwrap();
        std::fs::write(root.join("a-file"), "").unwrap();
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        let odd = OsStr::from_bytes(b"b.t/\xff");
        std::fs::create_dir(root.join(odd)).unwrap();

        let jobs = list(root);
        let expected: Vec<_> = ["a/9", "b.t/1", "b.t/2", "b.t/4"]
            .into_iter()
            .map(OsStr::new)
            .chain([odd])
            .map(|text| JobId::parse(text).unwrap())
            .collect();
        assert_eq!(jobs.found, expected);
        assert_eq!(jobs.errors.len(), 1);
        assert_eq!(jobs.errors[0].path(), root.join("loop"));
        assert!(list(&root.join("missing")).found.is_empty());
    }
}
