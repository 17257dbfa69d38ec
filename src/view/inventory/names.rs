//! The names of the jobs in each location.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::Result;

use super::LocationSet;
use crate::sys::at;
use crate::sys::read_dir::{self, EntryBuffer};
use crate::view::jobs::Unlisted;
use crate::view::location::why_not;
use crate::view::{Location, PRIMARY, View};
use crate::workspace::jobs::{JobId, is_job_entry};

/// How many names are returned at a time.
const BATCH: usize = 2048;

/// A name that may be a job's.
#[derive(Debug)]
pub(super) struct JobCandidate {
    pub(super) id: JobId,
    /// The first location with the name.
    pub(super) first: u8,
    /// What it has under the name.
    pub(super) kind: FileType,
    /// Whether another location has the name, too.
    pub(super) several: bool,
    /// The locations with a directory of the name.
    pub(super) copies: LocationSet,
}

/// What a location returns.
enum Part {
    /// Entries of a task.
    Names(Arc<OsStr>, Vec<(OsString, FileType)>),
    Unlisted(Unlisted),
}

/// The entries of a task: name, location, kind.
type Entries = Vec<(OsString, u8, FileType)>;

/// The names in all locations, in order, of these tasks or of all; and what could not be listed.
///
/// The last of the three are the locations that could not be listed as a whole.
pub(super) fn job_candidates(
    view: &View,
    tasks: Option<BTreeSet<OsString>>,
) -> (Vec<JobCandidate>, Vec<String>, LocationSet) {
    let tasks = tasks.map(Arc::new);
    let parts = std::thread::scope(|scope| {
        let threads: Vec<_> = view
            .locations()
            .iter()
            .map(|location| {
                let tasks = tasks.clone();
                scope.spawn(move || names_in(location, tasks))
            })
            .collect();
        let joined = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        joined.collect::<Vec<_>>()
    });
    let mut by_task: BTreeMap<OsString, Entries> = BTreeMap::new();
    let mut unlisted = Vec::new();
    let mut silent = LocationSet::default();
    for (location, (parts, sentence)) in view.locations().iter().zip(parts) {
        if sentence.is_some() {
            silent.insert(location.index());
        }
        unlisted.extend(sentence);
        if location.is_away() {
            add_recorded(view, location, tasks.as_deref(), &mut by_task);
        }
        for part in parts {
            match part {
                Part::Names(task, names) => {
                    let entries = match by_task.get_mut(&*task) {
                        Some(entries) => entries,
                        None => by_task.entry(task.to_os_string()).or_default(),
                    };
                    let index = location.index();
                    entries.extend(names.into_iter().map(|(name, kind)| (name, index, kind)));
                }
                Part::Unlisted(task) => {
                    silent.insert(location.index());
                    unlisted.push(task.to_string());
                }
            }
        }
    }
    let named = by_task.into_iter().flat_map(|(task, mut entries)| {
        entries.sort_unstable_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        let mut named: Vec<JobCandidate> = Vec::with_capacity(entries.len());
        for (hash, location, kind) in entries {
            let mut copies = LocationSet::default();
            if kind == FileType::Directory {
                copies.insert(location);
            }
            match named.last_mut() {
                Some(last) if last.id.hash() == hash => {
                    last.several = true;
                    last.copies = last.copies.union(copies);
                }
                _ => named.extend(JobId::new(&task, hash).ok().map(|id| JobCandidate {
                    id,
                    first: location,
                    kind,
                    several: false,
                    copies,
                })),
            }
        }
        named
    });
    (named.collect(), unlisted, silent)
}

/// Adds the jobs that a folder has on record which cannot be used now. Their kind is unknown.
fn add_recorded(
    view: &View,
    folder: &Location,
    tasks: Option<&BTreeSet<OsString>>,
    by_task: &mut BTreeMap<OsString, Entries>,
) {
    for task in view.recorded_tasks(folder) {
        if tasks.is_some_and(|tasks| !tasks.contains(&task)) {
            continue;
        }
        let entries = by_task.entry(task.clone()).or_default();
        view.recorded_jobs(folder, &task, 0, &mut |name, _| {
            entries.push((name.to_owned(), folder.index(), FileType::Unknown));
            true
        });
    }
}

