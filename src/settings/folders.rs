//! The folders of a workspace: which they are, and whether they can be.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::environment::Environment;
use super::error::Error;
use super::model::{Folder, Mode, Settings, Workspace};
use super::path;
use super::xpmfs::Tuning;

impl Settings {
    /// All folders of a workspace, in the order in which they are asked for a job: first `alt_workspaces` (ids of
    /// workspaces, or paths), as `use` folders, then `folders`. As experimaestro's `Workspace.folders`.
    #[must_use]
    pub fn folders_of(&self, workspace: &Workspace) -> Vec<Folder> {
        self.folders_in(workspace, &Environment::of_process())
    }

    /// [`Settings::folders_of`] in an environment of choice.
    #[must_use]
    pub fn folders_in(&self, workspace: &Workspace, environment: &Environment) -> Vec<Folder> {
        let alternatives = workspace.alt_workspaces.iter().map(|reference| {
            // Of several workspaces with one id the last is meant, as in a Python `dict`.
            let path = match self
                .workspaces
                .iter()
                .rev()
                .find(|other| other.id == *reference)
            {
                Some(other) => other.path.clone(),
                None => PathBuf::from(reference),
            };
            let path = path::expand_user(&path, environment).unwrap_or(path);
            Folder::new(Mode::Use, path)
        });
        alternatives
            .chain(workspace.folders.iter().cloned())
            .collect()
    }

    /// Our own keys for a workspace: its own, and the top's where it says nothing.
    #[must_use]
    pub fn tuning_of(&self, workspace: &Workspace) -> Tuning {
        workspace.xpmfs.or(&self.xpmfs)
    }
}

impl FromStr for Folder {
    type Err = String;

    /// Reads `MODE:PATH`, as `backup:~/slow`; the path may hold more colons.
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
        let path = path::expand_user(Path::new(path), &Environment::of_process())
            .map_err(|error| error.to_string())?;
        Ok(Folder::new(mode, path))
    }
}

/// What is wrong with one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Index of the folder.
    pub(super) folder: usize,
    /// Whether the workspace cannot be used like this.
    pub(super) fatal: bool,
    pub(super) message: String,
    pub(super) advice: String,
}

/// Sees whether folders can be attached to a workspace, before it is mounted. To be called with
/// [`Settings::folders_of`] and what the command line adds.
///
/// Gives warnings: a folder that is not there, that has a relative path, that stands twice.
///
/// # Errors
///
/// [`Error::Folders`]: a folder is the primary, lies inside it or around it; one directory is two folders of
/// different modes; there is more than one `move` folder.
pub fn validate_folders(workspace: &Workspace, folders: &[Folder]) -> Result<Vec<String>, Error> {
    let environment = Environment::of_process();
    let mut warnings = Vec::new();
    for problem in problems(&workspace.path, folders, &environment) {
        let text = format!("{}; {}", problem.message, problem.advice);
        if problem.fatal {
            return Err(Error::Folders(text));
        }
        warnings.push(text);
    }
    Ok(warnings)
}

