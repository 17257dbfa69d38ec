//! Finds the jobs that an argument names: by name, or by a path below the workspace, a folder or a mount.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf, absolute};

use anyhow::{Context, anyhow};

use crate::cli::open::Opened;
use crate::daemon::REPLY_TIMEOUT;
use crate::daemon::{inventory, mounts};
use crate::settings::Patterns;
use crate::sys::deadline::within;
use crate::sys::printable::printable;
use crate::view::find::{FindError, Named};
use crate::workspace::jobs::JobId;
use crate::workspace::layout::JOBS;

/// The most candidates that an error lists.
const LISTED_MAX: usize = 20;

/// A text that names several jobs where one is wanted. A line for each candidate.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::cli) struct Ambiguous(String);

/// Finds the jobs that a text names, and whether it names one job by itself, and not a task or a glob.
///
/// # Errors
///
/// It names no job, or is the start of several.
pub(super) fn find(opened: &Opened, text: &OsStr) -> anyhow::Result<(Vec<JobId>, bool)> {
    let name = match is_path(text) {
        true => name_of(opened, Path::new(text))?,
        false => text.to_owned(),
    };
    match opened.view.find_jobs(&name) {
        Ok(Named::Job(job)) => Ok((vec![job], true)),
        Ok(Named::Matching(jobs)) => Ok((jobs, false)),
        Err(FindError::Ambiguous { text, jobs }) => Err(ambiguous(&text, &jobs).into()),
        Err(error) => Err(error.into()),
    }
}

/// Finds the one job that a text names.
///
/// # Errors
///
/// It names no job, or several.
pub(super) fn find_one(opened: &Opened, text: &OsStr) -> anyhow::Result<JobId> {
    let (mut jobs, _) = find(opened, text)?;
    match (jobs.pop(), jobs.is_empty()) {
        (Some(job), true) => Ok(job),
        (last, _) => {
            jobs.extend(last);
            let message = format!("{text:?} names {} jobs: choose one", jobs.len());
            Err(listed(message, &jobs).into())
        }
    }
}

/// Finds the jobs that a text names among some that no location has any more: those of a task, those that a glob matches, or one by the
/// start of its hash.
///
/// # Errors
///
/// It names none of them, or is the start of several.
pub(in crate::cli) fn find_among(
    opened: &Opened,
    text: &OsStr,
    jobs: &BTreeSet<JobId>,
) -> anyhow::Result<Vec<JobId>> {
    let name = match is_path(text) {
        true => name_of(opened, Path::new(text))?,
        false => text.to_owned(),
    };
    let name = name.as_bytes();
    let name = name.strip_prefix(b"jobs/").unwrap_or(name);
    let name = OsStr::from_bytes(name.strip_suffix(b"/").unwrap_or(name));
    if let Some(job) = JobId::parse(name).ok().filter(|job| jobs.contains(job)) {
        return Ok(vec![job]);
    }
    let all = |accepts: &dyn Fn(&JobId) -> bool| -> Vec<JobId> {
        jobs.iter().filter(|job| accepts(job)).cloned().collect()
    };
    let of_task = all(&|job| job.task_id() == name);
    if !of_task.is_empty() {
        return Ok(of_task);
    }
    let bytes = name.as_bytes();
    let slash = bytes.iter().position(|byte| *byte == b'/');
    let (task, hash) = match slash.map(|at| bytes.split_at(at)) {
        Some((task, hash)) => (
            Some(OsStr::from_bytes(task)),
            hash.get(1..).unwrap_or_default(),
        ),
        None => (None, bytes),
    };
    let begins = all(&|job| {
        task.is_none_or(|task| task == job.task_id()) && job.hash().as_bytes().starts_with(hash)
    });
    match begins.as_slice() {
        [] => {}
        [_] => return Ok(begins),
        several => return Err(ambiguous(text, several).into()),
    }
    let written = vec![String::from_utf8_lossy(bytes).into_owned()];
    let glob = Patterns::new(written).map_err(|(_, why)| anyhow!("{text:?}: {why}"))?;
    let matching = all(&|job| {
        let (task, hash) = (
            job.task_id().to_string_lossy(),
            job.hash().to_string_lossy(),
        );
        glob.matches(&task, &hash)
    });
    match matching.is_empty() {
        true => Err(anyhow!(
            "no deleted job {text:?}: `xpmfs trash list` lists the deleted jobs"
        )),
        false => Ok(matching),
    }
}

fn ambiguous(text: &OsStr, jobs: &[JobId]) -> Ambiguous {
    let message = format!(
        "{text:?} is the start of {} jobs: write more of the hash",
        jobs.len()
    );
    listed(message, jobs)
}

