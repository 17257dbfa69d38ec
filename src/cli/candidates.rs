//! Lists candidates for completion from the disk: workspaces, experiments, jobs, locations and mount points.
//!
//! A person waits for them at the prompt, so they are bounded in time and in number: a folder that does not reply yields none.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter};

use crate::daemon::mounts;
use crate::settings::{Selection, Settings};
use crate::sys::deadline::within;
use crate::workspace::experiments::{CURRENT_RUN, list_experiments, list_runs};
use crate::workspace::jobs::is_job_entry;
use crate::workspace::layout::{JOBS, TRASH, XPMFS};

/// How long one list of candidates may take.
const LIST_TIMEOUT: Duration = Duration::from_millis(1200);

/// The most jobs that are candidates.
const CANDIDATES_MAX: usize = 500;

/// The most names of a directory that are read for candidates.
const NAMES_MAX: usize = 100_000;

/// The fewest characters of a hash for which jobs are searched.
const HASH_MIN: usize = 2;

/// The words of the command line that is completed.
pub(super) fn words() -> Vec<OsString> {
    let words = env::args_os().skip_while(|word| word != "--");
    words.skip(1).collect()
}

/// Completes the id of a workspace.
pub(super) fn workspaces(current: &OsStr) -> Vec<CompletionCandidate> {
    let settings = within(LIST_TIMEOUT, || {
        Settings::load(options().settings.as_deref())
    });
    let Some(Ok(settings)) = settings else {
        return Vec::new();
    };
    let workspaces = settings.workspaces.into_iter();
    workspaces
        .filter(|workspace| starts(OsStr::new(&workspace.id), current))
        .map(|workspace| {
            let path = workspace.path.display().to_string();
            CompletionCandidate::new(workspace.id).help(Some(path.into()))
        })
        .collect()
}

/// Completes a location of the workspace: `primary`, a mode, or the path of a folder.
pub(super) fn locations(current: &OsStr) -> Vec<CompletionCandidate> {
    let settings = within(LIST_TIMEOUT, || {
        let options = options();
        let settings = Settings::load(options.settings.as_deref()).ok()?;
        let workspace = settings.select(&options.selection).ok()?;
        Some(settings.folders_of(&workspace))
    });
    let mut found = vec![OsString::from("primary")];
    for folder in settings.flatten().into_iter().flatten() {
        found.extend([folder.mode.to_string().into(), folder.path.into_os_string()]);
    }
    found.sort_unstable();
    found.dedup();
    let found = found.into_iter().filter(|name| starts(name, current));
    found.map(CompletionCandidate::new).collect()
}

/// Completes the id of an experiment of the selected workspace, or of the one to copy from.
pub(super) fn experiments(current: &OsStr) -> Vec<CompletionCandidate> {
    let options = options();
    let found = within(LIST_TIMEOUT, move || {
        let settings = Settings::load(options.settings.as_deref()).ok()?;
        // The word that is being completed does not choose a workspace yet.
        let selection = Selection {
            experiment: None,
            ..options.selection
        };
        let roots = roots(&settings, &selection)?;
        let listed = roots.flat_map(|root| list_experiments(&root).found);
        Some(listed.collect::<Vec<OsString>>())
    });
    sorted(found.flatten().unwrap_or_default(), current)
}

/// Completes a run of the experiment that is named before it, to copy it.
pub(super) fn runs(current: &OsStr) -> Vec<CompletionCandidate> {
    let options = options();
    let found = within(LIST_TIMEOUT, move || {
        let settings = Settings::load(options.settings.as_deref()).ok()?;
        let experiment = options.copied?;
        let roots = roots(&settings, &options.selection)?;
        let listed = roots.flat_map(|root| list_runs(&root, &experiment).found);
        let mut found: Vec<OsString> = listed.map(|run| run.as_os_str().to_owned()).collect();
        if !found.is_empty() {
            found.push(CURRENT_RUN.into());
        }
        Some(found)
    });
    sorted(found.flatten().unwrap_or_default(), current)
}

