//! The tab of jobs: which show, in which order, and what keys do with them.

use std::collections::HashSet;
use std::ffi::OsString;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseEvent};

use super::super::jobs::{JobOrder as Sorting, JobTable, Key};
use super::super::list::{Hit, List};
use super::super::model::Model;
use super::super::order::{Order, Verb};
use super::super::request::{Part, Request};
use super::super::row::Row;
use super::super::safety::Safety;
use super::super::text_edit::{self, TextEdit};
use crate::archive::job_list::JobLocation;
use crate::archive::places;
use crate::view::PRIMARY;
use crate::workspace::job_files::JobState;
use crate::workspace::jobs::JobId;

/// The tab.
#[derive(Debug, Default)]
pub(in crate::cli::tui) struct JobsTab {
    pub(super) list: List,
    pub(super) order: Sorting,
    /// Whether keys are letters of the search.
    pub(super) editing: bool,
    pub(super) shown: Vec<u32>,
    /// The generation of the jobs that `shown` is of.
    of: Option<u64>,
    pub(super) error: Option<String>,
    pub(super) marked: HashSet<JobId>,
    /// How many of the marked jobs do not show.
    pub(super) hidden_marks: usize,
    /// The job that is selected: it stays selected if others come and go.
    current: Option<JobId>,
    pub(super) at_risk: AtRisk,
    /// What each column on the screen sorts by.
    pub(super) keys: Vec<Key>,
}

/// Finished jobs of which a person should know.
#[derive(Debug, Default)]
pub(super) struct AtRisk {
    /// How many have no second copy.
    pub(super) single: usize,
    /// The bytes of these that are known.
    pub(super) bytes: u64,
    /// How many no location has.
    pub(super) missing: usize,
}

impl AtRisk {
    fn of(jobs: &JobTable, model: &Model) -> AtRisk {
        let mut found = AtRisk::default();
        for row in &jobs.rows {
            match model.places.safety(row, jobs.silent) {
                Safety::Single => {
                    found.single += 1;
                    found.bytes += model.size(row).unwrap_or(0);
                }
                Safety::Missing if row.state == JobState::Done => found.missing += 1,
                _ => {}
            }
        }
        found
    }
}

impl JobsTab {
    /// Shows only the jobs of an experiment.
    pub(in crate::cli::tui) fn show_experiment(&mut self, id: OsString) {
        self.order = Sorting {
            experiment: Some(id),
            ..Sorting::default()
        };
        self.of = None;
        self.list.selected = 0;
        self.current = None;
    }

    /// Whether keys are letters now.
    pub(in crate::cli::tui) fn is_editing(&self) -> bool {
        self.editing
    }

    /// Whether the list is sorted by size, which takes all sizes.
    pub(in crate::cli::tui) fn wants_sizes(&self) -> bool {
        self.order.key == Key::Size
    }

    /// The jobs that show, for a look at their copies.
    pub(in crate::cli::tui) fn visible(&self, model: &Model) -> Vec<JobId> {
        let Some(jobs) = &model.jobs else {
            return Vec::new();
        };
        let shown = self.list.visible(self.shown.len());
        let shown = self.shown.get(shown).unwrap_or_default();
        let rows = shown
            .iter()
            .filter_map(|index| jobs.rows.get(*index as usize));
        let here = rows.filter(|row| row.location != JobLocation::Missing);
        let stale = here.filter(|row| model.is_stale(&row.id));
        stale.map(|row| row.id.clone()).collect()
    }