/// A message with a line for each candidate.
fn listed(mut message: String, jobs: &[JobId]) -> Ambiguous {
    for job in jobs.iter().take(LISTED_MAX) {
        message.push_str(&format!("\n  {}", printable(&job.to_string())));
    }
    if let Some(more @ 1..) = jobs.len().checked_sub(LISTED_MAX) {
        message.push_str(&format!("\n  and {more} more"));
    }
    Ambiguous(message)
}

/// Whether a text is written as a path: absolute, from `.` or `..` on, or deeper than `jobs/task_id/hash`.
fn is_path(text: &OsStr) -> bool {
    let path = Path::new(text);
    let mut components = path.components();
    match components.next() {
        Some(Component::RootDir | Component::CurDir | Component::ParentDir) => true,
        Some(first) => match components.count() {
            0 | 1 => false,
            2 => first.as_os_str() != JOBS,
            _ => true,
        },
        None => false,
    }
}

/// Returns the `task_id/hash` or `task_id` that a path leads to.
fn name_of(opened: &Opened, path: &Path) -> anyhow::Result<OsString> {
    let path = absolute(path).with_context(|| format!("cannot use {}", path.display()))?;
    let path = normal(&path);
    let view = &opened.view;
    let mut roots = vec![view.primary_path().to_owned()];
    roots.extend(view.folders().iter().map(|it| it.path().to_owned()));
    if let Some(name) = below_any(&path, &roots) {
        return Ok(name);
    }
    // Asks daemons only about a path in one of their mounts.
    for mount in mounts::xpmfs().unwrap_or_default() {
        let Some(name) = below(&path, &mount.mountpoint) else {
            continue;
        };
        let mounted = inventory::ask(mount);
        let id = Some(opened.workspace.id.as_str()).filter(|id| !id.is_empty());
        if mounted.shows(id, &opened.workspace.path) {
            return Ok(name);
        }
    }
    // Symlinks may lead to the same directories. A file system that does not reply must not keep this command waiting.
    let resolved = within(REPLY_TIMEOUT, {
        let path = path.clone();
        move || {
            let roots: Vec<PathBuf> = roots
                .iter()
                .filter_map(|it| it.canonicalize().ok())
                .collect();
            below_any(&path.canonicalize().ok()?, &roots)
        }
    });
    resolved.flatten().ok_or_else(|| {
        anyhow!(
            "{} is not in a job of {}, of its folders or of a mount of it: write .../{JOBS}/task_id/hash",
            path.display(),
            opened.workspace.path.display()
        )
    })
}

fn below_any(path: &Path, roots: &[PathBuf]) -> Option<OsString> {
    roots.iter().find_map(|root| below(path, root))
}

/// Returns the `task_id/hash` or `task_id` of a path below the directory of a workspace, also of one in the job or below
/// `experiments/`, where the runs have symlinks to their jobs.
fn below(path: &Path, root: &Path) -> Option<OsString> {
    let rest = path.strip_prefix(root).ok()?;
    let mut names = rest.components().map(Component::as_os_str);
    names.find(|name| *name == JOBS)?;
    let mut name = names.next()?.to_owned();
    if let Some(hash) = names.next() {
        name.push("/");
        name.push(hash);
    }
    Some(name)
}

/// Removes `.` and `..` from an absolute path.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(normal.pop()),
            _ => normal.push(component),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_differs_from_a_name() {
        for (text, expected) in [
            ("abc", false),
            ("my.task", false),
            ("my.task/abc", false),
            ("jobs/my.task/abc", false),
            ("jobs/my.task/abc/", false),
            ("/ws/jobs/my.task/abc", true),
            ("./abc", true),
            ("..", true),
            ("nlp/jobs/my.task", true),
            ("jobs/my.task/abc/params.json", true),
        ] {
            assert_eq!(is_path(OsStr::new(text)), expected, "{text}");
        }
    }

    #[test]
    fn a_path_in_a_workspace_names_a_job_or_a_task() {
        let below = |path: &str| below(&normal(Path::new(path)), Path::new("/ws"));
        for (path, name) in [
            ("/ws/jobs/t/h", Some("t/h")),
            ("/ws/jobs/t/h/data/x", Some("t/h")),
            ("/ws/jobs/t", Some("t")),
            ("/ws/experiments/e/current/jobs/t/h", Some("t/h")),
            ("/ws/jobs/t/../u/./h", Some("u/h")),
            ("/ws/jobs", None),
            ("/ws/x", None),
            ("/other/jobs/t/h", None),
        ] {
            assert_eq!(below(path).as_deref(), name.map(OsStr::new), "{path}");
        }
    }
}
