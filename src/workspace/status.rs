//! `.experimaestro/status.json` of a job: what experimaestro last knew of it.
//!
//! It is written late, and may be stale from an earlier run: where a marker disagrees
//! ([`super::markers`]), the marker is right.

use std::os::fd::AsFd;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::CWD;
use serde::Deserialize;

use super::error::{Error, Result};
use super::{layout, python_json, read, time};

/// The state of a job in experimaestro's scheduler (`STATE_NAME_TO_JOBSTATE` in its `interfaces.py`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "String")]
pub enum JobState {
    /// Not submitted yet.
    Unscheduled,
    /// Run only if another job needs it.
    Transient,
    /// Waits for other jobs.
    Waiting,
    /// Could start.
    Ready,
    /// Handed to a launcher.
    Scheduled,
    /// Runs.
    Running,
    /// Ended well.
    Done,
    /// Failed.
    Error,
    /// A state that this version does not know.
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

/// What of `status.json` is of use here; its other fields are not kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct JobStatus {
    /// The state of the job.
    #[serde(default)]
    pub state: Option<JobState>,
    /// When it started.
    #[serde(default, rename = "started_time", deserialize_with = "time::lenient")]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(default, rename = "ended_time", deserialize_with = "time::lenient")]
    pub ended: Option<Timestamp>,
    /// The status that its process exited with.
    #[serde(default)]
    pub exit_code: Option<i64>,
    /// Why it failed (`FAILED`, `TIMEOUT`, `MEMORY` …).
    #[serde(default)]
    pub failure_reason: Option<String>,
}

impl JobStatus {
    /// Reads the status of the job in the directory `job`; `None` if it has none.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not what experimaestro writes.
    pub fn read(job: &Path) -> Result<Option<Self>> {
        Self::read_at(CWD, job, job)
    }

    /// The same for the job at `job` relative to `directory`; `shown` is the job's path for messages.
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
        let status =
            python_json::object(&text).map_err(|error| Error::new("parse", &shown, error))?;
        Ok(Some(status))
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
    fn a_state_that_is_not_known_is_kept() {
        let dir = job(br#"{"state": "dreaming"}"#);
        let state = JobStatus::read(dir.path()).unwrap().unwrap().state.unwrap();
        assert_eq!(state.to_string(), "dreaming");
    }

    #[test]
    fn no_status_is_none_and_half_a_status_an_error_about_the_file() {
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
}