/// The directories of the selected workspace.
fn roots(settings: &Settings, selection: &Selection) -> Option<impl Iterator<Item = PathBuf>> {
    let workspace = settings.select(selection).ok()?;
    // The directories of one on another machine are not here.
    let is_here = !workspace.is_remote();
    let folders = settings.folders_of(&workspace).into_iter();
    let roots = std::iter::once(workspace.path).chain(folders.map(|it| it.path));
    Some(roots.filter(move |_| is_here))
}

/// Candidates of these names that start with a text.
fn sorted(mut found: Vec<OsString>, current: &OsStr) -> Vec<CompletionCandidate> {
    found.retain(|id| starts(id, current));
    found.sort_unstable();
    found.dedup();
    found.truncate(CANDIDATES_MAX);
    found.into_iter().map(CompletionCandidate::new).collect()
}

/// Completes a mount point of ours, or a directory on the way to one.
pub(super) fn mountpoints(current: &OsStr) -> Vec<CompletionCandidate> {
    let mounts = mounts::xpmfs().unwrap_or_default();
    let found: Vec<CompletionCandidate> = mounts
        .into_iter()
        .filter(|mount| starts(mount.mountpoint.as_os_str(), current))
        .map(|mount| {
            let source = mount.source.to_string_lossy().into_owned();
            CompletionCandidate::new(mount.mountpoint).help(Some(source.into()))
        })
        .collect();
    match found.is_empty() {
        true => PathCompleter::dir().complete(current),
        false => found,
    }
}

/// Completes a job: a path, a task, `task_id/hash`, or a hash of which some characters are given. For commands on deleted jobs, one in the
/// trash.
pub(super) fn jobs(current: &OsStr) -> Vec<CompletionCandidate> {
    let text = current.as_bytes();
    if text.starts_with(b"/") || text.starts_with(b".") || text.starts_with(b"~") {
        return PathCompleter::dir().complete(current);
    }
    let current = current.to_owned();
    let names = within(LIST_TIMEOUT, move || names(&current)).unwrap_or_default();
    names.into_iter().map(CompletionCandidate::new).collect()
}

/// The names of jobs and tasks that start with a text.
fn names(current: &OsStr) -> Vec<OsString> {
    let end = Instant::now() + LIST_TIMEOUT / 2;
    let options = options();
    let Ok(settings) = Settings::load(options.settings.as_deref()) else {
        return Vec::new();
    };
    let Ok(workspace) = settings.select(&options.selection) else {
        return Vec::new();
    };
    let folders = settings.folders_of(&workspace);
    let roots = std::iter::once(workspace.path).chain(folders.into_iter().map(|it| it.path));
    let is_deleted = words()
        .iter()
        .any(|word| word == "undelete" || word == TRASH);
    // Each location in a thread of its own: one that does not reply must not hide the others.
    let (send, receive) = std::sync::mpsc::channel();
    let mut left: usize = 0;
    let mut found = Vec::new();
    for root in roots {
        let (send, current) = (send.clone(), current.to_owned());
        let list = move || {
            let found = Vec::new();
            let mut search = Search { end, found };
            match is_deleted {
                true => search.list_trash(&root, &current),
                false => search.list(&root.join(JOBS), &current),
            }
            // The receiver is gone if this took too long.
            let _ = send.send(search.found);
        };
        left += usize::from(std::thread::Builder::new().spawn(list).is_ok());
    }
    while left > 0 {
        let rest = end.saturating_duration_since(Instant::now());
        let Ok(part) = receive.recv_timeout(rest) else {
            break;
        };
        found.extend(part);
        left -= 1;
    }
    found.sort_unstable();
    found.dedup();
    found.truncate(CANDIDATES_MAX);
    found
}

/// A search for names, which ends in time.
struct Search {
    end: Instant,
    found: Vec<OsString>,
}

impl Search {
    /// Lists the deleted jobs of a location. A mount in place hides the primary's.
    fn list_trash(&mut self, root: &Path, current: &OsStr) {
        let trash = root.join(XPMFS).join(TRASH);
        for date in self.read(&trash) {
            self.list(&trash.join(date).join(JOBS), current);
        }
    }

