//! Whether a job has a second copy, and how its copies are named in a column.

use super::row::Row;
use crate::archive::job_list::JobLocation;
use crate::settings::Mode;
use crate::view::inventory::LocationSet;
use crate::view::location::Role;
use crate::view::{PRIMARY, View};
use crate::workspace::job_files::JobState;

/// How safe a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Safety {
    /// It is not finished, so nothing is archived yet.
    Unfinished,
    /// It has one copy: if that is lost, so is the job.
    Single,
    /// It has one copy that is known, and a folder does not answer.
    Unclear,
    /// It has several copies.
    Several,
    /// A `use` folder has it, which is not ours.
    Foreign,
    /// No location has it, and a run names it.
    Missing,
}

impl Safety {
    /// What needs a look first.
    pub(super) fn rank(self) -> u8 {
        match self {
            Safety::Missing => 0,
            Safety::Single => 1,
            Safety::Unclear => 2,
            Safety::Foreign => 3,
            Safety::Unfinished => 4,
            Safety::Several => 5,
        }
    }
}

/// The locations of a workspace, with short names.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    names: Vec<String>,
    /// The primary, and the `backup` and `move` folders: what this workspace has.
    own: LocationSet,
    /// The `backup` and `move` folders.
    pub(super) archives: LocationSet,
}

impl Places {
    /// Those of a view.
    pub(super) fn of(view: &View) -> Places {
        let mut places = Places::default();
        let locations = view.locations();
        for location in locations {
            let role = location.role();
            let same = locations.iter().filter(|it| it.role() == role);
            let before = same.clone().filter(|it| it.index() < location.index());
            let number = match same.count() {
                1 => String::new(),
                _ => (before.count() + 1).to_string(),
            };
            places.names.push(format!("{role}{number}"));
            match role {
                Role::Primary => places.own.insert(PRIMARY),
                Role::Folder(Mode::Backup | Mode::Move) => {
                    places.own.insert(location.index());
                    places.archives.insert(location.index());
                }
                Role::Folder(Mode::Use) => {}
            }
        }
        places
    }

    /// The short name of a location: `primary`, `backup`, `use2`.
    pub(super) fn name(&self, location: u8) -> &str {
        let name = self.names.get(usize::from(location));
        name.map_or("?", String::as_str)
    }

    /// How safe a job is, if these locations do not answer.
    pub(super) fn safety(&self, row: &Row, silent: LocationSet) -> Safety {
        let own = row.current().and(self.own).len();
        let waits = matches!(
            row.state,
            JobState::Waiting | JobState::Ready | JobState::Scheduled
        );
        match (row.location, own) {
            // It has no directory before it starts.
            (JobLocation::Missing, _) if waits => Safety::Unfinished,
            (JobLocation::Missing, _) => Safety::Missing,
            (_, 2..) => Safety::Several,
            (JobLocation::Unknown, _) => Safety::Unclear,
            _ if row.state != JobState::Done => Safety::Unfinished,
            _ if !silent.and(self.own).is_empty() => Safety::Unclear,
            (_, 1) => Safety::Single,
            _ => Safety::Foreign,
        }
    }

    /// The copies of a job, as in `primary + backup`.
    pub(super) fn copies(&self, row: &Row, silent: LocationSet) -> String {
        let named = |set: LocationSet| {
            let names: Vec<&str> = set.iter().map(|it| self.name(it)).collect();
            names.join(" + ")
        };
        let (own, all) = (row.current().and(self.own), row.current());
        let text = match (self.safety(row, silent), row.location) {
            (Safety::Missing, _) => "MISSING".to_owned(),
            (Safety::Single, _) if own == all => format!("{} ONLY", named(own)),
            (Safety::Single, _) => {
                let others = all.iter().filter(|it| !own.has(*it)).collect();
                format!("{} ONLY + {}", named(own), named(others))
            }
            (Safety::Unclear, _) if all.is_empty() => "?".to_owned(),
            (Safety::Unclear, _) => format!("{} + ?", named(all)),
            // To a directory that is in no location.
            (_, JobLocation::At(PRIMARY)) if all.is_empty() => "a symlink".to_owned(),
            (_, JobLocation::At(at)) if all.is_empty() => self.name(at).to_owned(),
            (_, JobLocation::Missing) => "not started".to_owned(),
            _ => named(all),
        };
        match row.outdated.is_empty() {
            true => text,
            false => format!("{text} + old {}", named(row.outdated)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::jobs::JobId;

    fn places() -> Places {
        Places {
            names: ["primary", "use", "backup"].map(str::to_owned).to_vec(),
            own: [0, 2].into_iter().collect(),
            archives: [2].into_iter().collect(),
        }
    }

    fn shown(
        state: JobState,
        location: JobLocation,
        copies: &[u8],
        silent: &[u8],
    ) -> (Safety, String) {
        let row = row(state, location, copies);
        let silent = silent.iter().copied().collect();
        (places().safety(&row, silent), places().copies(&row, silent))
    }

    fn row(state: JobState, location: JobLocation, copies: &[u8]) -> Row {
        Row {
            id: JobId::new("t", "h").unwrap(),
            state,
            reason: None,
            location,
            copies: copies.iter().copied().collect(),
            outdated: LocationSet::default(),
            changed: None,
            tags: "".into(),
            experiment: None,
            bytes: None,
        }
    }

    #[test]
    fn a_copy_of_an_earlier_run_does_not_count() {
        let mut row = row(JobState::Done, JobLocation::At(0), &[0, 2]);
        row.outdated.insert(2);
        let silent = LocationSet::default();
        assert_eq!(places().safety(&row, silent), Safety::Single);
        let text = places().copies(&row, silent);
        assert_eq!(text, "primary ONLY + old backup");
        row.state = JobState::Running;
        assert_eq!(places().safety(&row, silent), Safety::Unfinished);
    }

    #[test]
    fn a_copy_that_is_not_ours_does_not_count() {
        let at = JobLocation::At(0);
        for (copies, silent, safety, text) in [
            (&[0][..], &[][..], Safety::Single, "primary ONLY"),
            (&[0, 1], &[], Safety::Single, "primary ONLY + use"),
            (&[0, 2], &[], Safety::Several, "primary + backup"),
            (&[0], &[2], Safety::Unclear, "primary + ?"),
            (&[0], &[1], Safety::Single, "primary ONLY"),
        ] {
            let found = shown(JobState::Done, at, copies, silent);
            assert_eq!(found, (safety, text.to_owned()));
        }
        assert_eq!(
            shown(JobState::Running, at, &[0], &[]).0,
            Safety::Unfinished
        );
        let missing = shown(JobState::Unscheduled, JobLocation::Missing, &[], &[]);
        assert_eq!(missing, (Safety::Missing, "MISSING".to_owned()));
        let waiting = shown(JobState::Waiting, JobLocation::Missing, &[], &[]);
        assert_eq!(waiting, (Safety::Unfinished, "not started".to_owned()));
        assert_eq!(
            shown(JobState::Done, JobLocation::At(1), &[1], &[]).0,
            Safety::Foreign
        );
    }
}
