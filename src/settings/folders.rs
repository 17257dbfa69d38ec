//! The folders of a workspace: from the settings, and from the command line.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::environment::{self, Environment};
use super::model::{Folder, Mode, Settings, Workspace};
use super::xpmfs::Tuning;

impl Settings {
    /// All folders of a workspace, in the order in which a job is looked up: first `alt_workspaces` (ids of workspaces, or
    /// paths), as `use` folders, then `folders`. As experimaestro's `Workspace.folders`.
    #[must_use]
    pub fn folders_of(&self, workspace: &Workspace) -> Vec<Folder> {
        self.folders_in(workspace, &Environment::of_process())
    }

    /// [`Settings::folders_of`] in another environment.
    #[must_use]
    pub fn folders_in(&self, workspace: &Workspace, environment: &Environment) -> Vec<Folder> {
        let workspaces = self.workspaces.iter().rev();
        // Of several workspaces with one id, the last is used, as in a Python `dict`.
        folders_of(workspace, environment, |id| {
            workspaces.clone().find(|other| other.id == *id)
        })
    }

    /// The folders of every workspace: see [`Settings::folders_of`].
    #[must_use]
    pub fn all_folders(&self) -> Vec<Vec<Folder>> {
        let environment = Environment::of_process();
        let workspaces = self.workspaces.iter();
        let by_id: HashMap<&str, &Workspace> = workspaces
            .map(|workspace| (workspace.id.as_str(), workspace))
            .collect();
        let workspaces = self.workspaces.iter();
        let folders = workspaces
            .map(|workspace| folders_of(workspace, &environment, |id| by_id.get(id).copied()));
        folders.collect()
    }

    /// xpmfs's keys for a workspace: its own, and for missing ones those of the top of the file.
    #[must_use]
    pub fn tuning_of(&self, workspace: &Workspace) -> Tuning {
        workspace.xpmfs.or(&self.xpmfs)
    }
}

fn folders_of<'s>(
    workspace: &Workspace,
    environment: &Environment,
    by_id: impl Fn(&str) -> Option<&'s Workspace>,
) -> Vec<Folder> {
    let alternatives = workspace.alt_workspaces.iter().map(|reference| {
        let path = match by_id(reference) {
            Some(other) => other.path.clone(),
            None => PathBuf::from(reference),
        };
        let path = environment::expand_user(&path, environment).unwrap_or(path);
        Folder::new(Mode::Use, path)
    });
    alternatives
        .chain(workspace.folders.iter().cloned())
        .collect()
}

impl FromStr for Folder {
    type Err = String;

    /// Reads `MODE:PATH`, as `backup:~/slow`; the path may have more colons.
    fn from_str(text: &str) -> Result<Folder, String> {
        let expected =
            "write MODE:PATH, as in `use:/old/workspace`, `backup:~/slow` or `move:/archive`";
        let (mode, path) = text
            .split_once(':')
            .ok_or_else(|| format!("`{text}` has no mode: {expected}"))?;
        let mode: Mode = mode.parse()?;
        if path.is_empty() {
            return Err(format!("`{text}` has no path: {expected}"));
        }
        let path = environment::expand_user(Path::new(path), &Environment::of_process())
            .map_err(|error| error.to_string())?;
        Ok(Folder::new(mode, path))
    }
}

impl Folder {
    /// The directory of its jobs, `<task_id>/<hash>` below: `jobs` in the folder, or the folder itself if it is a `jobs`
    /// directory. Reads the disk; for a missing folder, it is `jobs` in the folder.
    #[must_use]
    pub fn jobs(&self) -> PathBuf {
        if self.is_jobs_directory(&Environment::of_process()) {
            return self.path.clone();
        }
        self.path.join("jobs")
    }

    /// Whether the path is that of a `jobs` directory, as in experimaestro's documentation, and not of its parent: it ends in
    /// `jobs`, exists, and has no `jobs` inside.
    #[must_use]
    pub fn is_jobs_directory(&self, environment: &Environment) -> bool {
        let path = environment.current_dir().join(&self.path);
        self.path.file_name().is_some_and(|name| name == "jobs")
            && path.is_dir()
            && !path.join("jobs").is_dir()
    }
}
