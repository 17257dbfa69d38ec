//! The settings file: reads, interpolates and checks it, and selects a workspace.
//!
//! The file is experimaestro's own `settings.yaml`. Every file that experimaestro accepts is accepted by [`Settings::load`], with
//! the same values; a file that experimaestro refuses may be read. Keys that experimaestro ignores are xpmfs's own (`xpmfs:`).
//!
//! From the text to the settings:
//!
//! - `load`: all of the steps below
//! - `yaml`: YAML as PyYAML reads it, into a tree that knows lines and columns, which `settings check` needs
//! - `interpolate`: `${env:VAR}` in values, with an [`Environment`] (`environment`)
//! - `decode`, `coerce`, `units`: the tree into types, as pydantic does it; `fields`: the keys of every mapping
//! - `model`, `xpmfs`: [`Settings`], and the part that is xpmfs's own
//! - `check`, `check_workspaces`: mistakes in a file that can be read; `error`: [`Finding`], and [`SettingsError`] for one that cannot
//! - `effective`: the settings in effect, and where each value is from; `migrate`: rewrites `alt_workspaces` in the text
//! - `folders`: the folders of a workspace; `placement`: whether they can be attached to it
//! - `select`: the workspace of a command
//!
//! Called by `view`, `archive`, `mount`, `remote`, `daemon` and `cli`; calls `sys` alone.

mod check;
mod check_workspaces;
mod coerce;
mod decode;
mod effective;
mod environment;
mod error;
mod fields;
mod folders;
mod interpolate;
mod load;
mod migrate;
mod model;
mod placement;
mod select;
mod units;
mod xpmfs;
mod yaml;

pub use check::check;
pub use effective::{Origin, SettingsEntry, effective, workspace_keys};
pub use environment::Environment;
pub(crate) use environment::expand_user;
pub use error::{Finding, SettingsError, Severity};
pub use load::default_path;
pub use migrate::{Migration, migration, write as write_migration};
pub use model::{Carbon, Folder, History, Mode, ServerSettings, Settings, Ssh, Workspace};
pub use placement::{FOLDERS_MAX, validate_folders};
pub use select::{Selection, Trigger};
pub use units::{duration as parse_duration, keep_free as parse_keep_free};
pub use xpmfs::{
    DEFAULT_FOLDER_TIMEOUT, DEFAULT_SCAN_INTERVAL, DEFAULT_SETTLE, DEFAULT_TRASH, KeepFree,
    Patterns, RecoverOn, Release, Tuning,
};
