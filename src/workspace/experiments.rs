//! Lists the experiments of a workspace, in both layouts, and their runs.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::error::{PartialList, Result, WorkspaceError};
use super::runs::{Layout, Run, RunId};
use super::{layout, read};

/// The symlink in an experiment to its newest run.
pub const CURRENT_RUN: &str = "current";

/// How many symlinks [`Experiment::current`] follows, as the kernel does.
const LINKS_MAX: usize = 40;

/// An experiment of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experiment {
    /// Its id: the name of its directory.
    pub id: OsString,
    /// How it is laid out.
    pub layout: Layout,
    /// Its directory.
    pub path: PathBuf,
}

/// The experiments of the workspace at `root`, sorted by id. An id in both layouts is v2, as in experimaestro
/// (`_get_known_experiment_ids`).
#[must_use]
pub fn list(root: &Path) -> PartialList<Experiment> {
    let mut experiments = PartialList::default();
    collect(&mut experiments, root, Layout::V2);
    collect(&mut experiments, root, Layout::V1);
    // The sort is stable: v2 comes first, and `dedup_by` keeps the first.
    experiments.found.sort_by(|a, b| a.id.cmp(&b.id));
    experiments
        .found
        .dedup_by(|later, first| later.id == first.id);
    experiments
}

fn collect(experiments: &mut PartialList<Experiment>, root: &Path, layout: Layout) {
    let base = root.join(match layout {
        Layout::V2 => layout::EXPERIMENTS,
        Layout::V1 => layout::XP,
    });
    let names = read::names(&base);
    experiments.errors.extend(names.errors);
    for id in names.found {
        let path = base.join(&id);
        match read::is_directory(&path) {
            Ok(true) => experiments.found.push(Experiment { id, layout, path }),
            Ok(false) => {}
            Err(error) => experiments.errors.push(error),
        }
    }
}

/// The experiment `id` of the workspace at `root`; `None` if it does not exist, or the id is not a valid name.
///
/// # Errors
///
/// The directory cannot be read.
pub fn find(root: &Path, id: &OsStr) -> Result<Option<Experiment>> {
    // Only one normal component: `..` and slashes would leave the workspace.
    if Path::new(id).file_name() != Some(id) {
        return Ok(None);
    }
    for (base, layout) in [(layout::EXPERIMENTS, Layout::V2), (layout::XP, Layout::V1)] {
        let path = root.join(base).join(id);
        if read::is_directory(&path)? {
            return Ok(Some(Experiment {
                id: id.to_os_string(),
                layout,
                path,
            }));
        }
    }
    Ok(None)
}

impl Experiment {
    /// Its runs, oldest first. An experiment of the old layout has one run, `v1`.
    #[must_use]
    pub fn runs(&self) -> PartialList<Run> {
        let mut runs = PartialList::default();
        if self.layout == Layout::V1 {
            runs.found.push(Run {
                id: RunId::new("v1"),
                layout: Layout::V1,
                path: self.path.clone(),
            });
            return runs;
        }
        let names = read::names(&self.path);
        runs.errors = names.errors;
        for name in names.found {
            let path = self.path.join(&name);
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            // Not followed: `current`, and other symlinks to runs, are not runs.
            match std::fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() => runs.found.push(Run {
                    id: RunId::new(name),
                    layout: Layout::V2,
                    path,
                }),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => runs.errors.push(WorkspaceError::new("stat", &path, error)),
            }
        }
        runs.found.sort_by(|a, b| a.id.cmp(&b.id));
        runs
    }

    /// The run that the symlink `current` names, even if that run is missing; `None` without the symlink (then experimaestro uses
    /// the newest run).
    ///
    /// # Errors
    ///
    /// The symlink cannot be read, or leads to itself.
    pub fn current(&self) -> Result<Option<RunId>> {
        let mut path = self.path.join(CURRENT_RUN);
        let mut run = None;
        for _ in 0..LINKS_MAX {
            let Some(target) = link_target(&path)? else {
                return Ok(run);
            };
            // An absolute path is not followed: it may lead into a mount that waits for this process.
            let is_absolute = target.is_absolute();
            path = joined(path.parent().unwrap_or(&path), &target);
            run = path.file_name().map(RunId::new);
            if is_absolute {
                return Ok(run);
            }
        }
        let many = io::Error::from(rustix::io::Errno::LOOP);
        Err(WorkspaceError::new("follow", &path, many))
    }
}

/// The target of a symlink; `None` for anything else, and if it is missing.
fn link_target(path: &Path) -> Result<Option<PathBuf>> {
    match std::fs::read_link(path) {
        Ok(target) => Ok(Some(target)),
        // EINVAL: it is not a symlink.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(WorkspaceError::new("read", path, error)),
    }
}

/// A path from a directory, without `.` and `..`.
fn joined(directory: &Path, path: &Path) -> PathBuf {
    let mut joined = directory.to_path_buf();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(joined.pop()),
            other => joined.push(other),
        }
    }
    joined
}

