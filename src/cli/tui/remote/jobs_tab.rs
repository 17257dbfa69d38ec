//! The tabs of jobs: those of runs, orphans, and stray jobs.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseEvent};

use super::act::RemoteAct;
use super::model::{RemoteJobs, RemoteModel};
use super::request::RemoteRequest;
use super::tab::RemoteTab;
use crate::cli::style::Tone;
use crate::cli::tui::jobs::{JobOrder, Key};
use crate::cli::tui::list::{Cells, Hit, List, ListColumn};
use crate::cli::tui::order::counted;
use crate::cli::tui::request::Part;
use crate::cli::tui::row::Row;
use crate::cli::tui::safety::Places;
use crate::cli::tui::tabs::jobs_view::{short, tone};
use crate::cli::tui::tabs::{Canvas, age, below, line};
use crate::cli::tui::text_edit::{self, TextEdit};
use crate::remote::monitor::model::RemoteJob;
use crate::workspace::job_files::JobState;
use crate::workspace::jobs::JobId;

/// From this width on, experiments and tags have columns.
const WIDE: u16 = 110;

/// A tab.
pub(super) struct RemoteJobsTab {
    tab: RemoteTab,
    list: List,
    order: JobOrder,
    editing: bool,
    shown: Vec<u32>,
    /// The generation of the model that `shown` is of.
    of: Option<u64>,
    error: Option<String>,
    /// The job that is selected: it stays selected if others come and go.
    current: Option<JobId>,
    keys: Vec<Key>,
}

impl RemoteJobsTab {
    pub(super) fn new(tab: RemoteTab) -> RemoteJobsTab {
        RemoteJobsTab {
            tab,
            list: List::default(),
            order: JobOrder::default(),
            editing: false,
            shown: Vec::new(),
            of: None,
            error: None,
            current: None,
            keys: Vec::new(),
        }
    }

    pub(super) fn is_editing(&self) -> bool {
        self.editing
    }

    /// Shows the first jobs of another list.
    pub(super) fn reset(&mut self) {
        self.order.text.clear();
        self.changed();
    }

    fn changed(&mut self) {
        self.of = None;
        self.list.selected = 0;
        self.current = None;
    }

    fn sort(&mut self, key: Key) {
        self.order.sort_by(key);
        self.changed();
    }

    fn update(&mut self, model: &RemoteModel) {
        if self.of == Some(model.generation) {
            return;
        }
        self.of = Some(model.generation);
        let Some(list) = model.jobs(self.tab) else {
            self.shown.clear();
            return;
        };
        (self.shown, self.error) = list.table.order(&self.order, &Places::default());
        let rows = &list.table.rows;
        let at = self.current.as_ref().and_then(|current| {
            let mut shown = self.shown.iter();
            shown.position(|it| rows.get(*it as usize).is_some_and(|row| row.id == *current))
        });
        self.list.selected = at.unwrap_or(self.list.selected);
        self.remember(list);
    }

    fn remember(&mut self, list: &RemoteJobs) {
        let selected = self.row(list, self.list.selected);
        self.current = selected.map(|(_, row)| row.id.clone());
    }

