//! The orders of a list of jobs.

use std::cmp::{Ordering, Reverse};

use super::{JobList, ListedJob};

/// By what a list is sorted. Jobs of the same rank are in the order of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortKey {
    /// When they were submitted, the last first; then the others, that which changed last first.
    #[default]
    Submitted,
    /// When they ended or changed, the last first.
    Changed,
    /// Their names.
    Name,
    /// Their states.
    State,
    /// Their sizes, the largest first.
    Size,
    /// Their locations, in the order of the settings.
    Location,
}

impl JobList {
    /// Sorts the jobs.
    pub fn sort(&mut self, key: SortKey) {
        // The sort is stable, and the list is in the order of the names before.
        self.jobs.sort_by(|a, b| order(key, a, b));
    }
}

fn order(key: SortKey, a: &ListedJob, b: &ListedJob) -> Ordering {
    match key {
        SortKey::Submitted => {
            let last_first = |job: &ListedJob| Reverse((job.submitted, job.changed));
            last_first(a).cmp(&last_first(b))
        }
        SortKey::Changed => Reverse(a.changed).cmp(&Reverse(b.changed)),
        SortKey::Name => Ordering::Equal,
        SortKey::State => a.state.to_string().cmp(&b.state.to_string()),
        SortKey::Size => {
            let bytes = |job: &ListedJob| Reverse(job.usage.map(|usage| usage.size.bytes));
            bytes(a).cmp(&bytes(b))
        }
        SortKey::Location => a.location.cmp(&b.location),
    }
}
