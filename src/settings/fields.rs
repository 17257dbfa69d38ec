//! The keys of every mapping in the file, and how the paths in it are resolved.
//!
//! Unknown keys are ignored with a warning, as in experimaestro; below `xpmfs:` they are errors.

use std::path::PathBuf;

use super::coerce;
use super::decode::{Decode, Decoder, ListItem, THE_FILE, table};
use super::environment;
use super::model::{Carbon, Folder, History, Mode, ServerSettings, Settings, Ssh, Workspace};
use super::xpmfs::{FOLDER_TIMEOUT_MIN, Patterns, RecoverOn, Release, SCAN_INTERVAL_MIN, Tuning};
use super::yaml::Node;

table! { Settings, THE_FILE, false, Settings::default() => {
    server: optional,
    workspaces: optional,
    env: optional,
    history: optional,
    carbon: optional,
    xpmfs: optional,
}}

table! { ServerSettings, "server", false, ServerSettings::default() => {
    port: optional,
    host: optional,
    autohost: optional,
    token: optional,
}}

table! { History, "history", false, History::default() => {
    max_done: optional,
    max_failed: optional,
}}

table! { Carbon, "carbon", false, Carbon::default() => {
    enabled: optional,
    provider: optional,
    country_iso_code: optional,
    region: optional,
    report_interval_s: optional,
    warn_if_unavailable: optional,
}}

table! { Workspace, "a workspace", false, Workspace::bare(""), finish resolve_workspace => {
    id: required,
    path: required,
    env: optional,
    alt_workspaces: optional,
    folders: optional,
    max_retries: optional,
    lock_mode: optional,
    triggers: optional,
    history: optional,
    ssh: optional,
    xpmfs: optional,
}}

table! { Folder, "a folder", false, Folder::new(Mode::Use, ""), finish expand_folder => {
    path: required,
    mode: optional,
    exclude: optional,
}}

table! { Ssh, "ssh", false, Ssh::default() => {
    host: optional,
    shell_init: optional,
    uv_offline: optional,
    python: optional,
    xpm_path: optional,
    options: optional,
}}

table! { Tuning, "xpmfs", true, Tuning::default(), finish check_times => {
    settle: not_null,
    scan_interval: not_null,
    exclude: not_null,
    release: optional,
    bandwidth: not_null,
    recover_on: not_null,
    folder_timeout: not_null,
    trash: not_null,
}}

table! { Release, "release", true, Release::default() => {
    keep_free: not_null,
    older_than: not_null,
}}

impl ListItem for Workspace {
    fn example(_: &str) -> String {
        "`- id: …` and `path: …`, one for each workspace".to_owned()
    }
}

impl ListItem for Folder {
    fn example(_: &str) -> String {
        "`- path: …` and `mode: …`, one for each folder".to_owned()
    }
}

fn check_times(decoder: &mut Decoder<'_>, node: &Node, tuning: &mut Tuning) {
    check_scan_interval(decoder, node, tuning);
    check_folder_timeout(decoder, node, tuning);
}

/// A busy disk does not answer faster.
fn check_folder_timeout(decoder: &mut Decoder<'_>, node: &Node, tuning: &mut Tuning) {
    if tuning
        .folder_timeout
        .is_some_and(|it| it < FOLDER_TIMEOUT_MIN)
    {
        let at = node.get("folder_timeout").map_or(node.at, |value| value.at);
        let message = format!(
            "`folder_timeout` must be at least {} ms: a busy disk does not answer faster, and its jobs would be unavailable",
            FOLDER_TIMEOUT_MIN.as_millis()
        );
        let advice =
            "write for example `folder_timeout: 2s`, or remove the line to have the default";
        decoder.error(at, message, advice);
        tuning.folder_timeout = None;
    }
}

