//! Asks a workspace of another machine what it has.

use std::collections::HashMap;
use std::path::PathBuf;

use parking_lot::Mutex;

use super::ends::{Destination, Found, Source, SourceRun};
use crate::archive::experiments::RunName;
use crate::remote::error::CopyError;
use crate::remote::site::{Site, run_path};
use crate::workspace::jobs::JobId;

/// A workspace that is copied from.
pub(super) struct RemoteSource<'a> {
    pub(super) site: &'a Site,
    /// The number of the location of the run and of each job, as far as they were asked for.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    run: usize,
    links: Vec<(JobId, PathBuf)>,
    jobs: HashMap<JobId, usize>,
}

/// A workspace that is copied to.
pub(super) struct RemoteDestination<'a>(pub(super) &'a Site);

impl<'a> RemoteSource<'a> {
    pub(super) fn new(site: &'a Site) -> RemoteSource<'a> {
        RemoteSource {
            site,
            known: Mutex::default(),
        }
    }

    /// The number of a job's location.
    pub(super) fn location(&self, job: &JobId) -> usize {
        self.known.lock().jobs.get(job).copied().unwrap_or(0)
    }

    /// The number of the run's location, and the symlinks to its jobs.
    pub(super) fn run_location(&self) -> (usize, Vec<(JobId, PathBuf)>) {
        let known = self.known.lock();
        (known.run, known.links.clone())
    }
}

impl Source for RemoteSource<'_> {
    fn run(&self, run: &RunName) -> Result<SourceRun, CopyError> {
        let found = self.site.run(run)?;
        let found = found.ok_or_else(|| CopyError::NoRun {
            path: self.site.shown(&run_path(run)),
        })?;
        let mut known = self.known.lock();
        (known.run, known.links) = (found.location, found.links);
        Ok(SourceRun {
            found: Found {
                location: self.site.label(found.location),
                size: found.size,
            },
            jobs: found.jobs,
            unread: found.unread,
        })
    }

    fn find(&self, jobs: &[JobId]) -> Vec<Result<Found, String>> {
        let found = self.site.find(jobs);
        let mut known = self.known.lock();
        let each = jobs.iter().zip(found).map(|(job, found)| {
            let found = found?;
            known.jobs.insert(job.clone(), found.location);
            Ok(Found {
                location: self.site.label(found.location),
                size: found.size,
            })
        });
        each.collect()
    }
}

impl Destination for RemoteDestination<'_> {
    fn has_run(&self, run: &RunName) -> Result<bool, CopyError> {
        Ok(self.0.has_run(run)?)
    }

    fn has(&self, jobs: &[JobId]) -> Vec<Result<bool, String>> {
        self.0.has(jobs)
    }
}
