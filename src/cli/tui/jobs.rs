//! The jobs that the dashboard has in memory: as small as they can be, sorted by numbers, filtered as a person types.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ffi::OsString;

use regex::bytes::{Regex, RegexBuilder};

use super::row::Row;
use super::safety::{Places, Safety};
use crate::archive::job_list::JobList;
use crate::view::inventory::LocationSet;
use crate::workspace::filter::{Filter, Subject};
use crate::workspace::jobs::{JobId, name};

/// All jobs.
#[derive(Debug, Default)]
pub(super) struct JobTable {
    /// In the order of their ids.
    pub(super) rows: Vec<Row>,
    /// What could not be read, as sentences.
    pub(super) unread: Vec<String>,
    /// The locations that may have more copies.
    pub(super) silent: LocationSet,
}

/// By what they are sorted; each column is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    State,
    Task,
    Name,
    Tags,
    Size,
    Date,
    Copies,
}

/// The order of jobs and which of them show.
#[derive(Debug, Clone)]
pub(super) struct JobOrder {
    pub(super) key: Key,
    pub(super) reversed: bool,
    /// What was typed.
    pub(super) text: String,
    /// Only finished jobs without a second copy.
    pub(super) only_single: bool,
    /// Only the jobs of this experiment.
    pub(super) experiment: Option<OsString>,
}

impl Default for JobOrder {
    fn default() -> JobOrder {
        JobOrder {
            key: Key::Date,
            reversed: false,
            text: String::new(),
            only_single: false,
            experiment: None,
        }
    }
}

impl JobOrder {
    /// Sorts by a column; the other way round if that is the one already.
    pub(super) fn sort_by(&mut self, key: Key) {
        match self.key == key {
            true => self.reversed = !self.reversed,
            false => (self.key, self.reversed) = (key, false),
        }
    }
}

impl JobTable {
    /// Keeps what is shown of a list of jobs.
    pub(super) fn of(list: JobList) -> JobTable {
        let mut experiments = HashMap::new();
        let mut rows = Vec::with_capacity(list.jobs.len());
        rows.extend(
            list.jobs
                .into_iter()
                .map(|job| Row::of(job, &mut experiments)),
        );
        JobTable {
            rows,
            unread: list.unread,
            silent: list.silent,
        }
    }

    /// Keeps the sizes that were known before, of jobs that have not changed.
    pub(super) fn keep_sizes(&mut self, before: &JobTable) {
        let mut old = before.rows.iter().peekable();
        // Both are in the order of their ids.
        for row in &mut self.rows {
            while old.next_if(|it| it.id < row.id).is_some() {}
            if let Some(known) = old.next_if(|it| it.id == row.id)
                && known.changed == row.changed
                && known.location == row.location
            {
                row.bytes = row.bytes.or(known.bytes);
            }
        }
    }

    /// The index of a job.
    pub(super) fn find(&self, id: &JobId) -> Option<usize> {
        self.rows.binary_search_by(|row| row.id.cmp(id)).ok()
    }

    /// The indices of the jobs that show, in order. `error`: why a filter expression cannot be applied.
    pub(super) fn order(&self, order: &JobOrder, places: &Places) -> (Vec<u32>, Option<String>) {
        let (search, error) = Search::of(&order.text);
        let mut shown: Vec<u32> = Vec::with_capacity(self.rows.len());
        for (index, row) in self.rows.iter().enumerate() {
            let is_shown = (!order.only_single
                || places.safety(row, self.silent) == Safety::Single)
                && order
                    .experiment
                    .as_ref()
                    .is_none_or(|id| row.experiment.as_deref() == Some(id))
                && search.matches(row);
            if is_shown {
                shown.extend(u32::try_from(index));
            }
        }
        self.sort(&mut shown, order.key, places);
        if order.reversed {
            shown.reverse();
        }
        (shown, error)
    }

    /// Sorts indices, which are in the order of ids. The sort is stable.
    fn sort(&self, shown: &mut [u32], key: Key, places: &Places) {
        let row = |index: &u32| self.rows.get(*index as usize);
        match key {
            Key::Task => {}
            Key::State => shown.sort_by_key(|it| row(it).map(Row::rank)),
            Key::Date => shown.sort_by_key(|it| Reverse(row(it).and_then(|row| row.changed))),
            Key::Size => shown.sort_by_key(|it| Reverse(row(it).and_then(|row| row.bytes))),
            Key::Tags => shown.sort_by_key(|it| row(it).map(|row| &row.tags)),
            Key::Copies => {
                shown.sort_by_key(|it| row(it).map(|row| places.safety(row, self.silent).rank()));
            }
            Key::Name => {
                // There are few tasks, and their names are compared once each.
                let mut ranks = HashMap::new();
                for row in &self.rows {
                    ranks.entry(row.id.task_id()).or_insert(0_usize);
                }
                let mut tasks: Vec<_> = ranks.keys().copied().collect();
                tasks.sort_by_key(|task| (name(task), *task));
                for (rank, task) in tasks.into_iter().enumerate() {
                    ranks.insert(task, rank);
                }
                shown.sort_by_key(|it| row(it).and_then(|row| ranks.get(row.id.task_id())));
            }
        }
    }
}