    fn list(&mut self, jobs: &Path, current: &OsStr) {
        let text = current.as_bytes();
        if let Some(at) = text.iter().position(|byte| *byte == b'/') {
            let (task, hash) = text.split_at(at);
            let (task, hash) = (OsStr::from_bytes(task), hash.get(1..).unwrap_or_default());
            self.hashes(jobs, task, OsStr::from_bytes(hash), true);
            return;
        }
        let tasks = self.read(jobs);
        for task in tasks.iter().filter(|task| starts(task, current)) {
            let mut candidate = task.clone();
            candidate.push("/");
            self.found.push(candidate);
        }
        let is_hash = text.len() >= HASH_MIN && text.iter().all(u8::is_ascii_hexdigit);
        for task in tasks.iter().filter(|_| is_hash) {
            self.hashes(jobs, task, current, false);
        }
    }

    /// Adds the hashes of a task's jobs that start with a text.
    fn hashes(&mut self, jobs: &Path, task: &OsStr, start: &OsStr, with_task: bool) {
        if !is_job_entry(task) {
            return;
        }
        for hash in self.read(&jobs.join(task)) {
            if !starts(&hash, start) {
                continue;
            }
            let mut candidate = OsString::new();
            if with_task {
                candidate.push(task);
                candidate.push("/");
            }
            candidate.push(hash);
            self.found.push(candidate);
        }
    }

    /// The names in a directory that may be a task's or a job's, as far as they can be read in time.
    fn read(&self, directory: &Path) -> Vec<OsString> {
        let entries = std::fs::read_dir(directory).into_iter().flatten();
        let entries = entries.take(NAMES_MAX).flatten();
        entries
            .take_while(|_| Instant::now() < self.end)
            .map(|entry| entry.file_name())
            .filter(|name| is_job_entry(name))
            .collect()
    }
}

fn starts(name: &OsStr, current: &OsStr) -> bool {
    name.as_bytes().starts_with(current.as_bytes())
}

/// The options on the command line that select a workspace.
#[derive(Debug, Default)]
struct Options {
    settings: Option<PathBuf>,
    /// Of `experiments copy`, the workspace to copy from.
    selection: Selection,
    /// The experiment of `experiments copy`.
    copied: Option<OsString>,
}

fn options() -> Options {
    options_in(&words())
}

fn options_in(words: &[OsString]) -> Options {
    let mut options = Options::default();
    let (mut words, mut is_copy) = (words.iter().skip(1), false);
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        let (name, value) = match text.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.into())),
            _ => (text.into_owned(), None),
        };
        let mut value = || value.clone().or_else(|| words.next().cloned());
        let shown = |value: Option<OsString>| value.map(|it| it.to_string_lossy().into_owned());
        match name.as_str() {
            "--settings" => options.settings = value().map(PathBuf::from),
            "--to-workspace" => drop(value()),
            "-w" | "--workspace" | "--from-workspace" => {
                options.selection.workspace = shown(value())
            }
            "--workdir" => options.selection.workdir = value().map(PathBuf::from),
            "-x" | "--experiment" => options.selection.experiment = shown(value()),
            "copy" => is_copy = true,
            _ if is_copy && !word.as_bytes().starts_with(b"-") => {
                options.copied.get_or_insert_with(|| word.clone());
            }
            _ => {}
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_selects_the_workspace() {
        let words = |text: &str| -> Vec<OsString> { text.split(' ').map(OsString::from).collect() };
        let options = options_in(&words("xpmfs --settings=/s jobs archive -w nlp a"));
        assert_eq!(options.settings.as_deref(), Some(Path::new("/s")));
        assert_eq!(options.selection.workspace.as_deref(), Some("nlp"));
        let options = options_in(&words(
            "xpmfs experiments copy --from-workspace=a --to-workspace b tune 2026",
        ));
        assert_eq!(options.selection.workspace.as_deref(), Some("a"));
        assert_eq!(options.copied.as_deref(), Some(OsStr::new("tune")));
        let options = options_in(&words("xpmfs jobs verify --workdir /ws"));
        assert_eq!(options.selection.workdir.as_deref(), Some(Path::new("/ws")));
    }
}