/// Everything that is wrong with the folders of a local workspace, folder by folder.
pub(super) fn problems(
    primary: &Path,
    folders: &[Folder],
    environment: &Environment,
) -> Vec<Problem> {
    let mut out = Vec::new();
    let real: Vec<PathBuf> = folders
        .iter()
        .map(|folder| real(&folder.path, environment))
        .collect();
    let primary = self::real(primary, environment);
    let mut mover: Option<&Folder> = None;
    for (index, (folder, place)) in folders.iter().zip(&real).enumerate() {
        let mut add = |fatal, message: String, advice: &str| {
            out.push(Problem {
                folder: index,
                fatal,
                message,
                advice: advice.to_owned(),
            });
        };
        let (shown, mode) = (folder.path.display(), folder.mode);
        if *place == primary {
            add(
                true,
                format!("the folder {shown} is the workspace itself"),
                "remove it, or give it another path",
            );
        } else if place.starts_with(&primary) {
            let message = format!(
                "the folder {shown} is inside the workspace {}",
                primary.display()
            );
            add(true, message, "move it out of the workspace");
        } else if primary.starts_with(place) {
            let message = format!(
                "the workspace {} is inside the folder {shown}",
                primary.display()
            );
            add(true, message, "give the folder a directory of its own");
        }
        let twin = folders
            .iter()
            .zip(&real)
            .take(index)
            .find(|(_, other)| *other == place);
        match twin {
            Some((twin, _)) if twin.mode == mode => {
                add(
                    false,
                    format!("the folder {shown} is there twice"),
                    "remove one of the two",
                );
            }
            Some((twin, _)) => {
                let message = format!(
                    "the folder {shown} is there as `{}` and as `{mode}`",
                    twin.mode
                );
                add(true, message, "keep one of the two");
            }
            None => {}
        }
        match mover {
            Some(first) if mode == Mode::Move && twin.is_none_or(|(twin, _)| twin.mode != mode) => {
                let message = format!(
                    "there is more than one `move` folder: {} and {shown}",
                    first.path.display()
                );
                add(
                    true,
                    message,
                    "a job can move to one place only: make the others `backup` or `use`",
                );
            }
            None if mode == Mode::Move => mover = Some(folder),
            _ => {}
        }
        if folder.path.is_relative() {
            let message = format!("the folder {shown} depends on the current directory");
            add(false, message, "write the path in full, or from `~/`");
        }
        existence(folder, environment, &mut add);
    }
    out
}

/// Whether a folder is there, and is laid out as a workspace.
fn existence(folder: &Folder, environment: &Environment, add: &mut impl FnMut(bool, String, &str)) {
    let path = environment.current_dir().join(&folder.path);
    let shown = folder.path.display();
    match std::fs::metadata(&path) {
        Ok(metadata) if !metadata.is_dir() => {
            add(
                false,
                format!("the folder {shown} is not a directory"),
                "give the path of a directory",
            );
        }
        Ok(_) if folder.is_jobs_directory(environment) => {
            let message = format!(
                "the folder {shown} has no `jobs` inside: it is taken as the jobs directory itself"
            );
            add(
                false,
                message,
                "write the path of the directory that holds `jobs`",
            );
        }
        Ok(_) => {}
        Err(error) => {
            let advice = match folder.mode {
                Mode::Use => "see whether its disk is mounted, or correct the path",
                Mode::Backup | Mode::Move => {
                    "see whether its disk is mounted, or create it with mkdir -p"
                }
            };
            let reason = match error.kind() {
                std::io::ErrorKind::NotFound => "does not exist".to_owned(),
                _ => format!("cannot be looked at ({error})"),
            };
            add(false, format!("the folder {shown} {reason}"), advice);
        }
    }
}

impl Folder {
    /// Where its jobs are, `<task_id>/<hash>` below: `jobs` in the folder, or the folder itself if it is a `jobs`
    /// directory. Looks at the disk; a folder that is not there is taken to hold `jobs`.
    #[must_use]
    pub fn jobs(&self) -> PathBuf {
        if self.is_jobs_directory(&Environment::of_process()) {
            return self.path.clone();
        }
        self.path.join("jobs")
    }

    /// Whether the path is that of a `jobs` directory, as in experimaestro's documentation, and not of the directory
    /// around it: it ends in `jobs`, is there, and has no `jobs` inside.
    #[must_use]
    pub fn is_jobs_directory(&self, environment: &Environment) -> bool {
        let path = environment.current_dir().join(&self.path);
        self.path.file_name().is_some_and(|name| name == "jobs")
            && path.is_dir()
            && !path.join("jobs").is_dir()
    }
}

/// Where a path leads; as it is written, if that cannot be told.
fn real(path: &Path, environment: &Environment) -> PathBuf {
    path::resolve(path, environment).unwrap_or_else(|_| path.to_path_buf())
}
