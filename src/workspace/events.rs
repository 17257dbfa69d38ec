//! The events of running jobs that are not in their `status.json` yet: `.events/jobs/<8 digits>-<hash>-<number>.jsonl`, or, of older
//! versions, `.events/jobs/<task_id>/event-<hash>-<number>.jsonl`.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use serde::Deserialize;

use super::job_files::JobState;
use super::{layout, python_json, read};

/// How many files of events are kept in mind; a running job has one.
const FILES_MAX: usize = 100_000;

/// The files of events of a workspace.
#[derive(Debug, Default)]
pub struct PendingEvents {
    /// By the hash of the job: the number of each file, and where it is.
    files: HashMap<OsString, Vec<(u64, PathBuf)>>,
}

/// The state of a job after an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// The state.
    pub state: JobState,
    /// Why it failed.
    pub failure_reason: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    event_type: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    failure_reason: Option<String>,
}

impl PendingEvents {
    /// Lists the files of the workspace at `root`. What cannot be read is left out.
    #[must_use]
    pub fn list(root: &Path) -> PendingEvents {
        let directory = root.join(layout::EVENTS).join(layout::JOBS);
        let mut events = PendingEvents::default();
        for name in read::names(&directory).found {
            let path = directory.join(&name);
            if let Some(rest) = after_task_digits(&name) {
                events.add(rest, path);
            } else if read::is_directory(&path).unwrap_or(false) {
                for name in read::names(&path).found {
                    if let Some(rest) = name.as_bytes().strip_prefix(b"event-") {
                        events.add(OsStr::from_bytes(rest), path.join(&name));
                    }
                }
            }
        }
        events
    }

    /// Adds a file; `rest` is the end of its name, `<hash>-<number>.jsonl`.
    fn add(&mut self, rest: &OsStr, path: PathBuf) {
        let Some(stem) = rest.as_bytes().strip_suffix(b".jsonl") else {
            return;
        };
        let Some(dash) = stem.iter().rposition(|byte| *byte == b'-') else {
            return;
        };
        let (hash, number) = stem.split_at(dash);
        let number = number
            .get(1..)
            .and_then(|text| std::str::from_utf8(text).ok());
        let Some(number) = number.and_then(|text| text.parse().ok()) else {
            return;
        };
        if self.files.len() < FILES_MAX {
            let hash = OsStr::from_bytes(hash).to_owned();
            self.files.entry(hash).or_default().push((number, path));
        }
    }

    /// The last change of the state of a job in the files from number `from` on.
    #[must_use]
    pub fn last_state(&self, hash: &OsStr, from: u64) -> Option<StateChange> {
        let mut files: Vec<&(u64, PathBuf)> = self.files.get(hash)?.iter().collect();
        files.retain(|(number, _)| *number >= from);
        // Of the same number, by the order of the names, as in experimaestro.
        files.sort();
        let mut last = None;
        for (_, path) in files {
            let Ok(Some(text)) = read::whole(CWD, path, path) else {
                continue;
            };
            for line in text.split(|byte| *byte == b'\n') {
                let Ok(event) = python_json::object::<Event>(line) else {
                    continue;
                };
                let state = JobState::from(event.state);
                if event.event_type != "JobStateChangedEvent" || matches!(state, JobState::Other(_))
                {
                    continue;
                }
                last = Some(StateChange {
                    state,
                    failure_reason: event.failure_reason,
                });
            }
        }
        last
    }
}

/// The end of a file's name after the eight digits for its task.
fn after_task_digits(name: &OsStr) -> Option<&OsStr> {
    let (digits, rest) = name.as_bytes().split_at_checked(8)?;
    let rest = rest.strip_prefix(b"-")?;
    digits
        .iter()
        .all(u8::is_ascii_hexdigit)
        .then_some(OsStr::from_bytes(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_last_state_of_a_job_is_that_of_its_last_event() {
        let top = tempfile::tempdir().unwrap();
        let directory = top.path().join(".events/jobs");
        fs::create_dir_all(directory.join("my.task")).unwrap();
        let event = |state: &str| {
            format!("{{\"event_type\":\"JobStateChangedEvent\",\"state\":\"{state}\"}}\n")
        };
        let other = "{\"event_type\":\"JobProgressEvent\",\"level\":0}\nnonsense\n[]\n";
        fs::write(
            directory.join("0123abcd-h1-0.jsonl"),
            event("scheduled") + other + &event("running"),
        )
        .unwrap();
        fs::write(directory.join("0123abcd-h1-1.jsonl"), event("error")).unwrap();
        fs::write(directory.join("my.task/event-h2-0.jsonl"), event("running")).unwrap();
        fs::write(directory.join("0123abcd-h3-x.jsonl"), event("running")).unwrap();
        let events = PendingEvents::list(top.path());
        let state = |hash: &str, from| {
            let last = events.last_state(OsStr::new(hash), from);
            last.map(|change| change.state)
        };
        assert_eq!(state("h1", 0), Some(JobState::Error));
        assert_eq!(state("h1", 2), None);
        assert_eq!(state("h2", 0), Some(JobState::Running));
        assert_eq!(state("h3", 0), None);
        assert_eq!(state("h", 0), None);
    }
}
