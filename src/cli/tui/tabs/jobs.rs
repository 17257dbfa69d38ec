//! The tab of jobs: state, size and age of each, and where its copies are.

use std::collections::HashSet;
use std::ffi::OsString;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseEvent};
use indicatif::HumanBytes;

use super::super::jobs::{JobOrder as Sorting, JobTable, Key};
use super::super::list::{Cells, Hit, List, ListColumn};
use super::super::model::Model;
use super::super::order::{Order, Verb, counted};
use super::super::request::{Part, Request};
use super::super::row::Row;
use super::super::safety::Safety;
use super::super::text_edit::{self, TextEdit};
use super::{Canvas, age, below, bytes, line, loading, unread};
use crate::archive::copies::{CopyState, JobCopies};
use crate::archive::job_list::{Place, UNKNOWN};
use crate::archive::places;
use crate::cli::style::Tone;
use crate::view::PRIMARY;
use crate::workspace::job_files::JobState;
use crate::workspace::jobs::JobId;

/// From this width on, tags have a column.
const TAGS_FROM: u16 = 120;

/// Below this width, sizes and ages have no column.
const NARROW: u16 = 70;

/// How much of a hash is shown.
const HASH_SHOWN: usize = 8;

/// The tab.
#[derive(Debug, Default)]
pub(in crate::cli::tui) struct JobsTab {
    list: List,
    order: Sorting,
    /// Whether keys are letters of the search.
    editing: bool,
    shown: Vec<u32>,
    /// The generation of the jobs that `shown` is of.
    of: Option<u64>,
    error: Option<String>,
    marked: HashSet<JobId>,
    /// How many of the marked jobs do not show.
    hidden_marks: usize,
    /// The job that is selected: it stays selected if others come and go.
    current: Option<JobId>,
    /// How many finished jobs have no second copy, and how many bytes are known of them.
    single: (usize, u64),
    /// What each column on the screen sorts by.
    keys: Vec<Key>,
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
        let here = rows.filter(|row| row.place != Place::Missing);
        let stale = here.filter(|row| model.is_stale(&row.id));
        stale.map(|row| row.id.clone()).collect()
    }

    fn row<'a>(&self, jobs: &'a JobTable, index: usize) -> Option<&'a Row> {
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
        let singles = jobs
            .rows
            .iter()
            .filter(|row| model.places.safety(row, jobs.silent) == Safety::Single);
        self.single = singles.fold((0, 0), |(count, bytes), row| {
            (count + 1, bytes + model.size(row).unwrap_or(0))
        });
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
        match self.order.key == key {
            true => self.order.reversed = !self.order.reversed,
            false => (self.order.key, self.order.reversed) = (key, false),
        }
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
                let location = match row.place {
                    Place::At(location) => location,
                    Place::Missing | Place::Unknown => PRIMARY,
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
        if edit.is_some_and(|edit| edit != TextEdit::Changed) {
            self.editing = false;
        }
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

    /// Draws the tab.
    pub(in crate::cli::tui) fn draw(&mut self, (buffer, area): Canvas<'_>, model: &Model) {
        self.update(model);
        let Some(jobs) = model.jobs.clone() else {
            return loading((buffer, area), "the jobs", model.started);
        };
        let theme = model.theme;
        let area = unread((buffer, area), theme, &jobs.unread);
        let (safety, tone) = self.safety(&jobs);
        line((buffer, area), 0, &safety, theme.style(tone));
        let search = self.search(&jobs);
        let search = match search.is_empty() {
            true => self.counts(&jobs, model),
            false => search,
        };
        line((buffer, area), 1, &search, theme.title());
        let wide = area.width >= TAGS_FROM;
        // Where the copies are is what the list is for: it is the last to be cut.
        let narrow = area.width < NARROW;
        let state = if narrow { 7 } else { 11 };
        let mut columns = vec![ListColumn::text("STATE", state), ListColumn::rest("JOB")];
        self.keys = vec![Key::State, Key::Task];
        if wide {
            columns.push(ListColumn::text("TAGS", 30));
            self.keys.push(Key::Tags);
        }
        if !narrow {
            columns.push(ListColumn::number("SIZE", 11));
            columns.push(ListColumn::number("AGE", 7));
            self.keys.extend([Key::Size, Key::Date]);
        }
        columns.push(ListColumn::text("COPIES", if wide { 36 } else { 22 }));
        self.keys.push(Key::Copies);
        let key = match self.order.key {
            Key::Name => Key::Task,
            key => key,
        };
        let sorted = self.keys.iter().position(|it| *it == key);
        let sorted = sorted.map(|column| (column, self.order.reversed));
        let bottom = area.height.saturating_sub(2);
        let mut place = below(area, 2);
        place.height = bottom.saturating_sub(2);
        let (shown, marked) = (&self.shown, &self.marked);
        let row = |index: usize| {
            let row = shown.get(index).map(|it| *it as usize);
            match row.and_then(|index| jobs.rows.get(index)) {
                Some(row) => {
                    let mut cells = cells(row, &jobs, model, wide);
                    if narrow {
                        // Size and age.
                        cells.drain(2..4);
                    }
                    (cells, marked.contains(&row.id))
                }
                None => (Vec::new(), false),
            }
        };
        let canvas = (&mut *buffer, place, theme);
        self.list
            .draw(canvas, &columns, sorted, self.shown.len(), row);
        if self.shown.is_empty() && !jobs.rows.is_empty() {
            let text = "no job is like this: Esc shows all";
            line((buffer, below(place, 1)), 0, text, theme.title());
        }
        if let Some(row) = self.row(&jobs, self.list.selected) {
            let details = details(row, model.looked(&row.id).map(|it| &**it), model);
            for (index, text) in details.iter().enumerate() {
                let y = bottom + u16::try_from(index).unwrap_or(0);
                line((buffer, area), y, text, theme.title());
            }
        }
    }

    /// How many finished jobs have no second copy.
    fn safety(&self, jobs: &JobTable) -> (String, Tone) {
        let (single, bytes) = self.single;
        let size = match bytes {
            0 => String::new(),
            bytes => format!(" ({})", HumanBytes(bytes)),
        };
        match (single, jobs.silent.is_empty()) {
            (0, true) => (
                "every finished job has a second copy".to_owned(),
                Tone::Good,
            ),
            (0, false) => (
                "a location does not answer: not known which jobs have a second copy".to_owned(),
                Tone::Warning,
            ),
            (1, _) => (
                format!(
                    "1 FINISHED JOB HAS NO SECOND COPY{size}: n shows {}",
                    if self.order.only_single { "all" } else { "it" }
                ),
                Tone::Warning,
            ),
            (count, _) => (
                format!(
                    "{count} FINISHED JOBS HAVE NO SECOND COPY{size}: n shows {}",
                    if self.order.only_single {
                        "all"
                    } else {
                        "them"
                    }
                ),
                Tone::Warning,
            ),
        }
    }

    /// How many jobs there are.
    fn counts(&self, jobs: &JobTable, model: &Model) -> String {
        let count = |state: JobState| jobs.rows.iter().filter(|it| it.state == state).count();
        let (running, failed) = (count(JobState::Running), count(JobState::Error));
        let mut parts = vec![counted(jobs.rows.len())];
        for (count, what) in [(running, "running"), (failed, "failed")] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        parts.join(model.theme.separator())
    }

    /// What narrows the list down.
    fn search(&self, jobs: &JobTable) -> String {
        let mut parts = Vec::new();
        if self.order.only_single {
            parts.push("without a second copy".to_owned());
        }
        if let Some(experiment) = &self.order.experiment {
            parts.push(format!("experiment {}", experiment.display()));
        }
        if self.editing || !self.order.text.is_empty() {
            let cursor = if self.editing { "_" } else { "" };
            parts.push(format!("search: {}{cursor}", self.order.text));
        }
        if let Some(error) = &self.error {
            return format!("search: {}: {error}", self.order.text);
        }
        if !parts.is_empty() {
            parts.push(format!("{} of {}", self.shown.len(), jobs.rows.len()));
        }
        if !self.marked.is_empty() {
            let marked = self.marked.len();
            parts.push(match self.hidden_marks {
                0 => format!("{marked} marked"),
                hidden => format!("{marked} marked, {hidden} of them hidden"),
            });
        }
        parts.join(", ")
    }
}

