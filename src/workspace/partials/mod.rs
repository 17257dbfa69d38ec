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

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Statx, Timespec, Timestamps, UTIME_NOW};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::{Result, WorkspaceError};
use super::jobs::is_job_entry;
use super::layout::{JOB_STATE, PARAMS, PARTIALS};
use super::{python_json, read};
use crate::sys::at;

/// A directory that jobs share: `partials/<task_id>/<partial>/<identifier>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartialId([OsString; 3]);

impl PartialId {
    /// The partial with this task, name and identifier; `None` if one is not a safe name.
    #[must_use]
    pub fn new(task: &OsStr, name: &OsStr, identifier: &OsStr) -> Option<PartialId> {
        let parts = [task, name, identifier];
        let safe = parts.iter().all(|part| is_job_entry(part));
        safe.then(|| PartialId(parts.map(OsStr::to_owned)))
    }

    /// The partial that a path below a workspace lies in.
    fn of(path: &Path) -> Option<PartialId> {
        let mut parts = path.components().map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        if parts.next()?? != PARTIALS {
            return None;
        }
        PartialId::new(parts.next()??, parts.next()??, parts.next()??)
    }

    /// The partial in some workspace that an absolute path leads to.
    fn anywhere(path: &Path) -> Option<PartialId> {
        let identifier = path.file_name()?;
        let name = path.parent()?;
        let task = name.parent()?;
        let is_partial = path.is_absolute() && task.parent()?.file_name()? == PARTIALS;
        let id = PartialId::new(task.file_name()?, name.file_name()?, identifier);
        id.filter(|_| is_partial)
    }

    /// The three names below `partials/`.
    #[must_use]
    pub fn parts(&self) -> &[OsString; 3] {
        &self.0
    }
}

impl fmt::Display for PartialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [task, name, identifier] = &self.0;
        let (task, name) = (task.display(), name.display());
        write!(f, "{PARTIALS}/{task}/{name}/{}", identifier.display())
    }
}

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
        let paths = parse(&text).map_err(|error| WorkspaceError::new("parse", &path, error))?;
        workspaces.extend(paths.workspace);
        found.extend(
            paths
                .found
                .iter()
                .filter_map(|path| below(path, &workspaces)),
        );
    }
    found.extend(
        links(&job)
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

/// Whether a directory in a job is that of its symlinks to partials.
#[must_use]
pub fn has_links(directory: &Path) -> bool {
    let mut names = directory.components();
    let found = [JOB_STATE, PARTIALS].map(|name| Some(Component::Normal(OsStr::new(name))));
    found == [names.next(), names.next()] && names.next().is_none()
}

/// Whether two targets of a job's symlink to a partial lead to the same partial, of workspaces at different paths.
#[must_use]
pub fn is_same_in_another_workspace(target: &Path, other: &Path) -> bool {
    let (one, other) = (PartialId::anywhere(target), PartialId::anywhere(other));
    one.is_some() && one == other
}

/// Lets the symlinks of a job to partials of its former workspace, which `params` names in its open directory, lead to the workspace
/// at `workspace`, durably; returns how many. Their times stay.
///
/// # Errors
///
/// A symlink cannot be replaced. A job with another `params.json`, or without one, stays as it is.
pub fn rebase_links(
    params: impl AsFd,
    job: impl AsFd,
    workspace: &Path,
) -> rustix::io::Result<usize> {
    let former = read::whole(&params, Path::new(PARAMS), Path::new(PARAMS));
    let former = former.ok().flatten().and_then(|text| parse(&text).ok());
    let Some(former) = former.and_then(|paths| paths.workspace) else {
        return Ok(0);
    };
    let names = [OsStr::new(JOB_STATE), OsStr::new(PARTIALS)];
    let Some(directory) = at::absent(at::open_dirs(&job, names.into_iter()))? else {
        return Ok(0);
    };
    let before = at::stat_fd(&directory)?;
    let mut count = 0;
    for name in read::names(Path::new(&at::proc_path(&directory))).found {
        let Ok(target) = at::read_link(&directory, &name).map(PathBuf::from) else {
            continue;
        };
        let relative = target.strip_prefix(&former).ok();
        let Some(id) = relative.and_then(PartialId::of) else {
            continue;
        };
        let mut target = workspace.join(PARTIALS);
        target.extend(id.parts());
        replace_link(&directory, &name, &target)?;
        count += 1;
    }
    if count > 0 {
        set_mtime(&directory, OsStr::new("."), &before)?;
        rustix::fs::fsync(at::open_to_list(&directory, OsStr::new("."))?)?;
    }
    Ok(count)
}

/// Replaces a symlink by one with another target and the same time of change.
fn replace_link(directory: &OwnedFd, name: &OsStr, target: &Path) -> rustix::io::Result<()> {
    let before = at::stat(directory, name)?;
    rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
    rustix::fs::symlinkat(target, directory, name)?;
    set_mtime(directory, name, &before)
}

fn set_mtime(directory: &OwnedFd, name: &OsStr, to: &Statx) -> rustix::io::Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        last_modification: Timespec {
            tv_sec: to.stx_mtime.tv_sec,
            tv_nsec: to.stx_mtime.tv_nsec.into(),
        },
    };
    rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// The targets of the symlinks in `.experimaestro/partials`.
