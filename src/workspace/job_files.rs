//! Reads files of a job: `.experimaestro/status.json`, and the head of `params.json`.
//!
//! The status is written late, and may be from an earlier run: if a marker ([`super::markers`]) differs, the marker is right.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::CWD;
use serde::Deserialize;

use super::error::{Result, WorkspaceError};
use super::{layout, python_json, read};

/// The state of a job in experimaestro's scheduler (`STATE_NAME_TO_JOBSTATE` in its `interfaces.py`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "String")]
pub enum JobState {
    /// It is not submitted yet.
    Unscheduled,
    /// It runs only if another job needs it.
    Transient,
    /// It waits for other jobs.
    Waiting,
    /// It can start.
    Ready,
    /// A launcher has it.
    Scheduled,
    /// It runs.
    Running,
    /// It succeeded.
    Done,
    /// It failed.
    Error,
    /// A state that is unknown to this version.
    Other(String),
}

impl From<String> for JobState {
    fn from(name: String) -> Self {
        match name.as_str() {
            "unscheduled" => Self::Unscheduled,
            "transient" => Self::Transient,
            "waiting" => Self::Waiting,
            "ready" => Self::Ready,
            "scheduled" => Self::Scheduled,
            "running" => Self::Running,
            "done" => Self::Done,
            "error" => Self::Error,
            _ => Self::Other(name),
        }
    }
}

impl std::fmt::Display for JobState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Unscheduled => "unscheduled",
            Self::Transient => "transient",
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Done => "done",
            Self::Error => "error",
            Self::Other(name) => name,
        })
    }
}

/// The fields of `status.json` that xpmfs uses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct JobStatus {
    /// The state of the job.
    #[serde(default)]
    pub state: Option<JobState>,
    /// When it started.
    #[serde(
        default,
        rename = "started_time",
        deserialize_with = "python_json::time"
    )]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(default, rename = "ended_time", deserialize_with = "python_json::time")]
    pub ended: Option<Timestamp>,
    /// The exit status of its process.
    #[serde(default)]
    pub exit_code: Option<i64>,
    /// Why it failed (`FAILED`, `TIMEOUT`, `MEMORY` …).
    #[serde(default)]
    pub failure_reason: Option<String>,
    /// The number of the first file of events that this status does not include; `None` if it includes all.
    #[serde(default)]
    pub events_count: Option<u64>,
}

impl JobStatus {
    /// Reads the status of the job in the directory `job`; `None` if it is missing.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or does not have experimaestro's format.
    pub fn read(job: &Path) -> Result<Option<Self>> {
        Self::read_at(CWD, job, job)
    }

    /// Reads the status of the job at `job` relative to `directory`; `shown` is the job's path in messages.
    ///
    /// # Errors
    ///
    /// As [`JobStatus::read`].
    pub fn read_at(directory: impl AsFd, job: &Path, shown: &Path) -> Result<Option<Self>> {
        let name = Path::new(layout::JOB_STATE).join("status.json");
        let shown = shown.join(&name);
        let Some(text) = read::whole(directory, &job.join(&name), &shown)? else {
            return Ok(None);
        };
        let status = python_json::object(&text)
            .map_err(|error| WorkspaceError::new("parse", &shown, error))?;
        Ok(Some(status))
    }
}

/// The first version of `params.json` with relative paths, so that a job can be copied.
pub const RELATIVE_PATHS: u64 = 3;

/// The head of `params.json`; the job's parameters (`objects`) are skipped.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Params {
    /// The path of the workspace in which the job was submitted. Empty if the file has none.
    #[serde(default, deserialize_with = "python_json::path")]
    pub workspace: PathBuf,
    /// The version of the format; 0 if the file has none, as in experimaestro's `check_params_version`.
    #[serde(default)]
    pub version: u64,
}

impl Params {
    /// Reads `params.json` of the job in the directory `job`; `None` if it is missing.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or does not have experimaestro's format.
    pub fn read(job: &Path) -> Result<Option<Self>> {
        let path = job.join(layout::PARAMS);
        let Some(text) = read::whole(CWD, &path, &path)? else {
            return Ok(None);
        };
        let params = python_json::object(&text)
            .map_err(|error| WorkspaceError::new("parse", &path, error))?;
        Ok(Some(params))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn job(status: &[u8]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".experimaestro")).unwrap();
        fs::write(dir.path().join(".experimaestro/status.json"), status).unwrap();
        dir
    }

    #[test]
    fn a_status_is_read() {
        let dir = job(br#"{"job_id": "82", "state": "done", "failure_reason": null, "started_time":
            "2026-11-22T02:59:08.381972+00:00", "ended_time": null, "exit_code": 0, "progress": [{"x": NaN}]}"#);
        let status = JobStatus::read(dir.path()).unwrap().unwrap();
        assert_eq!(status.state, Some(JobState::Done));
        assert_eq!(
            status.started,
            Some("2026-11-22T02:59:08.381972Z".parse().unwrap())
        );
        assert_eq!(
            (status.ended, status.exit_code, status.failure_reason),
            (None, Some(0), None)
        );
        let file = fs::File::open(dir.path()).unwrap();
        let again = JobStatus::read_at(&file, Path::new("."), dir.path())
            .unwrap()
            .unwrap();
        assert_eq!(again.state, Some(JobState::Done));
    }

    #[test]
    fn an_unknown_state_is_kept() {
        let dir = job(br#"{"state": "dreaming"}"#);
        let state = JobStatus::read(dir.path()).unwrap().unwrap().state.unwrap();
        assert_eq!(state.to_string(), "dreaming");
    }

    #[test]
    fn a_missing_status_is_none_and_an_incomplete_one_is_an_error() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(JobStatus::read(empty.path()).unwrap(), None);
        for text in [
            &b""[..],
            b"{\"state\": \"do",
            b"\x00\xff",
            b"[]",
            b"{\"state\": 3}",
        ] {
            let dir = job(text);
            let error = JobStatus::read(dir.path()).unwrap_err();
            assert_eq!(error.path(), dir.path().join(".experimaestro/status.json"));
        }
    }

    fn read_params(text: &[u8]) -> Result<Option<Params>> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("params.json"), text).unwrap();
        Params::read(dir.path())
    }

    #[test]
    fn the_head_is_read_and_the_objects_are_skipped() {
        let params = read_params(
            br#"{"workspace": "/w/\u00e9", "version": 3, "objects": [{"fields": {"x": Infinity, "s": "\udcff"}}]}"#,
        );
        let params = params.unwrap().unwrap();
        assert_eq!(params.workspace, Path::new("/w/é"));
        assert_eq!(params.version, RELATIVE_PATHS);
    }

    #[test]
    fn an_old_file_has_neither() {
        let params = read_params(br#"{"objects": []}"#).unwrap().unwrap();
        assert_eq!((params.workspace, params.version), (PathBuf::new(), 0));
    }

    #[test]
    fn params_that_are_cut_short_are_an_error() {
        for text in [
            &b""[..],
            b"{\"workspace\": \"/w\", \"version\": 3, \"obj",
            b"\xff",
        ] {
            assert!(read_params(text).is_err());
        }
        assert_eq!(Params::read(Path::new("/nonexistent")).unwrap(), None);
    }
}
