//! xpmfs's own keys: `xpmfs:` at the top and in a workspace, and `exclude` in a folder.

use std::fmt;
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How long a finished job must be unchanged before it is archived.
pub const DEFAULT_SETTLE: Duration = Duration::from_secs(2);

/// The time between two scans for jobs that other processes wrote beside the mount.
pub const DEFAULT_SCAN_INTERVAL: Duration = Duration::from_secs(60);

/// How long a deleted job can be brought back.
pub const DEFAULT_TRASH: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a folder may take to answer when jobs are looked up or listed, before it is offline.
pub const DEFAULT_FOLDER_TIMEOUT: Duration = Duration::from_secs(2);

/// The shortest such time that the settings may have.
pub(super) const FOLDER_TIMEOUT_MIN: Duration = Duration::from_millis(100);

/// The shortest time between two scans that the settings may have.
pub(super) const SCAN_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// An `xpmfs:` mapping; missing keys are `None`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Tuning {
    /// How long a finished job must be unchanged before it is archived.
    #[serde(serialize_with = "seconds")]
    pub settle: Option<Duration>,
    /// The time between two scans of the primary.
    #[serde(serialize_with = "seconds")]
    pub scan_interval: Option<Duration>,
    /// Jobs that are never archived.
    pub exclude: Option<Patterns>,
    /// When the primary's copy of an archived job may be removed.
    pub release: Release,
    /// The most bytes a second that archiving may copy, for all jobs together; 0 means no limit, also where the top has one.
    pub bandwidth: Option<u64>,
    /// When a job that a folder serves is brought back into the primary by itself.
    pub recover_on: Option<RecoverOn>,
    /// How long a folder may take to answer when jobs are looked up or listed.
    #[serde(serialize_with = "seconds")]
    pub folder_timeout: Option<Duration>,
    /// How long a deleted job can be brought back.
    #[serde(serialize_with = "seconds")]
    pub trash: Option<Duration>,
}

/// When a mount recovers a job that a folder serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RecoverOn {
    /// Never: a program that changes it gets `EROFS`.
    Never,
    /// When a program changes it, or opens a file of it for writing.
    #[default]
    Write,
    /// Then, and in the background when a program reads a file of it.
    Open,
}

impl Tuning {
    /// These values, and those of `other` for missing keys.
    #[must_use]
    pub fn or(&self, other: &Tuning) -> Tuning {
        Tuning {
            settle: self.settle.or(other.settle),
            scan_interval: self.scan_interval.or(other.scan_interval),
            exclude: self.exclude.clone().or_else(|| other.exclude.clone()),
            release: Release {
                keep_free: self.release.keep_free.or(other.release.keep_free),
                older_than: self.release.older_than.or(other.release.older_than),
            },
            bandwidth: self.bandwidth.or(other.bandwidth),
            recover_on: self.recover_on.or(other.recover_on),
            folder_timeout: self.folder_timeout.or(other.folder_timeout),
            trash: self.trash.or(other.trash),
        }
    }

    /// `settle`, or its default.
    #[must_use]
    pub fn settle(&self) -> Duration {
        self.settle.unwrap_or(DEFAULT_SETTLE)
    }

    /// `recover_on`, or its default.
    #[must_use]
    pub fn recover_on(&self) -> RecoverOn {
        self.recover_on.unwrap_or_default()
    }

    /// `folder_timeout`, or its default.
    #[must_use]
    pub fn folder_timeout(&self) -> Duration {
        self.folder_timeout.unwrap_or(DEFAULT_FOLDER_TIMEOUT)
    }

    /// `trash`, or its default.
    #[must_use]
    pub fn trash(&self) -> Duration {
        self.trash.unwrap_or(DEFAULT_TRASH)
    }

    /// `scan_interval`, or its default.
    #[must_use]
    pub fn scan_interval(&self) -> Duration {
        self.scan_interval.unwrap_or(DEFAULT_SCAN_INTERVAL)
    }
}