fn links(job: impl AsFd) -> Vec<PathBuf> {
    let names = [OsStr::new(JOB_STATE), OsStr::new(PARTIALS)];
    let Ok(directory) = at::open_dirs(job, names.into_iter()) else {
        return Vec::new();
    };
    let names = read::names(Path::new(&at::proc_path(&directory))).found;
    let links = names.iter();
    let targets = links.filter_map(|name| at::read_link(&directory, name).ok());
    targets.map(PathBuf::from).collect()
}

/// The paths in a `params.json`.
#[derive(Debug, Default)]
struct Paths {
    workspace: Option<PathBuf>,
    /// Absolute paths, and those relative to the workspace.
    found: Vec<PathBuf>,
}

fn parse(text: &[u8]) -> serde_json::Result<Paths> {
    python_json::object(text).or_else(|error| match without_surrogates(text) {
        Some(text) => python_json::object(&text),
        None => Err(error),
    })
}

/// The text with U+FFFD for each escaped surrogate, by which Python writes bytes that are not UTF-8 and which no JSON string may have;
/// `None` if it has none.
fn without_surrogates(text: &[u8]) -> Option<Vec<u8>> {
    let mut text = text.to_vec();
    let mut found = false;
    let mut at = skip_to_backslash(&text);
    while let Some([b'\\', next, rest @ ..]) = text.get_mut(at..) {
        if *next == b'u'
            && let Some(digits @ [b'd' | b'D', b'8'..=b'9' | b'a'..=b'f' | b'A'..=b'F', ..]) =
                rest.get_mut(..4)
        {
            digits.copy_from_slice(b"fffd");
            found = true;
        }
        at += 2;
        at += skip_to_backslash(text.get(at..)?);
    }
    found.then_some(text)
}

fn skip_to_backslash(text: &[u8]) -> usize {
    let found = text.iter().position(|byte| *byte == b'\\');
    found.unwrap_or(text.len())
}

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Paths, D::Error> {
        let mut paths = Paths::default();
        let top = Search {
            paths: &mut paths,
            top: true,
        };
        top.deserialize(from)?;
        Ok(paths)
    }
}

/// Searches a JSON value for paths; returns its text if it is a string.
struct Search<'a> {
    paths: &'a mut Paths,
    /// Whether the value is the whole file.
    top: bool,
}

impl Search<'_> {
    fn inner(&mut self) -> Search<'_> {
        Search {
            paths: self.paths,
            top: false,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Search<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        from: D,
    ) -> std::result::Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Search<'_> {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> std::result::Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(
        mut self,
        mut values: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        while values.next_element_seed(self.inner())?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(
        mut self,
        mut map: A,
    ) -> std::result::Result<Self::Value, A::Error> {
        let (mut kind, mut value, mut base) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            let text = map.next_value_seed(self.inner())?;
            match key.as_str() {
                "type" => kind = text,
                "value" => value = text,
                "base" => base = text,
                "workspace" if self.top => self.paths.workspace = text.map(PathBuf::from),
                _ => {}
            }
        }
        let is_path = matches!(kind.as_deref(), Some("path" | "path.serialized"));
        if let (true, Some(value)) = (is_path, value) {
            let path = PathBuf::from(value);
            if base.as_deref() == Some("workspace") || (base.is_none() && path.is_absolute()) {
                self.paths.found.push(path);
            }
        }
        Ok(None)
    }
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
    fn links_to_partials_of_the_former_workspace_lead_to_the_new_one() {
        let top = tempfile::tempdir().unwrap();
        let links = top.path().join(".experimaestro/partials");
        fs::create_dir_all(&links).unwrap();
        fs::write(
            top.path().join("params.json"),
            r#"{"workspace": "/old/ws"}"#,
        )
        .unwrap();
        for (name, target) in [
            ("ck", "/old/ws/partials/t/ck/1f"),
            ("other", "/elsewhere/partials/t/ck/2f"),
            ("inside", "/old/ws/data/x"),
        ] {
            symlink(target, links.join(name)).unwrap();
        }
        let job = File::open(top.path()).unwrap();
        let (ours, theirs) = (links.join("ck"), links.join("other"));
        let time = |path: &Path| path.symlink_metadata().unwrap().modified().unwrap();
        let before = [time(&ours), time(&links)];
        assert_eq!(rebase_links(&job, &job, Path::new("/new")), Ok(1));
        let target = fs::read_link(&ours).unwrap();
        assert_eq!(target, Path::new("/new/partials/t/ck/1f"));
        assert_eq!([time(&ours), time(&links)], before);
        let others = [theirs, links.join("inside")].map(|link| fs::read_link(link).unwrap());
        assert_eq!(others[0], Path::new("/elsewhere/partials/t/ck/2f"));
        assert_eq!(others[1], Path::new("/old/ws/data/x"));
        let former = Path::new("/old/ws/partials/t/ck/1f");
        assert!(is_same_in_another_workspace(&target, former));
        assert!(!is_same_in_another_workspace(&target, &others[0]));
        assert!(!is_same_in_another_workspace(&others[1], &others[1]));
        assert!(has_links(Path::new(".experimaestro/partials")));
        assert!(!has_links(Path::new(".experimaestro/partials/x")));
        assert!(!has_links(Path::new(".experimaestro")));
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let job = tempfile::tempdir().unwrap();
        fs::write(job.path().join("params.json"), "{\"objects\": [").unwrap();
        let error = named_by(File::open(job.path()).unwrap(), Path::new("/"), job.path());
        assert_eq!(error.unwrap_err().path(), job.path().join("params.json"));
    }
}
