//! The settings as types, with experimaestro's defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use super::error::nearest;
use super::xpmfs::{self, Patterns};

/// The content of a settings file.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Settings {
    /// The file. If it does not exist, everything has its default.
    #[serde(serialize_with = "lossy")]
    pub file: PathBuf,
    /// experimaestro's own server.
    pub server: ServerSettings,
    /// The workspaces, in the file's order: the first is the default one.
    pub workspaces: Vec<Workspace>,
    /// Environment variables of every task.
    pub env: BTreeMap<String, String>,
    /// How many past runs experimaestro keeps.
    pub history: History,
    /// Tracking of energy and emissions.
    pub carbon: Carbon,
    /// xpmfs's own keys, for workspaces that have no other value.
    pub xpmfs: xpmfs::Tuning,
}

/// experimaestro's `ServerSettings`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ServerSettings {
    /// Port.
    pub port: Option<i64>,
    /// Host name.
    pub host: Option<String>,
    /// How to find the host name: `fqdn` or `name`.
    pub autohost: Option<String>,
    /// Token to connect with.
    #[serde(serialize_with = "hidden")]
    pub token: Option<String>,
}

/// experimaestro's `HistorySettings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct History {
    /// Successful runs that are kept for each experiment.
    pub max_done: i64,
    /// Failed runs that are kept for each experiment.
    pub max_failed: i64,
}

impl Default for History {
    fn default() -> History {
        History {
            max_done: 5,
            max_failed: 1,
        }
    }
}

/// experimaestro's `CarbonSettings`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Carbon {
    /// Whether emissions are tracked.
    pub enabled: bool,
    /// The library that tracks them.
    pub provider: String,
    /// Country, an ISO 3166-1 alpha-3 code.
    pub country_iso_code: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// Seconds between two reports.
    pub report_interval_s: f64,
    /// Whether to warn if CodeCarbon is not installed.
    pub warn_if_unavailable: bool,
}

impl Default for Carbon {
    fn default() -> Carbon {
        Carbon {
            enabled: true,
            provider: "codecarbon".to_owned(),
            country_iso_code: None,
            region: None,
            report_interval_s: 60.0,
            warn_if_unavailable: true,
        }
    }
}

/// experimaestro's `SSHSettings`: the connection to a remote workspace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Ssh {
    /// Host, `user@cluster` or an alias of the SSH configuration. If it is not empty, the workspace is remote.
    pub host: String,
    /// Shell commands to run before experimaestro there.
    pub shell_init: Option<String>,
    /// Whether `uv tool run` gets `--offline`.
    pub uv_offline: bool,
    /// Python interpreter for `uv tool run`.
    pub python: Option<String>,
    /// experimaestro's path there; then `uv` is not used.
    pub xpm_path: Option<String>,
    /// More options of `ssh`.
    pub options: Vec<String>,
}

/// experimaestro's `WorkspaceSettings`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Workspace {
    /// Its id; empty for a directory that is not in the settings.
    pub id: String,
    /// The primary: absolute, with links followed. Of a remote workspace: as it is written.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// The path as it is written.
    pub raw_path: String,
    /// Environment variables of this workspace's tasks.
    pub env: BTreeMap<String, String>,
    /// Ids or paths of workspaces to look jobs up in: deprecated, see [`Settings::folders_of`].
    pub alt_workspaces: Vec<String>,
    /// The folders, in the file's order, without those of `alt_workspaces`.
    pub folders: Vec<Folder>,
    /// How often a task that exceeds its time limit is resumed.
    pub max_retries: i64,
    /// Permissions of lock files: `inherit`, `umask` or an octal mode.
    pub lock_mode: String,
    /// Patterns of experiment ids that select this workspace, see [`super::Trigger`].
    pub triggers: Vec<String>,
    /// How many past runs experimaestro keeps.
    pub history: History,
    /// The connection to it, if it is on another machine.
    pub ssh: Option<Ssh>,
    /// xpmfs's own keys of this workspace.
    pub xpmfs: xpmfs::Tuning,
}

impl Workspace {
    /// A workspace with defaults, at a path.
    #[must_use]
    pub fn bare(path: impl Into<PathBuf>) -> Workspace {
        let path = path.into();
        Workspace {
            id: String::new(),
            raw_path: path.to_string_lossy().into_owned(),
            path,
            env: BTreeMap::new(),
            alt_workspaces: Vec::new(),
            folders: Vec::new(),
            max_retries: 3,
            lock_mode: "inherit".to_owned(),
            triggers: Vec::new(),
            history: History::default(),
            ssh: None,
            xpmfs: xpmfs::Tuning::default(),
        }
    }

    /// Whether it is on another machine: then it is never selected by default or by a trigger, and never mounted.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.ssh.as_ref().is_some_and(|ssh| !ssh.host.is_empty())
    }
}

/// experimaestro's `FolderSettings`: another location of a workspace's jobs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Folder {
    /// Its path, with `~` replaced. Links are not followed, and it may be relative.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// What it is used for.
    pub mode: Mode,
    /// Jobs that are not archived there.
    pub exclude: Patterns,
}

impl Folder {
    /// A folder that excludes no job.
    #[must_use]
    pub fn new(mode: Mode, path: impl Into<PathBuf>) -> Folder {
        Folder {
            path: path.into(),
            mode,
            exclude: Patterns::default(),
        }
    }
}

/// What a folder is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Finished jobs are read from there; it is never written.
    Use,
    /// Finished jobs are copied there.
    Backup,
    /// Finished jobs are moved there, and a link is left in the primary.
    Move,
}

impl Mode {
    /// All modes.
    pub const ALL: [Mode; 3] = [Mode::Use, Mode::Backup, Mode::Move];

    /// As it is written in the settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Use => "use",
            Mode::Backup => "backup",
            Mode::Move => "move",
        }
    }

    /// The mode that a text names, or probably means.
    pub(super) fn meant(text: &str) -> Option<Mode> {
        let name = nearest(text, Mode::ALL.map(Mode::name))?;
        name.parse().ok()
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Mode {
    type Err = String;

    /// Reads exactly `use`, `backup` or `move`, as experimaestro does.
    fn from_str(text: &str) -> Result<Mode, String> {
        let known = Mode::ALL.into_iter().find(|mode| mode.name() == text);
        known.ok_or_else(|| format!("`{text}` is not a mode: write `use`, `backup` or `move`"))
    }
}

/// Writes a path to JSON as text: bytes that are not UTF-8 are replaced.
fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Hides the token in listings: it is a secret.
fn hidden<S: Serializer>(token: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    match token {
        Some(_) => serializer.serialize_some("********"),
        None => serializer.serialize_none(),
    }
}
