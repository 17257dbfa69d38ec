//! The head of a job's `params.json`.

use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use serde::Deserialize;

use super::error::{Error, Result};
use super::{python_json, read};

/// The version of `params.json` from which on its paths are relative, so that a job can be copied.
pub const RELATIVE_PATHS: u64 = 3;

/// What `params.json` says about itself; the job's parameters (`objects`) are skipped, not built.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Params {
    /// The workspace that the job was submitted in, as it was called there. Empty in files that have none.
    #[serde(default, deserialize_with = "python_json::path")]
    pub workspace: PathBuf,
    /// The version of the format; 0 in files that have none, as in experimaestro's `check_params_version`.
    #[serde(default)]
    pub version: u64,
}

impl Params {
    /// Reads `params.json` of the job in the directory `job`; `None` if it has none.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not what experimaestro writes.
    pub fn read(job: &Path) -> Result<Option<Self>> {
        let path = job.join("params.json");
        let Some(text) = read::whole(CWD, &path, &path)? else {
            return Ok(None);
        };
        let params =
            python_json::object(&text).map_err(|error| Error::new("parse", &path, error))?;
        Ok(Some(params))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn read(text: &[u8]) -> Result<Option<Params>> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("params.json"), text).unwrap();
        Params::read(dir.path())
    }

    #[test]
    fn the_head_is_read_and_the_objects_are_skipped() {
        let params = read(
            br#"{"workspace": "/w/\u00e9", "version": 3, "objects": [{"fields": {"x": Infinity, "s": "\udcff"}}]}"#,
        );
        let params = params.unwrap().unwrap();
        assert_eq!(params.workspace, Path::new("/w/é"));
        assert_eq!(params.version, RELATIVE_PATHS);
    }

    #[test]
    fn an_old_file_has_neither() {
        let params = read(br#"{"objects": []}"#).unwrap().unwrap();
        assert_eq!((params.workspace, params.version), (PathBuf::new(), 0));
    }

    #[test]
    fn a_file_that_is_cut_short_is_an_error() {
        for text in [
            &b""[..],
            b"{\"workspace\": \"/w\", \"version\": 3, \"obj",
            b"\xff",
        ] {
            assert!(read(text).is_err());
        }
        assert_eq!(Params::read(Path::new("/nonexistent")).unwrap(), None);
    }
}
