//! Reads a run of an experiment: its id, status and jobs.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use jiff::civil::DateTime;
use rustix::fs::CWD;
use serde::Deserialize;

use super::error::{PartialList, Result, WorkspaceError};
use super::events::StateChange;
use super::job_files::JobState;
use super::jobs::{self, JobId};
use super::jobs_jsonl::JobsJsonl;
use super::{layout, python_json, read};

/// The id of a run: the name of its directory.
///
/// experimaestro makes it from the local time at which the run started, `YYYYMMDD_HHMMSS`, with `.1`, `.2` … if several start in
/// one second. Ids sort by time and then by that number (`.10` after `.2`); other names sort by their bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunId(OsString);

impl RunId {
    /// The run whose directory is called `name`.
    pub fn new(name: impl Into<OsString>) -> Self {
        Self(name.into())
    }

    /// The name of the run's directory.
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }

    /// When the run started, in the local time of its machine; `None` for other names.
    #[must_use]
    pub fn started(&self) -> Option<DateTime> {
        let stem = std::str::from_utf8(self.parts().0).ok()?;
        // jiff also accepts shorter fields: `2026111_1111`.
        if stem.len() != "YYYYMMDD_HHMMSS".len() {
            return None;
        }
        DateTime::strptime("%Y%m%d_%H%M%S", stem).ok()
    }

    /// The part before the first dot, and the number after it, as `run_sort_key` in experimaestro.
    fn parts(&self) -> (&[u8], u64) {
        let bytes = self.0.as_encoded_bytes();
        let split = bytes.iter().position(|byte| *byte == b'.');
        let number = split.and_then(|dot| {
            let (stem, rest) = bytes.split_at(dot);
            let digits = std::str::from_utf8(rest.strip_prefix(b".")?).ok()?;
            Some((stem, digits.parse().ok()?))
        });
        number.unwrap_or((bytes, 0))
    }
}

impl Ord for RunId {
    fn cmp(&self, other: &Self) -> Ordering {
        // Then by name: `x.1` and `x.01` are two runs.
        self.parts()
            .cmp(&other.parts())
            .then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for RunId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(formatter)
    }
}

/// A run's id for a person: `2026-01-18 17:07:44` for `20260118_170744`. Ids of another form stay as they are.
///
/// As `format_run_id` in experimaestro's `copy_experiment`, which looks at nothing but the length and the `_`.
#[must_use]
pub fn format_run_id(id: &str) -> String {
    let digits: Vec<char> = id.chars().collect();
    if digits.len() != "YYYYMMDD_HHMMSS".len() || digits.get(8) != Some(&'_') {
        return id.to_owned();
    }
    let mut shown = String::with_capacity(id.len() + 4);
    for (at, digit) in digits.into_iter().enumerate() {
        match at {
            4 | 6 => shown.push('-'),
            8 => shown.push(' '),
            11 | 13 => shown.push(':'),
            _ => {}
        }
        if at != 8 {
            shown.push(digit);
        }
    }
    shown
}

/// How an experiment is laid out on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layout {
    /// `experiments/<id>/<run>/`.
    V2,
    /// `xp/<id>/`, with symlinks to its jobs in `jobs/` and, of the run before, in `jobs.bak/`.
    V1,
}

/// A run of an experiment, as a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// How its experiment is laid out.
    pub layout: Layout,
    /// Its directory; in the old layout, the experiment's.
    pub path: PathBuf,
}

impl Run {
    /// The content of its `status.json`; `None` if that is missing (the run was interrupted, or has the old layout).
    ///
    /// # Errors
    ///
    /// The file cannot be read, or does not have experimaestro's format.
    pub fn status(&self) -> Result<Option<RunStatus>> {
        let path = self.path.join("status.json");
        let Some(text) = read::whole(CWD, &path, &path)? else {
            return Ok(None);
        };
        let status = python_json::object(&text)
            .map_err(|error| WorkspaceError::new("parse", &path, error))?;
        Ok(Some(status))
    }

    /// The states of its jobs, by their hashes, as its `status.json` has them: those of jobs that a plan has removed, too. Empty
    /// without that file.
    ///
    /// # Errors
    ///
    /// As [`Run::status`].
    pub fn job_states(&self) -> Result<HashMap<String, StateChange>> {
        #[derive(Deserialize)]
        struct States {
            #[serde(default)]
            job_states: HashMap<String, String>,
        }

        let path = self.path.join("status.json");
        let Some(text) = read::whole(CWD, &path, &path)? else {
            return Ok(HashMap::new());
        };
        let states: States = python_json::object(&text)
            .map_err(|error| WorkspaceError::new("parse", &path, error))?;
        let states = states.job_states.into_iter().map(|(hash, state)| {
            // `error:TIMEOUT`
            let (name, reason) = state.split_once(':').unzip();
            let change = StateChange {
                state: JobState::from(name.unwrap_or(&state).to_owned()),
                failure_reason: reason.map(str::to_owned),
            };
            (hash, change)
        });
        Ok(states.collect())
    }