    pub(super) fn row<'a>(&self, jobs: &'a JobTable, index: usize) -> Option<&'a Row> {
        jobs.rows.get(*self.shown.get(index)? as usize)
    }

    /// Decides which jobs show, if that may have changed.
    pub(in crate::cli::tui) fn update(&mut self, model: &Model) {
        let Some(jobs) = &model.jobs else {
            return;
        };
        if self.of == Some(model.generation) {
            return;
        }
        self.of = Some(model.generation);
        (self.shown, self.error) = jobs.order(&self.order, &model.places);
        self.at_risk = AtRisk::of(jobs, model);
        self.marked.retain(|job| jobs.find(job).is_some());
        self.hidden_marks = match self.marked.is_empty() {
            true => 0,
            false => self.hidden(jobs, self.marked.iter()),
        };
        // The selection stays on its job, but a new search begins at its first.
        if let Some(index) = self.current.as_ref().and_then(|job| jobs.find(job))
            && let Some(at) = self.shown.iter().position(|it| *it as usize == index)
        {
            self.list.selected = at;
        }
    }

    /// Other jobs show. The selection stays on its job if that is one of them.
    fn narrowed(&mut self) -> Option<Request> {
        self.of = None;
        self.list.selected = 0;
        None
    }

    /// Another search, or another order: both are read from the first job on.
    fn changed(&mut self) -> Option<Request> {
        self.current = None;
        self.narrowed()
    }

    fn sort(&mut self, key: Key) -> Option<Request> {
        self.order.sort_by(key);
        self.changed();
        (key == Key::Size).then_some(Request::Measure)
    }

    /// How many of these jobs do not show.
    pub(in crate::cli::tui) fn hidden<'a>(
        &self,
        jobs: &JobTable,
        ids: impl Iterator<Item = &'a JobId>,
    ) -> usize {
        let shown: HashSet<u32> = self.shown.iter().copied().collect();
        let rows = ids.map(|job| jobs.find(job));
        let rows = rows.map(|row| row.and_then(|index| u32::try_from(index).ok()));
        rows.filter(|row| row.is_none_or(|index| !shown.contains(&index)))
            .count()
    }

    /// The jobs of an action: those that are marked, or else the selected one.
    fn targets(&self, jobs: &JobTable) -> Vec<JobId> {
        if !self.marked.is_empty() {
            let marked = jobs.rows.iter().map(|row| &row.id);
            return marked
                .filter(|id| self.marked.contains(*id))
                .cloned()
                .collect();
        }
        let row = self.row(jobs, self.list.selected);
        row.map(|row| row.id.clone()).into_iter().collect()
    }

    /// Reacts to a key.
    pub(in crate::cli::tui) fn key(&mut self, key: KeyEvent, model: &Model) -> Option<Request> {
        // Before the list is made: of several letters that are typed at once, only the last makes one.
        if self.editing && self.edit(key) {
            return None;
        }
        self.update(model);
        let jobs = model.jobs.as_ref()?;
        if self.list.key(key, self.shown.len()) {
            self.current = self.row(jobs, self.list.selected).map(|row| row.id.clone());
            return None;
        }
        let targets = self.targets(jobs);
        let selected = self.row(jobs, self.list.selected);
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let plan =
            |verb| (!targets.is_empty()).then(|| Request::Plan(Order::Jobs(verb, targets.clone())));
        let looked = selected.and_then(|row| model.looked(&row.id));
        match key.code {
            KeyCode::Char('d') if control => plan(Verb::Delete),
            KeyCode::Char(_) if control => None,
            KeyCode::Enter => selected.map(|row| Request::Open(row.id.clone(), Part::Copies)),
            KeyCode::Char('l') => selected.map(|row| Request::Open(row.id.clone(), Part::Log)),
            KeyCode::Char('f') => {
                let session = model.session.as_ref()?;
                let view = &session.opened.view;
                let row = selected?;
                let location = match row.location {
                    JobLocation::At(location) => location,
                    JobLocation::Missing | JobLocation::Unknown => PRIMARY,
                };
                let location = view.location(location).unwrap_or(view.primary());
                let path = places::path(location, &row.id);
                Some(Request::Copy(path.to_string_lossy().into_owned()))
            }
            KeyCode::Char('/') => {
                self.editing = true;
                None
            }
            KeyCode::Char('c') => {
                self.order = Sorting {
                    key: self.order.key,
                    reversed: self.order.reversed,
                    ..Sorting::default()
                };
                self.marked.clear();
                self.narrowed()
            }
            KeyCode::Char('n') => {
                self.order.only_single = !self.order.only_single;
                self.narrowed()
            }
            KeyCode::Char(' ') => {
                if let Some(row) = selected
                    && !self.marked.remove(&row.id)
                {
                    self.marked.insert(row.id.clone());
                }
                let down = KeyEvent::new(KeyCode::Down, KeyModifiers::NONE);
                self.list.key(down, self.shown.len());
                self.current = self.row(jobs, self.list.selected).map(|row| row.id.clone());
                None
            }
            KeyCode::Char('A') => {
                // Those that show, which a search has narrowed down.
                let rows = self.shown.iter();
                let rows = rows.filter_map(|index| jobs.rows.get(*index as usize));
                self.marked = rows.map(|row| row.id.clone()).collect();
                self.hidden_marks = 0;
                None
            }
            KeyCode::Char('S') => self.sort(Key::State),
            KeyCode::Char('T') => self.sort(Key::Task),
            KeyCode::Char('D') => self.sort(Key::Date),
            KeyCode::Char('O') => self.sort(Key::Name),
            KeyCode::Char('Z') => self.sort(Key::Size),
            KeyCode::Char('C') => self.sort(Key::Copies),
            KeyCode::Char('Y') => self.sort(Key::Tags),
            KeyCode::Char('a') => plan(Verb::Archive),
            KeyCode::Char('b') => plan(Verb::Recover),
            KeyCode::Char('e') => plan(Verb::Release),
            KeyCode::Char('v') => plan(Verb::Verify),
            KeyCode::Char('p') => plan(Verb::Pin(!looked.is_some_and(|copies| copies.pinned))),
            KeyCode::Char('o') => {
                let is_out = looked.is_some_and(|copies| copies.opted_out.is_some());
                plan(Verb::OptOut(!is_out))
            }
            _ => None,
        }
    }

    /// Changes the search by a key. Returns whether it was one for that.
    fn edit(&mut self, key: KeyEvent) -> bool {
        let edit = text_edit::edit(&mut self.order.text, key);
        self.editing = matches!(edit, None | Some(TextEdit::Changed));
        if matches!(edit, Some(TextEdit::Changed | TextEdit::Cancelled)) {
            self.changed();
        }
        edit.is_some()
    }

    /// Adds a text that was pasted to the search.
    pub(in crate::cli::tui) fn paste(&mut self, text: &str) {
        if self.editing {
            text_edit::paste(&mut self.order.text, text);
            self.changed();
        }
    }

    /// Undoes what narrows the list down. Returns whether anything did.
    pub(in crate::cli::tui) fn back(&mut self) -> bool {
        let is_narrow = !self.order.text.is_empty()
            || self.order.only_single
            || self.order.experiment.is_some()
            || !self.marked.is_empty();
        if is_narrow {
            let (key, reversed) = (self.order.key, self.order.reversed);
            self.order = Sorting {
                key,
                reversed,
                ..Sorting::default()
            };
            self.marked.clear();
            self.narrowed();
        }
        is_narrow
    }

    /// Reacts to the mouse.
    pub(in crate::cli::tui) fn mouse(
        &mut self,
        mouse: MouseEvent,
        model: &Model,
    ) -> Option<Request> {
        let hit = self.list.mouse(mouse, self.shown.len());
        let jobs = model.jobs.as_ref()?;
        self.current = self.row(jobs, self.list.selected).map(|row| row.id.clone());
        match hit? {
            Hit::Title(index) => {
                let key = self.keys.get(index).copied()?;
                self.sort(key)
            }
            Hit::Row => None,
            Hit::Selected => {
                let row = self.row(jobs, self.list.selected)?;
                Some(Request::Open(row.id.clone(), Part::Copies))
            }
        }
    }
}
