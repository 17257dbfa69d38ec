//! Which jobs the runs of a workspace refer to.
//!
//! As experimaestro 2.7.0 (`_collect_referenced_job_paths` in its `scheduler/workspace_state_provider.py`): in the present layout the lines of
//! `jobs.jsonl` of every run, in the old one the symlinks in `jobs/` and `jobs.bak/`. It differs where experimaestro would take a job that
//! is needed for one that is not:
//!
//! 1. A `status.json` that cannot be read, without which experimaestro ignores the run, does not matter here.
//! 2. If a `jobs.jsonl` is missing or has lines that cannot be read, the symlinks in the run's `jobs/` count, too. If there are fewer of them
//!    than such lines, or a purge has taken them as well, the run may need jobs that nothing names any more: that is an error.
//! 3. A symlink that leads nowhere refers to the job of its own name: the workspace may have moved.
//! 4. The same hash may be that of jobs of two tasks: experimaestro keeps one of them.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::{Cause, WorkspaceError};
use super::jobs::{self, JobId};
use super::jobs_jsonl::JobsJsonl;
use super::{layout, read};

/// The jobs that runs refer to.
#[derive(Debug, Default)]
pub struct References {
    /// By their names.
    pub jobs: HashSet<JobId>,
    /// By symlinks.
    pub links: Vec<JobLink>,
    /// What could not be read: there may be more references.
    pub errors: Vec<WorkspaceError>,
    /// Whether the workspace has experiments.
    pub has_experiments: bool,
}

/// A symlink to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobLink {
    /// The job of its name.
    pub name: JobId,
    /// The directory that has it.
    pub directory: PathBuf,
    /// What it contains.
    pub target: PathBuf,
}

impl References {
    /// Collects the references of all runs of the workspace at `root`.
    #[must_use]
    pub fn collect(root: &Path) -> References {
        let mut references = References::default();
        let mut seen = HashSet::new();
        for experiment in references.directories(&root.join(layout::EXPERIMENTS)) {
            references.has_experiments = true;
            for run in references.directories(&experiment) {
                let is_hidden = run
                    .file_name()
                    .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
                // `current` leads to a run that is listed, too.
                if !is_hidden && is_new(&run, &mut seen) {
                    references.add_run(&run);
                }
            }
        }
        for experiment in references.directories(&root.join(layout::XP)) {
            references.has_experiments = true;
            for name in [layout::JOBS, layout::JOBS_BAK] {
                references.add_links(&experiment.join(name));
            }
        }
        references
    }

    /// The directories in a directory, and the symlinks to directories.
    fn directories(&mut self, path: &Path) -> Vec<PathBuf> {
        let names = read::names(path);
        self.errors.extend(names.errors);
        let paths = names.found.into_iter().map(|name| path.join(name));
        let directories = paths.filter(|path| match read::is_directory(path) {
            Ok(is_directory) => is_directory,
            Err(error) => {
                self.errors.push(error);
                false
            }
        });
        directories.collect()
    }

    fn add_run(&mut self, run: &Path) {
        let file = run.join("jobs.jsonl");
        let (mut named, mut broken) = (HashSet::new(), 0);
        let (mut is_missing, mut is_unreadable) = (false, false);
        match JobsJsonl::open(&file) {
            Ok(Some(lines)) => {
                for line in lines {
                    match line {
                        Ok(job) => drop(named.insert(job.id)),
                        // An unfinished line of a run in progress, or what another version writes: the symlinks name the job.
                        Err(_) => broken += 1,
                    }
                }
            }
            Ok(None) => is_missing = true,
            Err(error) => {
                self.errors.push(error);
                is_unreadable = true;
            }
        }
        // Without a status, experimaestro recovers the run from its symlinks.
        if broken > 0 || is_missing || is_unreadable || !run.join("status.json").exists() {
            let before = self.links.len();
            let jobs = run.join(layout::JOBS);
            self.add_links(&jobs);
            let links = self.links.iter().skip(before);
            let others = links.filter(|link| !named.contains(&link.name)).count();
            // A purge removes files and symlinks, and leaves the directories of tasks.
            let is_purged = is_missing && others == 0 && !read::names(&jobs).found.is_empty();
            if others < broken || is_purged {
                let why = "jobs that it named are unknown, since neither a line that can be read nor a symlink in the run's `jobs` names them";
                let error = WorkspaceError::new("read", &file, Cause::Content(why.to_owned()));
                self.errors.push(error);
            }
        }
        self.jobs.extend(named);
    }

