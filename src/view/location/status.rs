//! Shows the health of a location to a person.

use std::path::PathBuf;

use super::health::{NO_JOBS, OFFLINE, SLOW, why_not};
use super::unreadable::Hidden;
use super::{Location, OTHER_DISK};

/// The health of a location, for `status`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct LocationStatus {
    /// `primary`, `use`, `backup` or `move`.
    pub mode: String,
    /// Its directory.
    pub path: PathBuf,
    /// `ok`, or the problem.
    pub state: String,
    /// Why it is offline, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Bytes that an ordinary user may still write there, if known.
    pub free: Option<u64>,
    /// Bytes in all, if known.
    pub total: Option<u64>,
    /// The tasks and jobs that do not show because they cannot be read, if any.
    pub hidden: Option<Hidden>,
    /// Of the primary: how many jobs are known to be purged, so that a folder serves them; `None` if none are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purged: Option<usize>,
}

impl Location {
    /// Its health, as last seen. Waits for no file system.
    pub fn status(&self) -> LocationStatus {
        let seen = self.health.seen();
        let why = self.health.why_offline();
        LocationStatus {
            mode: self.role.to_string(),
            path: self.path.clone(),
            state: match self.root() {
                _ if why.is_some() => OFFLINE.to_owned(),
                Ok(_) if seen.is_some_and(|seen| !seen.jobs) => NO_JOBS.to_owned(),
                Ok(_) if self.health.is_slow() => SLOW.to_owned(),
                Ok(_) => "ok".to_owned(),
                Err(error) => why_not(error),
            },
            why: why.map(|why| self.reason(why)).or_else(|| {
                let error = self.root().err()?;
                (error == OTHER_DISK).then(|| self.other_disk())
            }),
            free: seen.map(|seen| seen.free),
            total: seen.map(|seen| seen.total),
            hidden: self.unreadable.hidden(&self.jobs_path()),
            purged: None,
        }
    }

    /// The path of its jobs, for messages.
    fn jobs_path(&self) -> PathBuf {
        let path = self.jobs_paths().into_iter().next();
        path.unwrap_or_else(|| self.path.join("jobs"))
    }
}