/// What was typed to find jobs.
enum Search {
    /// Each of these words is in the job's id (`task_id/hash`), its state or its tags.
    Words(Vec<Regex>),
    /// An expression of experimaestro.
    Filter(Box<Filter>),
}

impl Search {
    /// A text that is an expression with an operator is a filter; other texts are words. Also returns why a filter that begins like one
    /// (with `@`) is none.
    fn of(text: &str) -> (Search, Option<String>) {
        let has_operator = text.contains(['=', '~', '@']) || text.contains(" in ");
        if has_operator {
            match Filter::parse(text) {
                Ok(filter) => return (Search::Filter(Box::new(filter)), None),
                Err(error) if text.starts_with('@') => {
                    return (Search::Words(Vec::new()), Some(error.to_string()));
                }
                Err(_) => {}
            }
        }
        let words = text.split_whitespace().filter_map(|word| {
            let mut word = RegexBuilder::new(&regex::escape(word));
            word.case_insensitive(true).build().ok()
        });
        (Search::Words(words.collect()), None)
    }

    fn matches(&self, row: &Row) -> bool {
        match self {
            Search::Words(words) => {
                let (task, hash) = (row.id.task_id(), row.id.hash());
                let id = [task.as_encoded_bytes(), b"/", hash.as_encoded_bytes()].concat();
                words.iter().all(|word| {
                    word.is_match(&id)
                        || word.is_match(row.tags.as_bytes())
                        || word.is_match(row.state.to_string().as_bytes())
                })
            }
            Search::Filter(filter) => {
                let (state, task) = (row.state.to_string(), row.id.task_id().to_string_lossy());
                let tags = row.tags.lines().filter_map(|tag| tag.split_once('='));
                let tags = tags.map(|(name, value)| (name.into(), value.into()));
                let tags = tags.collect();
                let subject = Subject {
                    state: &state,
                    task: &task,
                    tags: &tags,
                };
                filter.matches(&subject).unwrap_or(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::job_list::JobLocation;
    use crate::workspace::job_files::JobState;

    fn row(task: &str, hash: &str, state: JobState, changed: i64, bytes: Option<u64>) -> Row {
        Row {
            id: JobId::new(task, hash).unwrap(),
            state,
            reason: None,
            location: JobLocation::At(0),
            copies: [0].into_iter().collect(),
            outdated: LocationSet::default(),
            changed: Some(changed),
            tags: format!("lr={changed}").into(),
            experiment: None,
            bytes,
        }
    }

    fn jobs() -> JobTable {
        JobTable {
            rows: vec![
                row("a.z", "1", JobState::Done, 5, Some(1)),
                row("a.z", "2", JobState::Error, 7, None),
                row("b.c", "3", JobState::Running, 6, Some(9)),
            ],
            ..JobTable::default()
        }
    }

    fn shown(order: JobOrder) -> Vec<u32> {
        jobs().order(&order, &Places::default()).0
    }

    #[test]
    fn jobs_are_sorted_by_each_column() {
        for (key, expected) in [
            (Key::Date, [1, 2, 0]),
            (Key::State, [2, 1, 0]),
            (Key::Task, [0, 1, 2]),
            (Key::Name, [2, 0, 1]),
            (Key::Size, [2, 0, 1]),
            (Key::Tags, [0, 2, 1]),
        ] {
            let order = JobOrder {
                key,
                ..JobOrder::default()
            };
            assert_eq!(shown(order), expected, "{key:?}");
        }
        let order = JobOrder {
            reversed: true,
            ..JobOrder::default()
        };
        assert_eq!(shown(order), [0, 2, 1]);
    }

    #[test]
    fn words_and_expressions_find_jobs() {
        for (text, expected) in [
            ("A.Z", &[1, 0][..]),
            ("lr=7", &[1]),
            ("z 1", &[0]),
            ("z/1", &[0]),
            ("a.z/2", &[1]),
            ("run", &[2]),
            ("nothing", &[]),
            ("@state = \"ERROR\" or lr = \"5\"", &[1, 0]),
            ("[", &[]),
        ] {
            let order = JobOrder {
                text: text.to_owned(),
                ..JobOrder::default()
            };
            assert_eq!(shown(order), expected, "{text}");
        }
    }

    #[test]
    fn sizes_are_kept_of_jobs_that_have_not_changed() {
        let mut new = jobs();
        for row in &mut new.rows {
            row.bytes = None;
        }
        new.rows[2].changed = Some(10);
        new.rows.remove(1);
        new.keep_sizes(&jobs());
        let sizes: Vec<_> = new.rows.iter().map(|row| row.bytes).collect();
        assert_eq!(sizes, [Some(1), None]);
    }
}