/// The name of a job, as in `train/0defac9f`.
pub(in crate::cli::tui) fn short(id: &JobId) -> String {
    let hash = id.hash().to_string_lossy();
    let start: String = hash.chars().take(HASH_SHOWN).collect();
    format!("{}/{start}", id.name().to_string_lossy())
}

/// The tone of a state.
pub(in crate::cli::tui) fn tone(state: &JobState) -> Tone {
    match state {
        JobState::Done => Tone::Good,
        JobState::Error => Tone::Bad,
        JobState::Running | JobState::Scheduled => Tone::Warning,
        JobState::Other(other) if other == UNKNOWN => Tone::Bad,
        _ => Tone::Plain,
    }
}

fn cells(row: &Row, jobs: &JobTable, model: &Model, wide: bool) -> Cells {
    let mut cells = vec![
        (row.state.to_string(), tone(&row.state)),
        (short(&row.id), Tone::Plain),
    ];
    if wide {
        cells.push((row.tags.replace('\n', " "), Tone::Plain));
    }
    let size = match row.place {
        Place::Missing => String::new(),
        _ => bytes(model.size(row)),
    };
    cells.push((size, Tone::Plain));
    cells.push((age(row.changed), Tone::Plain));
    let safety = model.places.safety(row, jobs.silent);
    let mut copies = model.places.copies(row, jobs.silent);
    let mut tone = match safety {
        Safety::Missing => Tone::Bad,
        Safety::Single | Safety::Unclear => Tone::Warning,
        Safety::Several => Tone::Good,
        Safety::Foreign | Safety::Unfinished => Tone::Plain,
    };
    if let Some(looked) = model.looked(&row.id) {
        if looked.copies.iter().any(|copy| copy.damage.is_some()) {
            copies.push_str(" DAMAGED");
            tone = Tone::Bad;
        } else if looked.copies.iter().any(|copy| copy.verified.is_some()) {
            copies.push_str(&format!(" {}", model.theme.ok()));
        }
    }
    cells.push((copies, tone));
    cells
}

