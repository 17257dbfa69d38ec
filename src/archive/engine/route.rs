//! Decides to which folders a job is archived.

use std::sync::Arc;

use crate::archive::job::ready::Judge;
use crate::settings::Mode;
use crate::view::View;
use crate::view::location::Role;
use crate::workspace::JobId;

/// A folder that a job goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Destination {
    /// The folder's number.
    pub(super) folder: u8,
    /// Whether it is a `backup` folder, which comes before a `move` folder.
    pub(super) backup: bool,
}

/// The folders that jobs are archived to, and the rules that exclude jobs.
#[derive(Debug)]
pub(super) struct Route {
    destinations: Vec<Destination>,
    judge: Arc<Judge>,
}

impl Route {
    pub(super) fn new(view: &View, judge: Arc<Judge>) -> Route {
        let destinations = view.folders().iter().filter_map(|folder| {
            let backup = match folder.role() {
                Role::Folder(Mode::Backup) => true,
                Role::Folder(Mode::Move) => false,
                _ => return None,
            };
            Some(Destination {
                folder: folder.index(),
                backup,
            })
        });
        Route {
            destinations: destinations.collect(),
            judge,
        }
    }

    /// All folders that jobs are archived to.
    pub(super) fn destinations(&self) -> &[Destination] {
        &self.destinations
    }

    /// The folders that want a job: every `backup` folder, and the first `move` folder, since the job is no longer
    /// in the primary once that folder has the copy. Folders whose globs exclude the job are left out.
    pub(super) fn of(&self, job: &JobId) -> Vec<Destination> {
        if self.judge.out.is_excluded(job) {
            return Vec::new();
        }
        let mut moved = false;
        let mut route = Vec::new();
        for destination in &self.destinations {
            let excluded = self.judge.out.is_excluded_from(destination.folder, job);
            if excluded || (!destination.backup && moved) {
                continue;
            }
            moved |= !destination.backup;
            route.push(*destination);
        }
        route
    }

    /// Whether a folder wants a job.
    pub(super) fn leads_to(&self, folder: u8, job: &JobId) -> bool {
        self.of(job)
            .iter()
            .any(|destination| destination.folder == folder)
    }
}
