//! Finds orphans: jobs in the primary that no run of an experiment refers to.
//!
//! As experimaestro 2.7.0 (`_fetch_orphan_jobs` in its `scheduler/workspace_state_provider.py`):
//!
//! 1. Candidates are the directories `jobs/<task_id>/<hash>` of the primary, and the symlinks there that lead to directories. What only a
//!    folder has is none, also beneath a mount, where its jobs show in `jobs/`.
//! 2. A candidate that a run refers to ([`crate::workspace::references`]) is needed. Both are compared after symlinks were followed: a job
//!    with a new identifier may be a symlink to the former one.
//! 3. A candidate that a `backup` or `move` folder has, too, can be recovered, and is not an orphan, unless the caller ignores folders.
//!
//! `leads` follows the symlinks; [`clean`] removes orphans.

pub mod clean;
mod leads;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::sync::Arc;

use jiff::Timestamp;
use rustix::fs::FileType;

use self::leads::{LEAD_TIMEOUT, Lead, Leads};
use super::experiments::{shown, top};
use super::job::usage::DiskUsage;
use super::job_list::take;
use super::places;
use crate::sys::deadline::within;
use crate::view::inventory::Wanted;
use crate::view::location::why_not;
use crate::view::{Location, View};
use crate::workspace::job_files::JobState;
use crate::workspace::jobs::JobId;
use crate::workspace::references::References;

/// How orphans are searched for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Search {
    /// Whether jobs that a `backup` or `move` folder has are orphans, too.
    pub ignore_folders: bool,
    /// Whether their files are counted.
    pub sizes: bool,
}

/// A job that no run refers to.
#[derive(Debug)]
pub struct Orphan {
    /// Its id.
    pub id: JobId,
    /// The target of the symlink that the primary has in its place, if it has one.
    pub link: Option<OsString>,
    /// Its state.
    pub state: JobState,
    /// When it ended; of other jobs, when its directory changed last.
    pub changed: Option<Timestamp>,
    /// Whether a `backup` or `move` folder has it.
    pub is_archived: bool,
    /// Its files, if they were to be counted and could be.
    pub usage: Option<DiskUsage>,
}

/// The orphans of a workspace.
#[derive(Debug, Default)]
pub struct Orphans {
    /// The jobs, in order.
    pub jobs: Vec<Orphan>,
    /// How many jobs the primary has.
    pub candidates: usize,
    /// Why some of them may be no orphans, or why there may be more: what could not be read, as sentences.
    pub unread: Vec<String>,
    /// Whether the workspace has jobs and no experiments, so that every job is an orphan.
    pub lacks_experiments: bool,
}

/// Finds the orphans of a workspace.
#[must_use]
pub fn find(view: &Arc<View>, search: Search) -> Orphans {
    let mut orphans = Orphans::default();
    let primary = view.primary();
    let references = match top(primary) {
        Ok(top) => References::collect(&top),
        Err(errno) => {
            orphans.unread.push(unread(primary, &why_not(errno)));
            return orphans;
        }
    };
    let errors = references.errors.iter();
    orphans
        .unread
        .extend(errors.map(|error| shown(primary, error)));
    let (entries, unlisted) = primary_entries(view);
    orphans.unread.extend(unlisted);
    orphans.candidates = entries.len();
    orphans.lacks_experiments = !references.has_experiments && !entries.is_empty();

    let mut leads = Leads::new(view, &entries);
    let mut needed: HashSet<Lead> = HashSet::with_capacity(references.jobs.len());
    needed.extend(references.jobs.iter().map(|job| leads.of_job(job)));
    for link in &references.links {
        needed.extend(leads.of_link(link));
    }
    let archived = archived(view, &mut orphans.unread);
    let mut links = HashMap::new();
    let mut found = BTreeSet::new();
    for (job, kind) in &entries {
        let is_recoverable = !search.ignore_folders && archived.contains(job);
        let is_needed = needed.contains(&leads.of_job(job)) || is_recoverable;
        if is_needed || (*kind == FileType::Symlink && !leads.is_directory(job)) {
            continue;
        }
        if let Some(target) = leads.target(job) {
            links.insert(job.clone(), target.to_owned());
        }
        found.insert(job.clone());
    }
    orphans.unread.extend(leads.into_unread());

    let inventory = take(view, &Wanted::Jobs(found.clone()), search.sizes, false);
    let mut seen: HashMap<JobId, _> = inventory
        .jobs
        .into_iter()
        .map(|job| (job.id, job.seen))
        .collect();
    orphans.jobs = found
        .into_iter()
        .map(|id| {
            let seen = seen.remove(&id).flatten();
            let (state, changed, usage) = match seen {
                Some(seen) => (seen.state.state, seen.changed, seen.usage),
                None => (
                    JobState::Other(super::job_list::UNKNOWN.to_owned()),
                    None,
                    None,
                ),
            };
            Orphan {
                link: links.remove(&id),
                is_archived: archived.contains(&id),
                id,
                state,
                changed,
                usage,
            }
        })
        .collect();
    orphans
}

/// The entries of the primary that may be jobs: directories and symlinks.
fn primary_entries(view: &View) -> (Vec<(JobId, FileType)>, Vec<String>) {
    let primary = view.locations().first();
    let (mut entries, unlisted) = primary.map_or_else(Default::default, |it| it.entries());
    entries.retain(|(_, kind)| matches!(kind, FileType::Directory | FileType::Symlink));
    (entries, unlisted)
}

/// The jobs that `backup` and `move` folders have.
fn archived(view: &View, unread: &mut Vec<String>) -> HashSet<JobId> {
    let mut archived = HashSet::new();
    let archives: Vec<u8> = places::archives(view).map(Location::index).collect();
    let folders = view.folders().iter();
    for folder in folders.filter(|folder| archives.contains(&folder.index())) {
        let (entries, unlisted) = folder.entries();
        unread.extend(unlisted);
        let jobs = entries.into_iter().filter(|(job, kind)| match kind {
            FileType::Directory => true,
            FileType::Symlink => {
                let path = places::path(folder, job);
                within(LEAD_TIMEOUT, move || path.is_dir()).unwrap_or(true)
            }
            _ => false,
        });
        archived.extend(jobs.map(|(job, _)| job));
    }
    archived
}

fn unread(location: &Location, why: &str) -> String {
    format!("cannot read {}: {why}", location.path().display())
}
