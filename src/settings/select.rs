//! Which workspace a command is about.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::error::{Error, nearest};
use super::model::{Settings, Workspace};
use super::path;
use super::trigger::Trigger;

/// What the command line says about the workspace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// `--workspace`: an id.
    pub workspace: Option<String>,
    /// `--workdir`: a directory, alone or in place of the workspace's own.
    pub workdir: Option<PathBuf>,
    /// `--experiment`: an id that triggers are matched against.
    pub experiment: Option<String>,
}

impl Settings {
    /// Chooses a workspace as experimaestro's `find_workspace` does: by id (remote ones too), with its path
    /// replaced by `workdir` if that is given; else by `workdir`; else the first local workspace with a trigger
    /// that matches the experiment; else the first local workspace.
    ///
    /// Two things are more than there. A `workdir` that is the path of a local workspace of the settings is that
    /// workspace, with its folders; experimaestro takes it without any settings. And a `workdir` that replaces a
    /// local workspace's path is made absolute, as every other one.
    ///
    /// An empty string is as nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Selection`] if no workspace has that id, or there is none to choose; [`Error::Path`] if the
    /// directory's path cannot be resolved.
    pub fn select(&self, selection: &Selection) -> Result<Workspace, Error> {
        self.select_in(selection, &Environment::of_process())
    }

    /// [`Settings::select`] in an environment of choice.
    ///
    /// # Errors
    ///
    /// As [`Settings::select`].
    pub fn select_in(
        &self,
        selection: &Selection,
        environment: &Environment,
    ) -> Result<Workspace, Error> {
        let workdir = selection
            .workdir
            .as_deref()
            .filter(|path| !path.as_os_str().is_empty());
        if let Some(id) = given(&selection.workspace) {
            let mut workspace = self.by_id(id)?.clone();
            if let Some(workdir) = workdir {
                workspace.path = if workspace.is_remote() {
                    path::normal(workdir)
                } else {
                    resolved(workdir, environment)?
                };
            }
            return Ok(workspace);
        }
        if let Some(workdir) = workdir {
            let path = resolved(workdir, environment)?;
            let known = self.local().find(|workspace| workspace.path == path);
            return Ok(known.cloned().unwrap_or_else(|| Workspace {
                raw_path: path::normal(workdir).to_string_lossy().into_owned(),
                ..Workspace::bare(path)
            }));
        }
        let triggered =
            given(&selection.experiment).and_then(|experiment| self.triggered_by(experiment));
        triggered
            .or_else(|| self.local().next())
            .cloned()
            .ok_or_else(|| self.nothing_to_choose())
    }

    /// The workspaces on this machine.
    fn local(&self) -> impl Iterator<Item = &Workspace> {
        self.workspaces
            .iter()
            .filter(|workspace| !workspace.is_remote())
    }

    /// The first local workspace with a trigger that matches.
    fn triggered_by(&self, experiment: &str) -> Option<&Workspace> {
        self.local().find(|workspace| {
            workspace
                .triggers
                .iter()
                .any(|text| Trigger::new(text).matches(experiment))
        })
    }

    /// The first workspace with an id.
    fn by_id(&self, id: &str) -> Result<&Workspace, Error> {
        let found = self.workspaces.iter().find(|workspace| workspace.id == id);
        found.ok_or_else(|| {
            let file = self.file.display();
            let ids: Vec<&str> = self
                .workspaces
                .iter()
                .map(|workspace| workspace.id.as_str())
                .collect();
            Error::Selection(match nearest(id, ids.iter().copied()) {
                _ if ids.is_empty() => {
                    format!("there is no workspace `{id}`: {}", self.no_workspaces())
                }
                Some(near) => {
                    format!("there is no workspace `{id}` in {file}; did you mean `{near}`?")
                }
                None => format!(
                    "there is no workspace `{id}` in {file}; it has {}",
                    ids.join(", ")
                ),
            })
        })
    }

    fn nothing_to_choose(&self) -> Error {
        let why = if self.workspaces.is_empty() {
            self.no_workspaces()
        } else {
            format!("all workspaces of {} are remote", self.file.display())
        };
        Error::Selection(format!(
            "no workspace to choose: {why}; give --workdir PATH, or add one to the settings (`id`, `path`)"
        ))
    }

    fn no_workspaces(&self) -> String {
        let file = self.file.display();
        if self.file.is_file() {
            format!("{file} has no workspaces")
        } else {
            format!("{file} does not exist")
        }
    }
}

/// What is given and not empty.
fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

fn resolved(path: &Path, environment: &Environment) -> Result<PathBuf, Error> {
    path::expand_and_resolve(path, environment).map_err(|error| Error::Path {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })
}
