//! The settings file: read, interpolate, check, select a workspace.
//!
//! The file is experimaestro's own `settings.yaml`; where experimaestro refuses it, so does [`Settings::load`], and
//! where it accepts it, the values are the same. What experimaestro ignores may hold our keys (`xpmfs:`).
//!
//! From the text to the settings:
//!
//! - `compose` (with `strict`) and `construct` (with `scalar` and `timestamp`): YAML as PyYAML reads it, to a tree (`document`) that knows lines
//!   and columns. `saphyr-parser` gives the events; a deserializer has no positions, and `settings check` needs
//!   them;
//! - `interpolate`: `${env:VAR}` in values, with an [`Environment`];
//! - `decode` and `decode_xpmfs` (with `expect`, `coerce`, `units`): the tree to [`Settings`] (`model`, `xpmfs`), as
//!   pydantic does it;
//! - `check`: what is legal and still a mistake;
//! - `path`: paths as Python's `pathlib`; `folders`: what a workspace's folders are; `placement`: whether they can be;
//!   `select` and `trigger`: which workspace a command is about.
//!
//! Any room above may call it; it calls none.

mod check;
mod coerce;
mod decode;
mod environment;
mod error;
mod fields;
mod folders;
mod interpolate;
mod load;
mod model;
mod path;
mod placement;
mod select;
mod trigger;
mod units;
mod xpmfs;
mod yaml;

pub use check::check;
pub use environment::Environment;
pub use error::{Error, Finding, Severity};
pub use load::default_path;
pub use model::{Carbon, Folder, History, Mode, Server, Settings, Ssh, Workspace};
pub(crate) use path::expand_user;
pub use placement::{FOLDERS_MAX, validate_folders};
pub use select::Selection;
pub use trigger::Trigger;
pub use xpmfs::{DEFAULT_SCAN_INTERVAL, DEFAULT_SETTLE, KeepFree, Patterns, Release, Tuning};
