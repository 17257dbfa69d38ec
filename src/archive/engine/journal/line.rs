//! Writes and reads one line of a journal.

use std::ffi::OsString;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::transfer::manifest::{bytes, text_or_hex};
use crate::workspace::JobId;

/// The content of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::archive::engine) enum Line {
    /// The job is queued.
    Queued(JobId),
    /// The job is no longer queued.
    Done(JobId),
    /// A folder has refused the job.
    Failed(JobId, RecordedRefusal),
}

/// A folder's refusal of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::archive::engine) struct RecordedRefusal {
    /// The folder's directory, as in the settings.
    pub(in crate::archive::engine) folder: OsString,
    /// How often in a row.
    pub(in crate::archive::engine) tries: u32,
    /// When the folder is tried again.
    pub(in crate::archive::engine) next: SystemTime,
    /// Why, for a person.
    pub(in crate::archive::engine) why: String,
}

/// A line as it is written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    queued: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queued_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    done_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folder: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folder_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Line {
    /// Appends the line to a text, with a newline.
    pub(super) fn write(&self, text: &mut Vec<u8>) {
        let mut line = Written::default();
        let name = |job: &JobId| text_or_hex(job.path().as_os_str());
        match self {
            Line::Queued(job) => (line.queued, line.queued_hex) = name(job),
            Line::Done(job) => (line.done, line.done_hex) = name(job),
            Line::Failed(job, refused) => {
                (line.failed, line.failed_hex) = name(job);
                (line.folder, line.folder_hex) = text_or_hex(&refused.folder);
                let next = refused.next.duration_since(UNIX_EPOCH).unwrap_or_default();
                line.next = Some(next.as_secs());
                line.tries = Some(refused.tries);
                line.why = Some(refused.why.clone());
            }
        }
        // Numbers and strings can always be written to memory.
        if let Ok(json) = serde_json::to_vec(&line) {
            text.extend_from_slice(&json);
            text.push(b'\n');
        }
    }

    /// Parses a line; `None` if the line is torn or of an unknown kind.
    pub(super) fn read(line: &[u8]) -> Option<Line> {
        let line: Written = serde_json::from_slice(line).ok()?;
        let job = |text: &Option<String>, hex: &Option<String>| {
            let id = bytes(text.as_deref(), hex.as_deref())?;
            JobId::parse(&id).ok()
        };
        if let Some(job) = job(&line.queued, &line.queued_hex) {
            return Some(Line::Queued(job));
        }
        if let Some(job) = job(&line.done, &line.done_hex) {
            return Some(Line::Done(job));
        }
        let job = job(&line.failed, &line.failed_hex)?;
        let next = Duration::from_secs(line.next?);
        let refused = RecordedRefusal {
            folder: bytes(line.folder.as_deref(), line.folder_hex.as_deref())?,
            tries: line.tries?,
            next: UNIX_EPOCH.checked_add(next)?,
            why: line.why.unwrap_or_default(),
        };
        Some(Line::Failed(job, refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn written_lines_are_read_back() {
        let next = UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        for id in [&b"my.task/0123"[..], b"my.\xff/\xfe", b"a\nb/\"c\""] {
            let job = JobId::parse(OsStr::from_bytes(id)).unwrap();
            let refused = RecordedRefusal {
                folder: OsStr::from_bytes(b"/slow/\xff").to_owned(),
                tries: 3,
                next,
                why: "it is \"odd\"\n".to_owned(),
            };
            for line in [
                Line::Queued(job.clone()),
                Line::Done(job.clone()),
                Line::Failed(job, refused),
            ] {
                let mut text = Vec::new();
                line.write(&mut text);
                assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1);
                assert_eq!(Line::read(&text), Some(line));
            }
        }
    }

    #[test]
    fn invalid_lines_are_skipped() {
        for line in [
            &b""[..],
            b"{",
            b"{\"queued\":\"a/",
            b"{\"queued\":\"no job\"}",
            b"{\"queued\":\"../x\"}",
            b"{\"queued_hex\":\"6\"}",
            b"{\"failed\":\"a/b\"}",
            b"{\"failed\":\"a/b\",\"folder\":\"/f\",\"tries\":1,\"next\":-1}",
            b"[]",
            b"{\"later\":\"a/b\"}",
            b"\xff",
        ] {
            assert_eq!(Line::read(line), None);
        }
    }
}
