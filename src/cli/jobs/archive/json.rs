//! What `jobs archive --json` prints for a job and folder: docs/json.md lists the keys.

use serde_json::{Value, json};

use crate::archive::job::ready::Readiness;
use crate::archive::job::store::{Skipped, Stored};
use crate::archive::manual::Outcome;
use crate::workspace::jobs::JobId;

/// The keys of an entry of `--json` that have fixed values; docs/json.md lists them.
#[derive(Default)]
pub(super) struct JsonEntry {
    pub(super) folder: Option<String>,
    pub(super) result: &'static str,
    pub(super) reason: Option<&'static str>,
    pub(super) files: Option<u64>,
    pub(super) bytes: Option<u64>,
}

impl JsonEntry {
    /// The keys of an outcome.
    pub(super) fn of(outcome: &Outcome, label: impl Fn(u8) -> String) -> JsonEntry {
        let plain = |result| JsonEntry {
            result,
            ..JsonEntry::default()
        };
        let not_archived = |reason| JsonEntry {
            reason: Some(reason),
            ..plain("not_archived")
        };
        match outcome {
            Outcome::Folder(folder, stored) => {
                let folder = label(*folder);
                let moves = folder.starts_with("move:");
                let listed = match stored {
                    Ok(stored) => JsonEntry::stored(*stored, moves),
                    Err(error) if error.is_cancelled() => plain("cancelled"),
                    Err(_) => plain("failed"),
                };
                JsonEntry {
                    folder: Some(folder),
                    ..listed
                }
            }
            Outcome::Unknown(error) if error.is_cancelled() => plain("cancelled"),
            Outcome::Unknown(_) => plain("failed"),
            Outcome::PutBack { .. } => not_archived("put_back"),
            Outcome::NotReady(readiness) => match readiness {
                Readiness::Elsewhere => plain("present"),
                Readiness::Ready { .. } | Readiness::Settling(_) => not_archived("settling"),
                Readiness::Busy(_) => not_archived("busy"),
                Readiness::Unfinished => not_archived("unfinished"),
                Readiness::Purged => not_archived("purged"),
                Readiness::Failed => not_archived("job_failed"),
                Readiness::Lost => not_archived("lost"),
                Readiness::Absent => not_archived("absent"),
                Readiness::OptedOut(_) => not_archived("opted_out"),
                Readiness::Unknown(_) => not_archived("unknown"),
            },
        }
    }

    fn stored(stored: Stored, moves: bool) -> JsonEntry {
        let (result, reason, copied) = match stored {
            Stored::Copied { files, bytes } if moves => ("moved", None, Some((files, bytes))),
            Stored::Copied { files, bytes } => ("copied", None, Some((files, bytes))),
            Stored::Replaced { files, bytes } => ("replaced", None, Some((files, bytes))),
            // The folder had the copy before, and the job is moved to it.
            Stored::Already if moves => ("moved", None, Some((0, 0))),
            Stored::Already => ("present", None, None),
            Stored::Skipped(Skipped::Gone) => ("skipped", Some("gone"), None),
            Stored::Skipped(Skipped::Unfinished) => ("skipped", Some("unfinished"), None),
            Stored::Skipped(Skipped::Older) => ("skipped", Some("copy_newer"), None),
            Stored::Skipped(Skipped::Purged) => ("skipped", Some("purged"), None),
            Stored::Skipped(Skipped::Kept) => ("skipped", Some("recovered"), None),
        };
        JsonEntry {
            result,
            reason,
            files: copied.map(|(files, _)| files),
            bytes: copied.map(|(_, bytes)| bytes),
            ..JsonEntry::default()
        }
    }

    /// The entry of a job.
    pub(super) fn json(&self, job: &JobId, why: Option<String>) -> Value {
        json!({
            "job": job.to_string(),
            "item": null,
            "folder": self.folder,
            "result": self.result,
            "reason": self.reason,
            "files": self.files,
            "bytes": self.bytes,
            "why": why,
        })
    }
}
