//! Checks whether folders can be attached to a workspace, by the paths of all of them and by what is on disk.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

use super::environment::{self, Environment};
use super::error::SettingsError;
use super::model::{Folder, Mode, Workspace};
use crate::sys::deadline::all_within;

/// How long the disks of all folders together may take to reply. A dead file server never does, and a mount looks twice: in the command, and in
/// the process that serves it.
const DISK_REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// How many folders a workspace may have: a byte numbers them, and its last values are reserved.
pub const FOLDERS_MAX: usize = 250;

/// A problem of one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Index of the folder.
    pub(super) folder: usize,
    /// Whether the workspace cannot be used like this.
    pub(super) fatal: bool,
    pub(super) message: String,
    pub(super) advice: String,
}

/// Checks whether folders can be attached to a workspace, before it is mounted. The folders are those of
/// [`super::Settings::folders_of`] and of the command line. Takes 2 seconds at most, even if a disk does not reply.
///
/// Returns warnings: a folder that is missing or does not reply, has a relative path, is listed twice, or is a `jobs`
/// directory itself.
///
/// # Errors
///
/// [`SettingsError::Folders`]: a folder is the primary, inside it or around it; one directory is two folders of different modes; there
/// is more than one `move` folder.
pub fn validate_folders(
    workspace: &Workspace,
    folders: &[Folder],
) -> Result<Vec<String>, SettingsError> {
    let environment = Environment::of_process();
    let mut warnings = Vec::new();
    for problem in problems(&workspace.path, folders, &environment) {
        let text = format!("{}; {}", problem.message, problem.advice);
        if problem.fatal {
            return Err(SettingsError::Folders(text));
        }
        warnings.push(text);
    }
    Ok(warnings)
}

/// All problems of the folders of a local workspace, folder by folder.
pub(super) fn problems(
    primary: &Path,
    folders: &[Folder],
    environment: &Environment,
) -> Vec<Problem> {
    if folders.is_empty() {
        return Vec::new();
    }
    let looks = look_at_all(primary, folders, environment);
    let Some((primary, looks)) = looks.split_first() else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for (index, (folder, look)) in folders.iter().zip(looks).enumerate() {
        let earlier: Vec<(&Folder, &Look)> = folders.iter().zip(looks).take(index).collect();
        let found = [
            beside_primary(folder, &look.real, &primary.real),
            twin(folder, look, &earlier),
            second_mover(folder, look, &earlier),
            variable(folder),
            relative(folder),
            existence(folder, &look.state),
            too_many(index, folders.len()),
        ];
        out.extend(
            found
                .into_iter()
                .flatten()
                .map(|(fatal, message, advice)| Problem {
                    folder: index,
                    fatal,
                    message,
                    advice: advice.to_owned(),
                }),
        );
    }
    out
}

