//! Decides to which folders a job is archived.

use std::sync::Arc;

use crate::archive::job::ready::Judge;
use crate::settings::Mode;
use crate::view::View;
use crate::view::location::Role;
use crate::workspace::JobId;

/// A folder that a job goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop {
    /// The folder's number.
    pub(super) folder: u8,
    /// Whether it is a `backup` folder, which comes before a `move` folder.
    pub(super) backup: bool,
}

/// The folders that jobs are archived to, and the rules that exclude jobs.
#[derive(Debug)]
pub(super) struct Route {
    stops: Vec<Stop>,
    judge: Arc<Judge>,
}

impl Route {
    pub(super) fn new(view: &View, judge: Arc<Judge>) -> Route {
        let stops = view.folders().iter().filter_map(|folder| {
            let backup = match folder.role() {
                Role::Folder(Mode::Backup) => true,
                Role::Folder(Mode::Move) => false,
                _ => return None,
            };
            Some(Stop {
                folder: folder.index(),
                backup,
            })
        });
        Route {
            stops: stops.collect(),
            judge,
        }
    }

    /// All folders that jobs are archived to.
    pub(super) fn stops(&self) -> &[Stop] {
        &self.stops
    }

    /// The folders that want a job: every `backup` folder, and the first `move` folder, since the job is no longer
    /// in the primary once that folder has the copy. Folders whose globs exclude the job are left out.
    pub(super) fn of(&self, job: &JobId) -> Vec<Stop> {
        if self.judge.out.is_excluded(job) {
            return Vec::new();
        }
        let mut moved = false;
        let mut route = Vec::new();
        for stop in &self.stops {
            let excluded = self.judge.out.is_excluded_from(stop.folder, job);
            if excluded || (!stop.backup && moved) {
                continue;
            }
            moved |= !stop.backup;
            route.push(*stop);
        }
        route
    }

    /// Whether a folder wants a job.
    pub(super) fn leads_to(&self, folder: u8, job: &JobId) -> bool {
        self.of(job).iter().any(|stop| stop.folder == folder)
    }
}