/// Two lines about the selected job.
fn details(row: &Row, looked: Option<&JobCopies>, model: &Model) -> [String; 2] {
    let separator = model.theme.separator();
    let mut first = row.id.to_string();
    if let Some(reason) = &row.reason {
        first.push_str(&format!("{separator}{reason}"));
    }
    let mut second = Vec::new();
    if let Some(looked) = looked {
        second.extend(looked.pinned.then(|| "pinned".to_owned()));
        let out = looked.opted_out.as_ref();
        second.extend(out.map(|how| format!("opted out, as {how}")));
        let found = looked.copies.iter();
        let found = found.filter(|it| it.state != CopyState::Absent || it.damage.is_some());
        second.extend(found.filter_map(|copy| {
            let name = model.places.name(copy.location);
            Some(match (&copy.damage, copy.verified, &copy.state) {
                (Some(damage), ..) => format!("{name}: DAMAGED: {damage}"),
                (_, Some(_), _) => format!("{name} verified"),
                (_, _, CopyState::Offline(why)) => format!("{name}: {why}"),
                (_, _, CopyState::Lost) => format!("{name}: LOST"),
                (_, _, CopyState::Present) if model.places.archives.has(copy.location) => {
                    match copy.manifest {
                        true => format!("{name} not verified yet"),
                        false => format!("{name} without a manifest"),
                    }
                }
                _ => return None,
            })
        }));
    }
    if !row.tags.is_empty() {
        second.insert(0, row.tags.replace('\n', " "));
    }
    [first, second.join(separator)]
}