/// The `release:` mapping. Without its keys, nothing is released automatically.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Release {
    /// Space of the primary's file system to keep free.
    pub keep_free: Option<KeepFree>,
    /// The age from which a job may be released.
    #[serde(serialize_with = "seconds", deserialize_with = "from_seconds")]
    pub older_than: Option<Duration>,
}

/// Space to keep free.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepFree {
    /// A number of bytes.
    Bytes(u64),
    /// A percentage of the file system, 0 to 100.
    Percent(f64),
}

impl KeepFree {
    /// The size in bytes, for a file system of `total` bytes.
    #[must_use]
    pub fn of(self, total: u64) -> u64 {
        match self {
            KeepFree::Bytes(bytes) => bytes,
            KeepFree::Percent(percent) => (total as f64 * percent / 100.0) as u64,
        }
    }
}

/// Globs over `task_id` or `task_id/hash`. They are compared and printed as they are written.
#[derive(Clone, Default)]
pub struct Patterns {
    written: Vec<String>,
    globs: GlobSet,
}

impl Patterns {
    /// Reads globs, as those of the globset crate: `*`, `?`, `[a-z]`, `{a,b}`; `*` does not match `/`.
    ///
    /// # Errors
    ///
    /// The index of the first that is not a glob, and the reason.
    pub fn new(written: Vec<String>) -> Result<Patterns, (usize, String)> {
        let mut builder = GlobSetBuilder::new();
        for (index, text) in written.iter().enumerate() {
            builder.add(glob(text).map_err(|error| (index, error))?);
        }
        let globs = builder
            .build()
            .map_err(|error| (0, error.kind().to_string()))?;
        Ok(Patterns { written, globs })
    }

    /// The globs as they are written.
    #[must_use]
    pub fn written(&self) -> &[String] {
        &self.written
    }

    /// Whether any of them matches a job, by its task id or by `task_id/hash`.
    #[must_use]
    pub fn matches(&self, task_id: &str, hash: &str) -> bool {
        !self.written.is_empty()
            && (self.globs.is_match(task_id) || self.globs.is_match(format!("{task_id}/{hash}")))
    }
}

fn glob(text: &str) -> Result<Glob, String> {
    globset::GlobBuilder::new(text)
        .literal_separator(true)
        .build()
        .map_err(|error| error.kind().to_string())
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.written.fmt(f)
    }
}

impl PartialEq for Patterns {
    fn eq(&self, other: &Patterns) -> bool {
        self.written == other.written
    }
}

impl Serialize for Patterns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Patterns, D::Error> {
        let written = Vec::deserialize(from)?;
        Patterns::new(written).map_err(|(_, error)| serde::de::Error::custom(error))
    }
}

/// Reads a duration from JSON in seconds.
fn from_seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let seconds = Option::<f64>::deserialize(from)?;
    let duration = seconds.map(Duration::try_from_secs_f64).transpose();
    duration.map_err(serde::de::Error::custom)
}

/// Writes a duration to JSON in seconds.
fn seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serializer.serialize_some(&duration.as_secs_f64()),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_a_task_or_one_of_its_jobs() {
        let patterns = Patterns::new(vec!["my.*".into(), "other.train/ab*".into()]).unwrap();
        assert!(patterns.matches("my.train", "abcd"));
        assert!(patterns.matches("other.train", "abcd"));
        assert!(!patterns.matches("other.train", "bcd"));
        assert!(!Patterns::default().matches("my.train", "abcd"));
        assert_eq!(
            Patterns::new(vec!["a".into(), "[".into()]).unwrap_err().0,
            1
        );
    }

    #[test]
    fn keys_of_a_workspace_override_those_of_the_top() {
        let top = Tuning {
            settle: Some(Duration::from_secs(9)),
            bandwidth: Some(7),
            ..Tuning::default()
        };
        let own = Tuning {
            settle: Some(Duration::from_secs(1)),
            ..Tuning::default()
        };
        let both = own.or(&top);
        assert_eq!(
            (both.settle(), both.bandwidth),
            (Duration::from_secs(1), Some(7))
        );
        assert_eq!(both.scan_interval(), DEFAULT_SCAN_INTERVAL);
    }
}
