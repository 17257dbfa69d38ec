//! How the tab of jobs looks: state, size and age of each job, and where its copies are.

use indicatif::HumanBytes;

use super::super::jobs::{JobTable, Key};
use super::super::list::{Cells, ListColumn};
use super::super::model::Model;
use super::super::order::counted;
use super::super::row::Row;
use super::super::safety::Safety;
use super::jobs::{AtRisk, JobsTab};
use super::{Canvas, age, below, bytes, line, loading, unread};
use crate::archive::copies::{CopyState, JobCopies};
use crate::archive::job_list::{JobLocation, UNKNOWN};
use crate::cli::style::Tone;
use crate::workspace::job_files::JobState;
use crate::workspace::jobs::JobId;

/// From this width on, tags have a column.
const TAGS_FROM: u16 = 120;

/// Below this width, sizes and ages have no column.
const NARROW: u16 = 70;

/// How much of a hash is shown.
const HASH_SHOWN: usize = 8;

impl JobsTab {
    /// Draws the tab.
    pub(in crate::cli::tui) fn draw(&mut self, (buffer, area): Canvas<'_>, model: &Model) {
        self.update(model);
        let Some(jobs) = model.jobs.clone() else {
            return loading((buffer, area), "the jobs", model.started);
        };
        let theme = model.theme;
        let area = unread((buffer, area), theme, &jobs.unread);
        let (safety, tone) = headline(&self.at_risk, self.order.only_single, &jobs);
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

/// Which finished jobs are not safe; `only_single`: whether only those without a second copy show.
fn headline(at_risk: &AtRisk, only_single: bool, jobs: &JobTable) -> (String, Tone) {
    let size = match at_risk.bytes {
        0 => String::new(),
        bytes => format!(" ({})", HumanBytes(bytes)),
    };
    let shows = match (only_single, at_risk.single) {
        (true, _) => "n shows all",
        (false, 1) => "n shows it",
        (false, _) => "n shows them",
    };
    let single = match at_risk.single {
        0 => None,
        1 => Some("1 FINISHED JOB HAS NO SECOND COPY".to_owned()),
        count => Some(format!("{count} FINISHED JOBS HAVE NO SECOND COPY")),
    };
    let missing = match at_risk.missing {
        0 => None,
        1 => Some("1 FINISHED JOB IS MISSING (C: on top)".to_owned()),
        count => Some(format!("{count} FINISHED JOBS ARE MISSING (C: on top)")),
    };
    let is_silent = !jobs.silent.is_empty();
    match (missing, single) {
        // Both have to fit into a line.
        (Some(missing), Some(_)) => {
            let text = format!(
                "{missing}, {} WITHOUT A SECOND COPY: {shows}",
                at_risk.single
            );
            (text, Tone::Bad)
        }
        (Some(missing), None) => (missing, Tone::Bad),
        (None, Some(single)) => (format!("{single}{size}: {shows}"), Tone::Warning),
        (None, None) if is_silent => (
            "a location does not answer: not known which jobs have a second copy".to_owned(),
            Tone::Warning,
        ),
        (None, None) => (
            "every finished job has a second copy".to_owned(),
            Tone::Good,
        ),
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
    let size = match row.location {
        JobLocation::Missing => String::new(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_that_are_gone_come_before_those_with_one_copy() {
        let text = |single, missing, only_single| {
            let at_risk = AtRisk {
                single,
                bytes: 2048,
                missing,
            };
            let (text, _) = headline(&at_risk, only_single, &JobTable::default());
            assert!(text.len() <= 80, "{text}");
            text
        };
        assert_eq!(text(0, 0, false), "every finished job has a second copy");
        assert_eq!(
            text(2, 0, false),
            "2 FINISHED JOBS HAVE NO SECOND COPY (2.00 KiB): n shows them"
        );
        assert_eq!(
            text(1, 0, true),
            "1 FINISHED JOB HAS NO SECOND COPY (2.00 KiB): n shows all"
        );
        assert_eq!(text(0, 1, false), "1 FINISHED JOB IS MISSING (C: on top)");
        assert_eq!(
            text(12, 3, false),
            "3 FINISHED JOBS ARE MISSING (C: on top), 12 WITHOUT A SECOND COPY: n shows them"
        );
    }
}