    fn row<'a>(&self, list: &'a RemoteJobs, index: usize) -> Option<(&'a RemoteJob, &'a Row)> {
        let index = *self.shown.get(index)? as usize;
        list.jobs.get(index).zip(list.table.rows.get(index))
    }

    /// Reacts to a key.
    pub(super) fn key(&mut self, key: KeyEvent, model: &RemoteModel) -> Option<RemoteRequest> {
        if self.editing && self.edit(key) {
            return None;
        }
        self.update(model);
        let list = model.jobs(self.tab)?;
        if self.list.key(key, self.shown.len()) {
            self.remember(list);
            return None;
        }
        let job = self.row(list, self.list.selected).map(|(job, _)| job);
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('d') if control => {
                return Some(RemoteRequest::Act(RemoteAct::Delete, job?.id.clone()));
            }
            KeyCode::Char('k') if control => {
                return Some(RemoteRequest::Act(RemoteAct::Kill, job?.id.clone()));
            }
            KeyCode::Char(_) if control => {}
            KeyCode::Enter => return Some(RemoteRequest::Open(job?.id.clone(), Part::Job)),
            KeyCode::Char('l') => return Some(RemoteRequest::Open(job?.id.clone(), Part::Log)),
            KeyCode::Char('f') => {
                let path = model.path(&job?.id);
                return Some(RemoteRequest::Copy(path.to_string_lossy().into_owned()));
            }
            KeyCode::Char('/') => self.editing = true,
            KeyCode::Char('c') => self.reset(),
            KeyCode::Char('S') => self.sort(Key::State),
            KeyCode::Char('T') => self.sort(Key::Task),
            KeyCode::Char('D') => self.sort(Key::Date),
            KeyCode::Char('O') => self.sort(Key::Name),
            KeyCode::Char('Y') => self.sort(Key::Tags),
            _ => {}
        }
        None
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
    pub(super) fn paste(&mut self, text: &str) {
        if self.editing {
            text_edit::paste(&mut self.order.text, text);
            self.changed();
        }
    }

    /// Undoes the search. Returns whether there was one.
    pub(super) fn back(&mut self) -> bool {
        let is_narrow = !self.order.text.is_empty();
        if is_narrow {
            self.reset();
        }
        is_narrow
    }

    /// Reacts to the mouse.
    pub(super) fn mouse(
        &mut self,
        mouse: MouseEvent,
        model: &RemoteModel,
    ) -> Option<RemoteRequest> {
        let hit = self.list.mouse(mouse, self.shown.len());
        let list = model.jobs(self.tab)?;
        self.remember(list);
        match hit? {
            Hit::Title(index) => {
                if let Some(key) = self.keys.get(index).copied() {
                    self.sort(key);
                }
                None
            }
            Hit::Row => None,
            Hit::Selected => {
                let (job, _) = self.row(list, self.list.selected)?;
                Some(RemoteRequest::Open(job.id.clone(), Part::Job))
            }
        }
    }

    /// Draws the tab.
    pub(super) fn draw(&mut self, (buffer, area): Canvas<'_>, model: &RemoteModel) {
        self.update(model);
        let Some(list) = model.jobs(self.tab) else {
            return;
        };
        let theme = model.theme;
        line(
            (&mut *buffer, area),
            0,
            &self.title(list, model),
            theme.title(),
        );
        let wide = area.width >= WIDE;
        let mut columns = vec![ListColumn::text("STATE", 11), ListColumn::rest("JOB")];
        self.keys = vec![Key::State, Key::Task];
        if wide {
            columns.push(ListColumn::text("EXPERIMENT", 20));
            columns.push(ListColumn::text("TAGS", 36));
            self.keys.extend([Key::Task, Key::Tags]);
        }
        columns.push(ListColumn::text("PROGRESS", 20));
        columns.push(ListColumn::number("AGE", 7));
        self.keys.extend([Key::State, Key::Date]);
        let key = match self.order.key {
            Key::Name => Key::Task,
            key => key,
        };
        let sorted = self.keys.iter().position(|it| *it == key);
        let sorted = sorted.map(|column| (column, self.order.reversed));
        let mut place = below(area, 2);
        place.height = place.height.saturating_sub(2);
        let shown = &self.shown;
        let row = |index: usize| {
            let index = shown.get(index).map(|it| *it as usize);
            let job = index.and_then(|it| list.jobs.get(it).zip(list.table.rows.get(it)));
            (job.map_or_else(Vec::new, |it| cells(it, wide)), false)
        };
        let canvas = (&mut *buffer, place, theme);
        self.list
            .draw(canvas, &columns, sorted, self.shown.len(), row);
        if let Some((job, row)) = self.row(list, self.list.selected) {
            let mut first = job.id.to_string();
            if let Some(reason) = &job.reason {
                first.push_str(&format!("{}{reason}", theme.separator()));
            }
            let y = area.height.saturating_sub(2);
            line((&mut *buffer, area), y, &first, theme.title());
            let second = row.tags.replace('\n', " ");
            line((buffer, area), y + 1, &second, theme.title());
        }
    }

    /// How many jobs there are, and what narrows them down.
    fn title(&self, list: &RemoteJobs, model: &RemoteModel) -> String {
        let separator = model.theme.separator();
        let mut parts = Vec::new();
        if let (RemoteTab::Jobs, Some((experiment, run))) = (self.tab, &model.run) {
            parts.push(format!("run {experiment}/{run} (Esc: all)"));
        }
        if let Some(error) = &self.error {
            parts.push(format!("search: {}: {error}", self.order.text));
        } else if self.editing || !self.order.text.is_empty() {
            let cursor = if self.editing { "_" } else { "" };
            parts.push(format!("search: {}{cursor}", self.order.text));
            parts.push(format!("{} of {}", self.shown.len(), list.jobs.len()));
            return parts.join(separator);
        }
        let count = |state: JobState| list.jobs.iter().filter(|it| it.state == state).count();
        let all = list.jobs.len();
        parts.push(match (self.tab, all) {
            (RemoteTab::Orphans, 0) => "no orphans".to_owned(),
            (RemoteTab::Orphans, 1) => "1 job that no run refers to".to_owned(),
            (RemoteTab::Orphans, all) => format!("{all} jobs that no run refers to"),
            (RemoteTab::Strays, 0) => {
                "no stray jobs: every job that runs is one of a newest run".to_owned()
            }
            (RemoteTab::Strays, all) => {
                format!("{} running that only older runs have", counted(all))
            }
            (_, all) => counted(all),
        });
        let states = [
            (JobState::Running, "running"),
            (JobState::Done, "done"),
            (JobState::Error, "failed"),
        ];
        for (state, what) in states {
            let count = count(state);
            if count > 0 && self.tab == RemoteTab::Jobs {
                parts.push(format!("{count} {what}"));
            }
        }
        parts.join(separator)
    }
}

fn cells((job, row): (&RemoteJob, &Row), wide: bool) -> Cells {
    let mut cells = vec![
        (job.state.to_string(), tone(&job.state)),
        (short(&job.id), Tone::Plain),
    ];
    if wide {
        let experiment = row.experiment.as_ref();
        let experiment = experiment.map_or_else(String::new, |it| it.to_string_lossy().into());
        cells.push((experiment, Tone::Plain));
        cells.push((row.tags.replace('\n', " "), Tone::Plain));
    }
    let progress = match (&job.state, &job.reason) {
        (JobState::Running, _) => job.progress.clone().unwrap_or_default(),
        (_, Some(reason)) => reason.clone(),
        _ => String::new(),
    };
    cells.push((progress, Tone::Plain));
    cells.push((age(row.changed), Tone::Plain));
    cells
}
