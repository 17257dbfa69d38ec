//! The tab of folders: their health and space, which jobs they have, and what can be released.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, MouseEvent};
use indicatif::HumanBytes;

use super::super::jobs::JobTable;
use super::super::model::Model;
use super::super::order::{Order, counted};
use super::super::request::Request;
use super::super::row::Row;
use super::folder_list::{FolderJobs, FolderList};
use super::{Canvas, line};
use crate::archive::job_list::JobLocation;
use crate::view::PRIMARY;
use crate::workspace::job_files::JobState;
use crate::workspace::jobs::JobId;

/// The tab.
#[derive(Debug, Default)]
pub(in crate::cli::tui) struct FoldersTab {
    folders: FolderList,
    /// What each location has, by its number; and of which jobs that is.
    counts: Vec<Counts>,
    releasable: Arc<Vec<JobId>>,
    of: Option<u64>,
}

/// What a location has.
#[derive(Debug, Clone, Default)]
struct Counts {
    jobs: usize,
    /// Jobs and known bytes by state, of those that it serves.
    states: BTreeMap<String, (usize, u64)>,
    /// How many of these have no known size.
    unmeasured: usize,
}

impl FoldersTab {
    fn update(&mut self, jobs: &JobTable, model: &Model) {
        if self.of == Some(model.generation) {
            return;
        }
        self.of = Some(model.generation);
        let locations = model.session.as_ref();
        let count = locations.map_or(0, |session| session.opened.view.locations().len());
        self.counts = vec![Counts::default(); count];
        let mut releasable = Vec::new();
        for row in &jobs.rows {
            for location in row.copies.iter() {
                if let Some(counts) = self.counts.get_mut(usize::from(location)) {
                    counts.jobs += 1;
                }
            }
            if let JobLocation::At(at) = row.location
                && let Some(counts) = self.counts.get_mut(usize::from(at))
            {
                let entry = counts.states.entry(row.state.to_string()).or_default();
                entry.0 += 1;
                match model.size(row) {
                    Some(bytes) => entry.1 += bytes,
                    None => counts.unmeasured += 1,
                }
            }
            if is_candidate(row, model) {
                releasable.push(row.id.clone());
            }
        }
        self.releasable = Arc::new(releasable);
    }

    /// Reacts to a key.
    pub(in crate::cli::tui) fn key(&mut self, key: KeyEvent, model: &Model) -> Option<Request> {
        if self.folders.key(key, &model.reported) {
            return None;
        }
        if let Some(jobs) = model.jobs.clone() {
            self.update(&jobs, model);
        }
        match key.code {
            KeyCode::Char('e') if model.jobs.is_none() => Some(Request::Say(
                "the jobs are being read: try again when their numbers show".to_owned(),
            )),
            KeyCode::Char('e') if self.releasable.is_empty() => Some(Request::Say(
                "no finished job of the primary has a copy in a folder: nothing to release"
                    .to_owned(),
            )),
            KeyCode::Char('e') => Some(Request::Plan(Order::ReleaseAll(
                self.releasable.as_ref().clone(),
            ))),
            KeyCode::Char('Z') => Some(Request::Measure),
            KeyCode::Char('f') => {
                let path = self.folders.selected_path(&model.reported)?;
                Some(Request::Copy(path))
            }
            _ => None,
        }
    }

    /// Reacts to the mouse.
    pub(in crate::cli::tui) fn mouse(&mut self, mouse: MouseEvent, model: &Model) {
        self.folders.mouse(mouse, &model.reported);
    }

    /// Draws the tab.
    pub(in crate::cli::tui) fn draw(&mut self, (buffer, area): Canvas<'_>, model: &Model) {
        if let Some(jobs) = model.jobs.clone() {
            self.update(&jobs, model);
        }
        let counts = &self.counts;
        let jobs = |index: usize| match counts.get(index) {
            Some(counts) => counts.describe(),
            None => FolderJobs {
                count: "...".to_owned(),
                lines: Vec::new(),
            },
        };
        let canvas = (&mut *buffer, area);
        let (theme, reported) = (model.theme, &model.reported);
        let Some(rest) = self.folders.draw(canvas, theme, reported, Some(&jobs)) else {
            return;
        };
        let releasable = match self.releasable.len() {
            0 if model.jobs.is_none() => "looking for jobs that can be released".to_owned(),
            0 => "nothing to release: no finished job is here and in a folder".to_owned(),
            count => format!(
                "{} here and in a folder: e finds out which are safe to release",
                counted(count)
            ),
        };
        line((buffer, rest), 0, &releasable, theme.title());
    }
}

impl Counts {
    /// In words.
    fn describe(&self) -> FolderJobs {
        let at_least = match self.unmeasured {
            0 => "",
            _ => "at least ",
        };
        let states = self.states.iter();
        let states = states.map(|(state, (count, bytes))| {
            let size = HumanBytes(*bytes);
            format!("  {state:<12}{:>12}   {at_least}{size}", counted(*count))
        });
        let unmeasured = (self.unmeasured > 0).then(|| {
            let count = counted(self.unmeasured);
            format!("  {count} not measured: Z measures all")
        });
        FolderJobs {
            count: self.jobs.to_string(),
            lines: states.chain(unmeasured).collect(),
        }
    }
}

/// Whether a job may be released: it is finished, and is both in the primary and in a folder.
fn is_candidate(row: &Row, model: &Model) -> bool {
    let has_archived = !row.current().and(model.places.archives).is_empty();
    row.state == JobState::Done && row.copies.has(PRIMARY) && has_archived
}
