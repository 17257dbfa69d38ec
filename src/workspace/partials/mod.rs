//! The directories below `partials/` that jobs share, and which of them a job names.
//!
//! experimaestro 2.7.0 computes `partials/<task_id>/<partial>/<identifier>` (`JobContext.partial_path` in `scheduler/jobs.py`) and names it
//! in three ways; each is read here:
//!
//! 1. In `params.json` from version 3, a path below it: `{"type": "path", "value": "partials/…/model.pt", "base": "workspace"}`. Every object
//!    in the file counts: a job that reads another job's checkpoint names the partial, too.
//! 2. In earlier versions, an absolute path without `base`; the file's own `workspace` is its beginning.
//! 3. As the symlink `.experimaestro/partials/<partial>` in the job (`PartialLock.aio_job_before_start` in `core/partial_lock.py`), also if no
//!    parameter is a path in it. Only the partials of the task's own class have one, not those of its parameters' classes.
//!
//! - `id`: the name of a partial
//! - `params`: the paths in a `params.json`
//! - `links`: the symlinks of a job

mod id;
mod links;
mod params;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

pub use self::id::PartialId;
pub use self::links::{has_links, is_same_in_another_workspace, rebase_links};
use super::error::{Result, WorkspaceError};
use super::jobs::is_job_entry;
use super::layout::PARTIALS;
use super::read;

/// The partials that the job in the open directory `job` names; `shown` is its path in messages. `workspace` is the path of the
/// workspace: absolute paths below it count, besides those below the one that `params.json` names.
///
/// # Errors
///
/// `params.json` cannot be read, or is not JSON.
pub fn named_by(job: impl AsFd, workspace: &Path, shown: &Path) -> Result<BTreeSet<PartialId>> {
    let mut found = BTreeSet::new();
    let mut workspaces = vec![workspace.to_owned()];
    let name = Path::new("params.json");
    let path = shown.join(name);
    if let Some(text) = read::whole(&job, name, &path)? {
        let paths =
            params::parse(&text).map_err(|error| WorkspaceError::new("parse", &path, error))?;
        workspaces.extend(paths.workspace);
        found.extend(
            paths
                .found
                .iter()
                .filter_map(|path| below(path, &workspaces)),
        );
    }
    found.extend(
        links::targets(&job)
            .iter()
            .filter_map(|target| below(target, &workspaces)),
    );
    Ok(found)
}

/// The partial that a path lies in, which is absolute or relative to the workspace.
fn below(path: &Path, workspaces: &[PathBuf]) -> Option<PartialId> {
    if path.is_relative() {
        return PartialId::of(path);
    }
    let mut relative = workspaces
        .iter()
        .filter_map(|top| path.strip_prefix(top).ok());
    relative.find_map(PartialId::of)
}

/// The directories of the workspace at `root` that have partials, `partials/<task_id>/<partial>`, sorted.
#[must_use]
pub fn parents(root: &Path) -> Vec<PathBuf> {
    let top = root.join(PARTIALS);
    let tasks = names(&top).into_iter();
    let parents = tasks.flat_map(|task| {
        let task = top.join(task);
        let partials = names(&task).into_iter();
        partials.map(move |partial| task.join(partial))
    });
    parents.collect()
}

fn names(directory: &Path) -> Vec<OsString> {
    let mut names = read::names(directory).found;
    names.retain(|name| is_job_entry(name));
    names
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    use super::*;

    fn named(params: &str) -> Vec<String> {
        let job = tempfile::tempdir().unwrap();
        fs::write(job.path().join("params.json"), params).unwrap();
        found(job.path())
    }

    fn found(job: &Path) -> Vec<String> {
        let found = named_by(File::open(job).unwrap(), Path::new("/now"), job).unwrap();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn partials_are_found_in_all_versions_of_params_json() {
        let found = named(
            r#"{"workspace": "/old/ws", "version": 3, "objects": [
                {"fields": {"a": {"type": "path", "value": "partials/t.learn/ck/1f/model.pt", "base": "workspace"},
                            "limit": Infinity, "n": -1, "x": 0.5, "none": null, "yes": true}},
                {"fields": {"list": [{"type": "path.serialized", "value": "/old/ws/partials/t.learn/ck/2f", "is_folder": true}],
                            "new": {"type": "path", "value": "/now/partials/t.learn/ck/3f/x"}}},
                {"fields": {"own": {"type": "path", "value": "partials/t.learn/ck/no", "base": "job"},
                            "data": {"type": "path", "value": "/data/partials/t.learn/ck/no/x"},
                            "up": {"type": "path", "value": "partials/../ck/no/x", "base": "workspace"},
                            "short": {"type": "path", "value": "partials/t.learn/ck", "base": "workspace"},
                            "text": "partials/t.learn/ck/no"}}]}"#,
        );
        let expected = ["1f", "2f", "3f"].map(|id| format!("partials/t.learn/ck/{id}"));
        assert_eq!(found, expected);
    }

    #[test]
    fn escaped_bytes_hide_no_partial() {
        let found = named(
            r#"{"objects": [{"fields": {"name": "\udcff \\udcff \ud83d\ude00",
                "a": {"type": "path", "value": "partials/t/ck/1f", "base": "workspace"}}}]}"#,
        );
        assert_eq!(found, ["partials/t/ck/1f"]);
    }

    #[test]
    fn symlinks_of_a_job_name_partials() {
        let job = tempfile::tempdir().unwrap();
        let links = job.path().join(".experimaestro/partials");
        fs::create_dir_all(&links).unwrap();
        symlink("/now/partials/t/ck/1f", links.join("ck")).unwrap();
        symlink("/elsewhere/partials/t/ck/2f", links.join("other")).unwrap();
        assert_eq!(found(job.path()), ["partials/t/ck/1f"]);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let job = tempfile::tempdir().unwrap();
        fs::write(job.path().join("params.json"), "{\"objects\": [").unwrap();
        let error = named_by(File::open(job.path()).unwrap(), Path::new("/"), job.path());
        assert_eq!(error.unwrap_err().path(), job.path().join("params.json"));
    }
}
