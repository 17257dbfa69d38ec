//! Follows the symlinks to jobs, by their texts, and asks the disk only about those that lead out of the workspace.
//!
//! The workspace may be mounted in place, and a folder may hang: the kernel's own walk of an absolute symlink would enter either.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FileType;

use crate::sys::at;
use crate::sys::deadline::within;
use crate::view::{Location, PRIMARY, View};
use crate::workspace::jobs::JobId;
use crate::workspace::references::JobLink;

/// How many symlinks are followed, as the kernel does.
const LINKS_MAX: usize = 40;

/// How long a directory outside of the workspace may take to be found.
pub(super) const LEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a name or a symlink leads in the end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Lead {
    /// To a job of the primary that is not a symlink, or to no job.
    Job(JobId),
    /// To the same place in a location.
    Folder(u8, JobId),
    /// Elsewhere.
    Outside(PathBuf),
}

/// The symlinks of a workspace.
pub(super) struct Leads<'a> {
    view: &'a View,
    /// The symlinks in the place of jobs, and their targets.
    links: HashMap<&'a JobId, OsString>,
    /// The jobs of the primary.
    jobs: HashSet<&'a JobId>,
    /// The jobs of folders, listed when the first symlink leads there.
    folders: HashMap<u8, HashSet<JobId>>,
    /// Directories outside of the workspace: their paths without symlinks.
    outside: HashMap<PathBuf, Option<PathBuf>>,
    unread: Vec<String>,
}

impl<'a> Leads<'a> {
    /// Reads the symlinks among the entries of the primary.
    pub(super) fn new(view: &'a View, entries: &'a [(JobId, FileType)]) -> Leads<'a> {
        let mut links = HashMap::new();
        for (job, _) in entries
            .iter()
            .filter(|(_, kind)| *kind == FileType::Symlink)
        {
            let task = view
                .primary()
                .root()
                .and_then(|root| root.task(job.task_id()));
            if let Ok(target) = task.and_then(|task| at::read_link(&*task, job.hash())) {
                links.insert(job, target);
            }
        }
        Leads {
            view,
            links,
            jobs: entries.iter().map(|(job, _)| job).collect(),
            folders: HashMap::new(),
            outside: HashMap::new(),
            unread: Vec::new(),
        }
    }

    /// What could not be listed.
    pub(super) fn into_unread(self) -> Vec<String> {
        self.unread
    }

    /// The target of the symlink in the place of a job, if it is one.
    pub(super) fn target(&self, job: &JobId) -> Option<&OsStr> {
        self.links.get(job).map(OsString::as_os_str)
    }

    /// Where the name of a job of the primary leads.
    pub(super) fn of_job(&mut self, job: &JobId) -> Lead {
        let mut job = job.clone();
        for _ in 0..LINKS_MAX {
            let Some(target) = self.links.get(&job) else {
                break;
            };
            let link = JobLink {
                directory: self.jobs_path().join(job.task_id()),
                target: target.into(),
                name: job.clone(),
            };
            match self.step(&link.absolute()) {
                Lead::Job(next) => job = next,
                other => return other,
            }
        }
        Lead::Job(job)
    }

    /// The jobs that a symlink of a run refers to: that to which it leads, and, if it leads nowhere, that of its name.
    pub(super) fn of_link(&mut self, link: &JobLink) -> Vec<Lead> {
        let lead = match self.step(&self.below_primary(&link.absolute())) {
            Lead::Job(job) => self.of_job(&job),
            lead => lead,
        };
        match self.exists(&lead) {
            true => vec![lead],
            false => vec![self.of_job(&link.name), lead],
        }
    }

    /// Whether the symlink in the place of a job leads to a directory.
    pub(super) fn is_directory(&mut self, job: &JobId) -> bool {
        let lead = self.of_job(job);
        self.exists(&lead)
    }

    fn exists(&mut self, lead: &Lead) -> bool {
        match lead {
            // One that is still a symlink leads to itself.
            Lead::Job(job) => self.jobs.contains(job) && !self.links.contains_key(job),
            Lead::Folder(folder, job) => self.folder(*folder).contains(job),
            Lead::Outside(path) => {
                let path = path.clone();
                within(LEAD_TIMEOUT, move || path.is_dir()).unwrap_or(false)
            }
        }
    }

    fn folder(&mut self, index: u8) -> &HashSet<JobId> {
        let (view, unread) = (self.view, &mut self.unread);
        self.folders.entry(index).or_insert_with(|| {
            let mut folders = view.folders().iter();
            let Some(folder) = folders.find(|folder| folder.index() == index) else {
                return HashSet::new();
            };
            let (entries, unlisted) = folder.entries();
            unread.extend(unlisted);
            let jobs = entries.into_iter();
            jobs.filter(|(_, kind)| *kind != FileType::RegularFile)
                .map(|(job, _)| job)
                .collect()
        })
    }

    /// The path of the primary's jobs.
    fn jobs_path(&self) -> PathBuf {
        let primary = self.view.primary();
        let root = primary.root().ok();
        let path = root.and_then(|root| root.jobs_paths().first().cloned());
        path.unwrap_or_else(|| primary.path().join("jobs"))
    }

    /// A path that was made from the primary's descriptor, with the primary's own path.
    fn below_primary(&self, path: &Path) -> PathBuf {
        let primary = self.view.primary();
        let below = primary.root().ok().and_then(|root| {
            let top = at::proc_path(root.fd());
            path.strip_prefix(top).ok().map(Path::to_path_buf)
        });
        below.map_or_else(|| path.to_path_buf(), |below| primary.path().join(below))
    }

    /// Where an absolute path leads, without following the symlink that a job of the primary may be.
    fn step(&mut self, path: &Path) -> Lead {
        if let Some(lead) = self.below_location(path) {
            return lead;
        }
        // Other directories may lead to these by symlinks.
        let Some((directory, name)) = path.parent().zip(path.file_name()) else {
            return Lead::Outside(path.to_path_buf());
        };
        let canonical = match self.outside.get(directory) {
            Some(canonical) => canonical.clone(),
            None => {
                let asked = directory.to_path_buf();
                let canonical = within(LEAD_TIMEOUT, move || asked.canonicalize().ok());
                let canonical = canonical.flatten();
                self.outside
                    .insert(directory.to_path_buf(), canonical.clone());
                canonical
            }
        };
        let Some(canonical) = canonical else {
            return Lead::Outside(path.to_path_buf());
        };
        let path = canonical.join(name);
        self.below_location(&path).unwrap_or(Lead::Outside(path))
    }

    /// The job of a location that a path names.
    fn below_location(&self, path: &Path) -> Option<Lead> {
        self.view.locations().iter().find_map(|location| {
            let job = job_below(location, path)?;
            Some(match location.index() {
                PRIMARY => Lead::Job(job),
                folder => Lead::Folder(folder, job),
            })
        })
    }
}

fn job_below(location: &Arc<Location>, path: &Path) -> Option<JobId> {
    let jobs = location.jobs_paths();
    let below = jobs.iter().find_map(|jobs| path.strip_prefix(jobs).ok())?;
    JobId::parse(below).ok()
}