    /// Adds the symlinks in a directory of the form `<task_id>/<hash>`.
    fn add_links(&mut self, path: &Path) {
        let listed = jobs::list(path);
        self.errors.extend(listed.errors);
        for name in listed.found {
            let link = path.join(name.path());
            let directory = link.parent().unwrap_or(path).to_path_buf();
            match fs::read_link(&link) {
                Ok(target) => self.links.push(JobLink {
                    name,
                    directory,
                    target,
                }),
                // A directory in the place of a symlink is a job by itself, and no reference.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.errors.push(WorkspaceError::new("read", &link, error)),
            }
        }
    }
}

/// Whether a directory was not seen before, by another name.
fn is_new(path: &Path, seen: &mut HashSet<(u64, u64)>) -> bool {
    match fs::metadata(path) {
        Ok(metadata) => seen.insert((metadata.dev(), metadata.ino())),
        Err(_) => true,
    }
}

impl JobLink {
    /// Where it leads, without `.` and `..`, by its text alone.
    #[must_use]
    pub fn absolute(&self) -> PathBuf {
        let mut absolute = match self.target.is_absolute() {
            true => PathBuf::new(),
            false => self.directory.clone(),
        };
        for component in self.target.components() {
            match component.as_os_str() {
                name if name == OsStr::new("..") => drop(absolute.pop()),
                name if name == OsStr::new(".") => {}
                name => absolute.push(name),
            }
        }
        absolute
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(references: &References) -> Vec<String> {
        let mut names: Vec<String> = references.jobs.iter().map(JobId::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn jobs_that_nothing_names_any_more_are_an_error() {
        let line = |hash: &str| format!("{{\"task_id\":\"t\",\"job_id\":\"{hash}\"}}\n");
        // The text, the symlinks, and whether jobs may be missing.
        let text = |broken: &str| Some(line("a") + broken);
        for (case, (text, links, is_error)) in [
            (text("{\"task_id\":"), &["a", "b"][..], false),
            (text("{\"task_id\":"), &["a"][..], true),
            (text("{\"task_id\":\n[]\n"), &["b"][..], true),
            (text(""), &[][..], false),
            (None, &["a"][..], false),
            (None, &[][..], true),
        ]
        .into_iter()
        .enumerate()
        {
            let top = tempfile::tempdir().unwrap();
            let run = top.path().join("experiments/e/1");
            fs::create_dir_all(run.join("jobs/t")).unwrap();
            if let Some(text) = text {
                fs::write(run.join("jobs.jsonl"), text).unwrap();
            }
            for link in links {
                symlink("/ws/jobs/t/x", run.join("jobs/t").join(link)).unwrap();
            }
            let errors = References::collect(top.path()).errors;
            assert_eq!(errors.len(), usize::from(is_error), "{case}: {errors:?}");
        }
        // A run that has begun.
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("experiments/e/1/jobs")).unwrap();
        assert!(References::collect(top.path()).errors.is_empty());
    }

    #[test]
    fn every_run_of_both_layouts_refers_to_its_jobs() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path();
        let line = |hash: &str| format!("{{\"task_id\":\"t\",\"job_id\":\"{hash}\"}}\n");
        for (run, text) in [
            ("e/1", line("a") + &line("b")),
            ("e/2", line("c")),
            ("f/1", line("d") + "{\"task_id\":"),
            ("f/.tmp.2", line("hidden")),
        ] {
            let run = root.join("experiments").join(run);
            fs::create_dir_all(run.join("jobs/t")).unwrap();
            fs::write(run.join("jobs.jsonl"), text).unwrap();
            fs::write(run.join("status.json"), "not JSON").unwrap();
            symlink("/ws/jobs/t/linked", run.join("jobs/t/linked")).unwrap();
        }
        symlink("2", root.join("experiments/e/current")).unwrap();
        for link in ["xp/o/jobs/t/e", "xp/o/jobs.bak/t/f"] {
            let link = root.join(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink("../../../../jobs/./t/x", &link).unwrap();
        }
        let references = References::collect(root);
        assert!(references.errors.is_empty(), "{:?}", references.errors);
        assert!(references.has_experiments);
        assert_eq!(names(&references), ["t/a", "t/b", "t/c", "t/d"]);
        let mut links: Vec<_> = references
            .links
            .iter()
            .map(|link| (link.name.to_string(), link.absolute()))
            .collect();
        links.sort();
        let inside = root.join("jobs/t/x");
        assert_eq!(
            links,
            [
                ("t/e".to_owned(), inside.clone()),
                ("t/f".to_owned(), inside),
                ("t/linked".to_owned(), PathBuf::from("/ws/jobs/t/linked")),
            ]
        );
    }
}