    /// The jobs that it submitted, with their tags, from `jobs.jsonl`; `None` if that is missing, as in the old layout, which has
    /// only [`Run::job_links`].
    ///
    /// # Errors
    ///
    /// The file cannot be opened. Errors in a line are items of the reader.
    pub fn jobs(&self) -> Result<Option<JobsJsonl>> {
        JobsJsonl::open(&self.path.join("jobs.jsonl"))
    }

    /// The jobs to which it has a symlink, sorted: in `jobs/`, and in the old layout also in `jobs.bak/`.
    #[must_use]
    pub fn job_links(&self) -> PartialList<JobId> {
        let mut links = jobs::list(&self.path.join(layout::JOBS));
        if self.layout == Layout::V1 {
            let before = jobs::list(&self.path.join(layout::JOBS_BAK));
            links.found.extend(before.found);
            links.errors.extend(before.errors);
            links.found.sort_unstable();
            links.found.dedup();
        }
        links
    }
}

/// The state of a run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "String")]
pub enum RunState {
    /// It runs, or was killed.
    Running,
    /// It succeeded.
    Done,
    /// It failed.
    Failed,
    /// A state that is unknown to this version.
    Other(String),
}

impl From<String> for RunState {
    /// As experimaestro's `MockExperiment.from_state_dict`, with its older names.
    fn from(name: String) -> Self {
        match name.as_str() {
            "running" | "active" => Self::Running,
            "done" | "completed" => Self::Done,
            "failed" => Self::Failed,
            _ => Self::Other(name),
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Other(name) => name,
        })
    }
}

/// The fields of a run's `status.json` that xpmfs uses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RunStatus {
    /// The state of the run.
    #[serde(default)]
    pub status: Option<RunState>,
    /// The machine on which it started.
    #[serde(default)]
    pub hostname: Option<String>,
    /// When it started.
    #[serde(default, rename = "started_at", deserialize_with = "python_json::time")]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[serde(default, rename = "ended_at", deserialize_with = "python_json::time")]
    pub ended: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;

    fn run(layout: Layout) -> (tempfile::TempDir, Run) {
        let dir = tempfile::tempdir().unwrap();
        let run = Run {
            id: RunId::new("20261122_025907"),
            layout,
            path: dir.path().to_path_buf(),
        };
        (dir, run)
    }

    #[test]
    fn an_id_contains_the_start_of_its_run() {
        let started = Some(jiff::civil::date(2026, 11, 22).at(2, 59, 7, 0));
        assert_eq!(RunId::new("20261122_025907").started(), started);
        assert_eq!(RunId::new("20261122_025907.12").started(), started);
        for other in [
            "",
            "v1",
            "20261122_02590",
            "20261322_025907",
            "20261122_025907.x",
            "2026112_0259070",
        ] {
            assert_eq!(RunId::new(other).started(), None, "{other}");
        }
        assert_eq!(RunId::new(OsStr::from_bytes(b"\xff")).started(), None);
    }

    #[test]
    fn ids_sort_by_time_and_number() {
        let sorted = [
            "20261122_025907",
            "20261122_025907.1",
            "20261122_025907.2",
            "20261122_025907.10",
            "20261122_025908",
        ];
        let mut ids: Vec<_> = sorted.iter().rev().map(RunId::new).collect();
        ids.sort();
        assert!(ids.iter().map(RunId::as_os_str).eq(sorted));
        assert_ne!(RunId::new("x.1").cmp(&RunId::new("x.01")), Ordering::Equal);
    }

    #[test]
    fn a_status_is_read_and_an_incomplete_one_is_an_error() {
        let (dir, run) = run(Layout::V2);
        assert_eq!(run.status().unwrap(), None);
        let path = dir.path().join("status.json");
        fs::write(&path, r#"{"version": 1, "status": "completed", "hostname": "vm", "started_at": "2026-11-22T02:59:07Z", "ended_at": null, "job_states": {"1": "done"}}"#).unwrap();
        let status = run.status().unwrap().unwrap();
        assert_eq!(status.status, Some(RunState::Done));
        assert_eq!(status.hostname.as_deref(), Some("vm"));
        assert_eq!(
            (status.started, status.ended),
            (Some("2026-11-22T02:59:07Z".parse().unwrap()), None)
        );
        for text in [&b""[..], b"{\"status\": ", b"\xff\x00"] {
            fs::write(&path, text).unwrap();
            assert_eq!(run.status().unwrap_err().path(), path);
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(run.status().unwrap_err().to_string().contains("regular"));
    }

    #[test]
    fn the_old_layout_adds_the_jobs_of_the_previous_run() {
        let (dir, run) = run(Layout::V1);
        for link in ["jobs/t/1", "jobs/t/2", "jobs.bak/t/2", "jobs.bak/s/3"] {
            let link = dir.path().join(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink("/nowhere", link).unwrap();
        }
        let links = run.job_links();
        let seen: Vec<_> = links.found.iter().map(JobId::to_string).collect();
        assert_eq!(seen, ["s/3", "t/1", "t/2"]);
        assert!(links.errors.is_empty());
        assert!(run.jobs().unwrap().is_none());
    }
}