/// The ids of the experiments of the workspace at `root`, of both layouts, sorted.
///
/// The function of this name in experimaestro's `copy_experiment` does not list those of the old layout; its other parts do.
///
/// ```
/// use xpmfs::workspace::experiments::{list_experiments, list_runs, resolve_current_run};
/// use xpmfs::workspace::runs::format_run_id;
/// # use std::os::unix::fs::symlink;
/// # let directory = tempfile::tempdir()?;
/// # let workspace = directory.path();
/// # std::fs::create_dir_all(workspace.join("experiments/tune/20260118_170744"))?;
/// # symlink("20260118_170744", workspace.join("experiments/tune/current"))?;
///
/// assert_eq!(list_experiments(workspace).found, ["tune"]);
/// let runs = list_runs(workspace, "tune".as_ref()).found;
/// assert_eq!(runs.len(), 1);
/// assert_eq!(resolve_current_run(workspace, "tune".as_ref())?.as_ref(), runs.first());
/// assert_eq!(format_run_id("20260118_170744"), "2026-01-18 17:07:44");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn list_experiments(root: &Path) -> PartialList<OsString> {
    let PartialList { found, errors } = list(root);
    PartialList {
        found: found.into_iter().map(|experiment| experiment.id).collect(),
        errors,
    }
}

/// The runs of an experiment of the workspace at `root`, sorted by their names; none if there is no such experiment. An experiment of
/// the old layout has one, `v1`.
#[must_use]
pub fn list_runs(root: &Path, experiment: &OsStr) -> PartialList<RunId> {
    let runs = match find(root, experiment) {
        Ok(Some(experiment)) => experiment.runs(),
        Ok(None) => PartialList::default(),
        Err(error) => PartialList {
            found: Vec::new(),
            errors: vec![error],
        },
    };
    let ids = runs.found.into_iter().map(|run| run.id);
    let mut found: Vec<RunId> = ids.filter(|id| id.as_os_str() != CURRENT_RUN).collect();
    found.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    PartialList {
        found,
        errors: runs.errors,
    }
}

/// The run that the symlink `current` of an experiment names; `None` without the symlink, or without the experiment.
///
/// # Errors
///
/// As [`Experiment::current`].
pub fn resolve_current_run(root: &Path, experiment: &OsStr) -> Result<Option<RunId>> {
    match find(root, experiment)? {
        Some(experiment) => experiment.current(),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    fn workspace() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in [
            "experiments/b/20260101_000000.10",
            "experiments/b/20260101_000000.2",
            "experiments/b/20260101_000000",
            "experiments/b/20251231_235959",
            "experiments/b/.hidden",
            "experiments/both",
            "xp/both/jobs",
            "xp/a/jobs",
        ] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        fs::write(dir.path().join("experiments/a-file"), "").unwrap();
        fs::write(dir.path().join("experiments/b/lock"), "").unwrap();
        symlink(
            "20260101_000000.10",
            dir.path().join("experiments/b/current"),
        )
        .unwrap();
        dir
    }

    #[test]
    fn experiments_of_both_layouts_are_listed_once() {
        let dir = workspace();
        let experiments = list(dir.path());
        assert!(experiments.errors.is_empty());
        let seen: Vec<_> = experiments
            .found
            .iter()
            .map(|e| (e.id.to_str().unwrap(), e.layout))
            .collect();
        assert_eq!(
            seen,
            [("a", Layout::V1), ("b", Layout::V2), ("both", Layout::V2)]
        );
    }

    #[test]
    fn runs_come_oldest_first_by_time_and_then_by_number() {
        let dir = workspace();
        let experiment = find(dir.path(), OsStr::new("b")).unwrap().unwrap();
        let runs = experiment.runs();
        let seen: Vec<_> = runs.found.iter().map(|run| run.id.to_string()).collect();
        assert_eq!(
            seen,
            [
                "20251231_235959",
                "20260101_000000",
                "20260101_000000.2",
                "20260101_000000.10"
            ]
        );
        assert_eq!(
            experiment.current().unwrap(),
            Some(RunId::new("20260101_000000.10"))
        );
        assert_eq!(
            find(dir.path(), OsStr::new("both"))
                .unwrap()
                .unwrap()
                .current()
                .unwrap(),
            None
        );
    }

    #[test]
    fn an_id_cannot_leave_the_workspace() {
        let dir = workspace();
        for id in ["..", ".", "", "b/..", "../experiments/b", "/", "b/"] {
            assert_eq!(find(dir.path(), OsStr::new(id)).unwrap(), None, "{id:?}");
        }
    }

    #[test]
    fn an_entry_that_cannot_be_read_hides_no_other() {
        let dir = workspace();
        symlink("loop", dir.path().join("experiments/loop")).unwrap();
        symlink("/nowhere", dir.path().join("experiments/dangling")).unwrap();
        let odd = OsStr::from_bytes(b"\xff");
        fs::create_dir(dir.path().join("xp").join(odd)).unwrap();
        let experiments = list(dir.path());
        assert_eq!(experiments.found.len(), 4);
        assert!(
            experiments
                .found
                .iter()
                .any(|experiment| experiment.id == odd)
        );
        assert_eq!(experiments.errors.len(), 1);
        assert_eq!(
            experiments.errors[0].path(),
            dir.path().join("experiments/loop")
        );
    }

    #[test]
    fn a_file_where_a_directory_should_be_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("experiments"), "").unwrap();
        let experiments = list(dir.path());
        assert_eq!(experiments.errors[0].path(), dir.path().join("experiments"));
        assert!(list(&dir.path().join("none")).errors.is_empty());
    }
}
