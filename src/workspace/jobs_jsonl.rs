//! Reads `jobs.jsonl` of a run: the jobs that it submitted, one on each line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::CWD;
use serde::Deserialize;

use super::error::{Cause, Result, WorkspaceError};
use super::jobs::JobId;
use super::tags::Tags;
use super::{python_json, read};

/// The longest line that is read, in bytes. A job's line has some hundred.
const MAX_LINE: u64 = 4 << 20;

/// A job that a run submitted.
#[derive(Debug, Clone, PartialEq)]
pub struct SubmittedJob {
    /// Its id.
    pub id: JobId,
    /// Its tags, whose values are JSON scalars. `NaN` and the infinities, which Python writes and JSON lacks, are strings.
    pub tags: Tags,
    /// When it was submitted.
    pub submitted: Option<Timestamp>,
    /// experimaestro's transient mode: 0 for an ordinary job; other jobs run only if another job needs them.
    pub transient: i64,
}

/// A line of experimaestro's `ExperimentJobInformation`.
#[derive(Deserialize)]
struct Line {
    job_id: String,
    task_id: String,
    #[serde(default)]
    tags: Option<Tags>,
    #[serde(default, deserialize_with = "python_json::time")]
    timestamp: Option<Timestamp>,
    #[serde(default)]
    transient: Option<i64>,
}

/// Reads a `jobs.jsonl` from its first line to its last.
///
/// Each item is a job, or an error about `path:line`; reading continues after an invalid line. The file grows during a run, so its
/// last line may be incomplete. A job that was submitted twice comes twice: the last line is valid.
#[derive(Debug)]
pub struct JobsJsonl<R = BufReader<File>> {
    reader: R,
    path: PathBuf,
    line: u64,
    failed: bool,
}

impl JobsJsonl {
    /// Opens the `jobs.jsonl` at `path`; `None` if it is missing.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or is not a regular file.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let file = read::open(CWD, path, path)?;
        Ok(file.map(|file| JobsJsonl::from_reader(BufReader::new(file), path)))
    }
}

impl<R: BufRead> JobsJsonl<R> {
    /// Reads from `reader`; errors have `path`.
    pub fn from_reader(reader: R, path: &Path) -> Self {
        Self {
            reader,
            path: path.to_path_buf(),
            line: 0,
            failed: false,
        }
    }

    fn error(&self, operation: &'static str, cause: impl Into<Cause>) -> WorkspaceError {
        WorkspaceError::new(operation, &self.path, cause).at_line(self.line)
    }

    /// The next line, and how it ends; `None` at the end of the file.
    fn next_line(&mut self) -> io::Result<Option<(Vec<u8>, Ending)>> {
        let mut line = Vec::new();
        let mut limited = self.reader.by_ref().take(MAX_LINE);
        if limited.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let ending = if line.ends_with(b"\n") {
            Ending::Newline
        } else if line.len() as u64 == MAX_LINE {
            self.reader.skip_until(b'\n')?;
            Ending::TooLong
        } else {
            Ending::EndOfFile
        };
        Ok(Some((line, ending)))
    }

    fn parse(&self, line: &[u8], ending: Ending) -> Result<SubmittedJob> {
        let parsed: serde_json::Result<Line> = python_json::object(line);
        let line = match (parsed, ending) {
            (_, Ending::TooLong) => {
                let message = format!("the line is longer than {} MiB", MAX_LINE >> 20);
                return Err(self.error("read", Cause::Content(message)));
            }
            (Err(_), Ending::EndOfFile) => {
                let message = "the last line is cut short; a run may still be writing it".into();
                return Err(self.error("parse", Cause::Content(message)));
            }
            (Err(error), Ending::Newline) => return Err(self.error("parse", error)),
            (Ok(line), _) => line,
        };
        let id = JobId::new(line.task_id, line.job_id)
            .map_err(|error| self.error("parse", Cause::Content(error.to_string())))?;
        Ok(SubmittedJob {
            id,
            tags: line.tags.unwrap_or_default(),
            submitted: line.timestamp,
            transient: line.transient.unwrap_or_default(),
        })
    }
}