/// Whether it is fatal, the message, the advice.
type Verdict = Option<(bool, String, &'static str)>;

fn beside_primary(folder: &Folder, real: &Path, primary: &Path) -> Verdict {
    let (shown, workspace) = (folder.path.display(), primary.display());
    if real == primary {
        let message = format!("the folder {shown} is the workspace itself");
        Some((true, message, "remove it, or give it another path"))
    } else if real.starts_with(primary) {
        let message = format!("the folder {shown} is inside the workspace {workspace}");
        Some((true, message, "move it out of the workspace"))
    } else if primary.starts_with(real) {
        let message = format!("the workspace {workspace} is inside the folder {shown}");
        Some((true, message, "give the folder a directory of its own"))
    } else {
        None
    }
}

fn twin(folder: &Folder, look: &Look, earlier: &[(&Folder, &Look)]) -> Verdict {
    let (twin, _) = earlier.iter().find(|(_, other)| other.real == look.real)?;
    let shown = folder.path.display();
    if twin.mode == folder.mode {
        let message = format!("the folder {shown} is listed twice");
        return Some((false, message, "remove one of the two"));
    }
    let message = format!(
        "the folder {shown} is listed as `{}` and as `{}`",
        twin.mode, folder.mode
    );
    Some((true, message, "keep one of the two"))
}

fn second_mover(folder: &Folder, look: &Look, earlier: &[(&Folder, &Look)]) -> Verdict {
    let mut movers = earlier.iter().filter(|(other, _)| other.mode == Mode::Move);
    let (first, place) = movers.next().filter(|_| folder.mode == Mode::Move)?;
    if place.real == look.real {
        return None;
    }
    let (first, shown) = (first.path.display(), folder.path.display());
    let message = format!("there is more than one `move` folder: {first} and {shown}");
    Some((
        true,
        message,
        "a job can move to one place only: make the others `backup` or `use`",
    ))
}

fn too_many(index: usize, count: usize) -> Verdict {
    (index == FOLDERS_MAX).then(|| {
        let message =
            format!("the workspace has {count} folders; at most {FOLDERS_MAX} can be mounted");
        (
            true,
            message,
            "remove the folders that have no jobs of this workspace",
        )
    })
}

/// Whether its path has a variable that is not set: that stays as it is written.
fn has_variable(folder: &Folder) -> bool {
    folder
        .path
        .as_os_str()
        .as_encoded_bytes()
        .windows(2)
        .any(|pair| pair == b"${")
}

fn variable(folder: &Folder) -> Verdict {
    has_variable(folder).then(|| {
        let message = format!(
            "the folder {} has a variable in its path that is not set",
            folder.path.display()
        );
        (
            false,
            message,
            "set it (export …=…) before xpmfs and experimaestro run, or write the value",
        )
    })
}

fn relative(folder: &Folder) -> Verdict {
    if has_variable(folder) {
        return None;
    }
    let message = || {
        format!(
            "the folder {} depends on the current directory",
            folder.path.display()
        )
    };
    folder
        .path
        .is_relative()
        .then(|| (false, message(), "write the path in full, or from `~/`"))
}

fn existence(folder: &Folder, state: &State) -> Verdict {
    let shown = folder.path.display();
    let unmounted = match folder.mode {
        Mode::Use => "check that its disk is mounted, or correct the path",
        Mode::Backup | Mode::Move => "check that its disk is mounted, or create it with mkdir -p",
    };
    let (message, advice) = match state {
        State::Directory => return None,
        // Another warning is about the path.
        State::Missing if folder.path.is_relative() || has_variable(folder) => return None,
        State::Jobs => (
            format!(
                "the folder {shown} has no `jobs` inside: it is used as the jobs directory itself"
            ),
            "write the path of the directory that holds `jobs`",
        ),
        State::NotDirectory => (
            format!("the folder {shown} is not a directory"),
            "give the path of a directory",
        ),
        State::Missing => (format!("the folder {shown} does not exist"), unmounted),
        State::Denied => (
            format!("the folder {shown} may not be read: permission denied"),
            "check its permissions, and those of the directories above; their owners can grant them",
        ),
        State::Failed(reason) => (
            format!("the folder {shown} cannot be read: {reason}"),
            unmounted,
        ),
        State::Silent => (format!("the folder {shown} does not reply"), unmounted),
    };
    Some((false, message, advice))
}

/// What is on disk at the path of a folder.
struct Look {
    /// The path with links followed; as it is written, if that fails.
    real: PathBuf,
    state: State,
}

enum State {
    Directory,
    /// A `jobs` directory itself.
    Jobs,
    NotDirectory,
    Missing,
    /// It may not be listed or entered.
    Denied,
    Failed(String),
    Silent,
}

/// Looks at the primary and at every folder at once: one that hangs delays no other.
fn look_at_all(primary: &Path, folders: &[Folder], environment: &Environment) -> Vec<Look> {
    let primary = Folder::new(Mode::Use, primary);
    let all: Vec<&Folder> = std::iter::once(&primary).chain(folders).collect();
    let question = |folder: &&Folder| {
        let (folder, environment) = ((*folder).clone(), environment.clone());
        move || look(&folder, &environment)
    };
    let answers = all_within(DISK_REPLY_TIMEOUT, all.iter().map(question));
    let looks = all.iter().zip(answers).map(|(folder, answer)| {
        answer.unwrap_or_else(|| Look {
            real: folder.path.clone(),
            state: State::Silent,
        })
    });
    looks.collect()
}

fn look(folder: &Folder, environment: &Environment) -> Look {
    let real =
        environment::resolve(&folder.path, environment).unwrap_or_else(|_| folder.path.clone());
    let path = environment.current_dir().join(&folder.path);
    let state = match std::fs::metadata(&path) {
        Ok(metadata) if !metadata.is_dir() => State::NotDirectory,
        Ok(_) if is_denied(&path) => State::Denied,
        Ok(_) if folder.is_jobs_directory(environment) => State::Jobs,
        Ok(_) => State::Directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => State::Missing,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => State::NotDirectory,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => State::Denied,
        Err(error) => State::Failed(error.to_string()),
    };
    Look { real, state }
}

/// Whether a directory may not be listed, or not be entered.
fn is_denied(path: &Path) -> bool {
    let access = Access::READ_OK | Access::EXEC_OK;
    let allowed = rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS);
    allowed == Err(Errno::ACCESS)
}
