//! The date of a deletion: the name of its directory in each trash.

use std::ffi::OsStr;
use std::fmt;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// How a date is written: `20261129T072241.123Z`. Without `:`, which some file systems refuse.
const FORMAT: &str = "%Y%m%dT%H%M%S%.3fZ";
const PARSED: &str = "%Y%m%dT%H%M%S%.fZ";

/// When a command deleted jobs: they share a directory in each trash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Batch {
    at: Timestamp,
    name: String,
}

impl Batch {
    /// The next full millisecond: not before anything that was changed until now.
    #[must_use]
    pub fn now() -> Batch {
        Batch::at_time(SystemTime::now())
    }

    pub(super) fn at_time(time: SystemTime) -> Batch {
        let at = Timestamp::try_from(time + Duration::from_millis(1)).unwrap_or(Timestamp::MAX);
        let name = at.strftime(FORMAT).to_string();
        Batch::parse(OsStr::new(&name)).unwrap_or(Batch { at, name })
    }

    /// Reads the name of a directory in a trash; `None` for any other name.
    #[must_use]
    pub fn parse(name: &OsStr) -> Option<Batch> {
        let name = name.to_str()?;
        let at = DateTime::strptime(PARSED, name).ok()?;
        let at = at.to_zoned(TimeZone::UTC).ok()?.timestamp();
        (at.strftime(FORMAT).to_string() == name).then(|| Batch {
            at,
            name: name.to_owned(),
        })
    }

    /// When the jobs were deleted.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The name of the directory.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        OsStr::new(&self.name)
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_as_it_was_written_and_other_names_are_none() {
        let before = SystemTime::now();
        let now = Batch::now();
        assert!(SystemTime::from(now.at()) >= before, "{now}");
        assert_eq!(Batch::parse(now.name()), Some(now.clone()));
        let name = "20261129T072241.120Z";
        let parsed = Batch::parse(OsStr::new(name)).unwrap();
        assert_eq!(parsed.at().to_string(), "2026-11-29T07:22:41.12Z");
        for other in [
            "",
            "jobs",
            ".removing",
            "20261129",
            "20261129T072241Z",
            "20261329T072241.120Z",
        ] {
            assert_eq!(Batch::parse(OsStr::new(other)), None, "{other}");
        }
    }

    #[test]
    fn names_are_in_the_order_of_time() {
        let at = |millis| Batch::at_time(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        let dates = [0, 1, 999, 1000, 1_700_000_000_000, 1_700_000_000_010].map(at);
        assert!(dates.is_sorted_by(|a, b| a.name() < b.name()), "{dates:?}");
    }
}