#[derive(Clone, Copy)]
enum Ending {
    Newline,
    EndOfFile,
    TooLong,
}

impl<R: BufRead> Iterator for JobsJsonl<R> {
    type Item = Result<SubmittedJob>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            self.line += 1;
            match self.next_line() {
                Ok(None) => return None,
                Ok(Some((line, _))) if line.trim_ascii().is_empty() => {}
                Ok(Some((line, ending))) => return Some(self.parse(&line, ending)),
                Err(error) => {
                    self.failed = true;
                    return Some(Err(self.error("read", error)));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(text: &[u8]) -> Vec<Result<SubmittedJob>> {
        JobsJsonl::from_reader(text, Path::new("/x/jobs.jsonl")).collect()
    }

    #[test]
    fn a_line_is_a_job_with_its_tags() {
        let text = br#"{"job_id": "82f2", "task_id": "__main__.prepare", "tags": {"n": 1000, "s": "x", "b": true, "z": null, "inf": -Infinity}, "timestamp": 1795316347.5, "transient": 2, "new": [1]}
{"job_id": "ec12", "task_id": "__main__.train", "tags": {}, "timestamp": null}
"#;
        let jobs: Vec<_> = lines(text).into_iter().map(Result::unwrap).collect();
        assert_eq!(jobs[0].id, JobId::parse("__main__.prepare/82f2").unwrap());
        assert_eq!(
            serde_json::to_value(&jobs[0].tags).unwrap(),
            json!({"n": 1000, "s": "x", "b": true, "z": null, "inf": "-Infinity"})
        );
        assert_eq!(
            jobs[0].submitted,
            Some("2026-11-22T02:59:07.5Z".parse().unwrap())
        );
        assert_eq!(jobs[0].transient, 2);
        assert_eq!((jobs[1].submitted, jobs[1].transient), (None, 0));
        assert_eq!(jobs.len(), 2);
    }

    #[test]
    fn an_invalid_line_is_an_error_and_the_others_are_read() {
        let good = r#"{"job_id": "1", "task_id": "t"}"#;
        let text = format!(
            "{good}\nnonsense\n\n{good}\r\n{{\"job_id\": \"1\"}}\n{{\"job_id\": \"../..\", \"task_id\": \"t\"}}\n{good}"
        );
        let items = lines(text.as_bytes());
        let bad: Vec<_> = items
            .iter()
            .filter_map(|item| item.as_ref().err())
            .collect();
        assert_eq!(items.len() - bad.len(), 3);
        let at: Vec<_> = bad.iter().map(|error| error.line()).collect();
        assert_eq!(at, [Some(2), Some(5), Some(6)]);
        assert!(bad[0].to_string().contains("/x/jobs.jsonl:2"), "{}", bad[0]);
    }

    #[test]
    fn an_incomplete_last_line_has_its_own_error() {
        let text = b"{\"job_id\": \"1\", \"task_id\": \"t\"}\n{\"job_id\": \"2\", \"ta";
        let items = lines(text);
        assert!(items[0].is_ok());
        let message = items[1].as_ref().unwrap_err().to_string();
        assert!(
            message.contains("jobs.jsonl:2") && message.contains("cut short"),
            "{message}"
        );
    }

    #[test]
    fn a_huge_line_is_skipped_in_bounded_memory() {
        let mut text = vec![b'x'; 3 * MAX_LINE as usize];
        text.extend_from_slice(b"\n{\"job_id\": \"1\", \"task_id\": \"t\"}\n");
        let items = lines(&text);
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].as_ref().unwrap_err().line(), Some(1));
        assert!(items[1].is_ok());
    }

    #[test]
    fn a_missing_file_is_none_and_a_directory_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(JobsJsonl::open(&dir.path().join("none")).unwrap().is_none());
        let error = JobsJsonl::open(dir.path()).unwrap_err();
        assert_eq!(error.path(), dir.path());
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = lines(&bytes);
        }
    }
}