impl Location {
    /// Its entries that may be jobs, of any kind, in order; and what could not be listed, as sentences. A folder that does not answer does
    /// not keep the caller waiting.
    pub fn entries(self: &Arc<Location>) -> (Vec<(JobId, FileType)>, Vec<String>) {
        let (parts, sentence) = names_in(self, None);
        let (mut entries, mut unlisted) = (Vec::new(), Vec::from_iter(sentence));
        for part in parts {
            match part {
                Part::Names(task, names) => entries.extend(
                    names
                        .into_iter()
                        .filter_map(|(name, kind)| Some((JobId::new(&*task, name).ok()?, kind))),
                ),
                Part::Unlisted(task) => unlisted.push(task.to_string()),
            }
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        (entries, unlisted)
    }
}

/// The names in one location, and why they are not all.
fn names_in(
    location: &Arc<Location>,
    tasks: Option<Arc<BTreeSet<OsString>>>,
) -> (Vec<Part>, Option<String>) {
    let mut parts = Vec::new();
    let asked = location.clone();
    let question =
        move |answer: &dyn Fn(Part) -> bool| read_names(&asked, tasks.as_deref(), answer);
    let listed = location.answers(question, |part| parts.push(part));
    let sentence = listed.err().map(|errno| {
        format!(
            "cannot list the jobs of {}: {}",
            location.path().display(),
            why_not(errno)
        )
    });
    (parts, sentence)
}

/// Reads the names of one location, and returns them in parts, until `answer` returns false.
fn read_names(
    location: &Location,
    tasks: Option<&BTreeSet<OsString>>,
    answer: &dyn Fn(Part) -> bool,
) -> Result<()> {
    let root = location.root()?;
    let Some(jobs) = at::absent(root.jobs())? else {
        return Ok(());
    };
    let mut buffer = EntryBuffer::default();
    let mut found = Vec::new();
    let list = at::open_to_list(&*jobs, OsStr::new("."))?;
    let _ = read_dir::read(&list, &mut buffer, |entry| {
        let is_wanted = tasks.is_none_or(|tasks| tasks.contains(entry.name()));
        if is_wanted && is_job_entry(entry.name()) {
            found.push((entry.name().to_owned(), entry.kind()));
        }
        ControlFlow::<()>::Continue(())
    })?;
    for (task, kind) in found {
        match kind_of(&jobs, &task, kind) {
            FileType::Directory => {}
            FileType::Symlink => {
                let path = location.path().join("jobs").join(&task);
                // In a folder, as in the view, it is nothing.
                if location.index() == PRIMARY && !answer(Part::Unlisted(Unlisted::linked(path))) {
                    return Ok(());
                }
                continue;
            }
            _ => continue,
        }
        let task: Arc<OsStr> = Arc::from(task);
        let read = root
            .task(&task)
            .and_then(|directory| read_task(location, &directory, &task, &mut buffer, answer));
        match at::absent(read) {
            Ok(Some(true) | None) => {}
            Ok(Some(false)) => return Ok(()),
            Err(errno) => {
                let path = location.path().join("jobs").join(&*task);
                if !answer(Part::Unlisted(Unlisted::failed(path, errno))) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Reads the names in the directory of a task, without deleted jobs. Returns whether more are wanted.
fn read_task(
    location: &Location,
    directory: &OwnedFd,
    task: &Arc<OsStr>,
    buffer: &mut EntryBuffer,
    answer: &dyn Fn(Part) -> bool,
) -> Result<bool> {
    let list = at::open_to_list(directory, OsStr::new("."))?;
    let mut batch = Vec::new();
    let read = read_dir::read(&list, buffer, |entry| {
        if is_job_entry(entry.name()) && !location.has_deleted(task, entry.name()) {
            let kind = kind_of(directory, entry.name(), entry.kind());
            batch.push((entry.name().to_owned(), kind));
        }
        if batch.len() >= BATCH && !answer(Part::Names(task.clone(), std::mem::take(&mut batch))) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok(read.is_continue() && answer(Part::Names(task.clone(), batch)))
}

/// The kind of an entry; asks the disk where the directory does not contain the kind.
fn kind_of(directory: &OwnedFd, name: &OsStr, kind: FileType) -> FileType {
    match kind {
        FileType::Unknown => at::stat_at(directory, name)
            .map_or(kind, |stat| FileType::from_raw_mode(stat.stx_mode.into())),
        known => known,
    }
}