/// Scans without a pause would keep a processor and both disks busy.
fn check_scan_interval(decoder: &mut Decoder<'_>, node: &Node, tuning: &mut Tuning) {
    if tuning
        .scan_interval
        .is_some_and(|it| it < SCAN_INTERVAL_MIN)
    {
        let at = node.get("scan_interval").map_or(node.at, |value| value.at);
        let message = format!(
            "`scan_interval` must be at least {} ms: scans would follow each other without a pause",
            SCAN_INTERVAL_MIN.as_millis()
        );
        let advice =
            "write for example `scan_interval: 1m`, or remove the line to have the default";
        decoder.error(at, message, advice);
        tuning.scan_interval = None;
    }
}

/// The path of a local workspace is absolute, with links followed; that of a remote one stays as it is written.
fn resolve_workspace(decoder: &mut Decoder<'_>, node: &Node, workspace: &mut Workspace) {
    workspace.path = environment::normal(&workspace.path);
    workspace.raw_path = workspace.path.to_string_lossy().into_owned();
    if !workspace.is_remote() {
        let resolved = environment::expand_and_resolve(&workspace.path, decoder.environment);
        workspace.path = checked_path(decoder, node, resolved);
    }
}

/// The path of a folder has its `~` replaced; links are not followed.
fn expand_folder(decoder: &mut Decoder<'_>, node: &Node, folder: &mut Folder) {
    let expanded = environment::expand_user(&folder.path, decoder.environment);
    folder.path = checked_path(decoder, node, expanded);
}

fn checked_path(
    decoder: &mut Decoder<'_>,
    node: &Node,
    path: Result<PathBuf, environment::PathError>,
) -> PathBuf {
    path.unwrap_or_else(|error| {
        let at = node.get("path").map_or(node.at, |value| value.at);
        decoder.error(at, error.to_string(), "write the path in full");
        PathBuf::new()
    })
}

impl Decode for Mode {
    fn decode(decoder: &mut Decoder<'_>, _: &str, node: &Node) -> Option<Mode> {
        let Some(text) = coerce::string(&node.value) else {
            let message = format!(
                "`mode` is {}, and must be `use`, `backup` or `move`",
                node.value.kind()
            );
            decoder.error(node.at, message, "without the key, the mode is `use`");
            return None;
        };
        let mode = text.parse().ok();
        if mode.is_none() {
            let advice = match Mode::meant(&text) {
                Some(mode) => format!("did you mean `mode: {mode}`?"),
                None => "write `mode: use`, `mode: backup` or `mode: move`".to_owned(),
            };
            decoder.error(node.at, format!("`{text}` is not a mode"), advice);
        }
        mode
    }
}

impl Decode for RecoverOn {
    fn decode(decoder: &mut Decoder<'_>, _: &str, node: &Node) -> Option<RecoverOn> {
        let text = coerce::string(&node.value);
        match text.as_deref() {
            Some("never") => return Some(RecoverOn::Never),
            Some("write") => return Some(RecoverOn::Write),
            Some("open") => return Some(RecoverOn::Open),
            _ => {}
        }
        let found = match text {
            Some(text) => format!("`{text}`"),
            None => node.value.kind().to_string(),
        };
        let message = format!("`recover_on` is {found}, and must be `never`, `write` or `open`");
        let advice = "write `recover_on: write`, which is the default, or `recover_on: never`";
        decoder.error(node.at, message, advice);
        None
    }
}

/// A list of globs over `task_id` or `task_id/hash`.
impl Decode for Patterns {
    fn decode(decoder: &mut Decoder<'_>, key: &str, node: &Node) -> Option<Patterns> {
        let globs = Vec::<String>::decode(decoder, key, node)?;
        let patterns = Patterns::new(globs).map_err(|(index, reason)| {
            // Items that are not strings are left out of `globs`, so this may be the place of another item.
            let at = node.items().get(index).map_or(node.at, |item| item.at);
            let advice = "write for example `my.module.*` or `my.module.train/ab*`";
            decoder.error(at, format!("this is not a glob: {reason}"), advice);
        });
        patterns.ok()
    }
}
