//! The settings in effect as a tree: every key, also those that have their default, and where each value is from.
//!
//! - `tree`: the values with their origins, and how they are printed

mod tree;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Number, json};

use super::SettingsError;
use super::environment::Environment;
use super::load;
use super::model::{Folder, History, Settings, Workspace};
use super::units;
use super::xpmfs::{KeepFree, Patterns, Tuning};
use super::yaml;
use tree::{Content, Spot};
pub use tree::{Origin, SettingsEntry};

/// The settings in effect of a file, with `secrets` (environment variables, the server's token) or without; of the workspaces, those with
/// the id `only`, if that is given.
///
/// # Errors
///
/// As [`Settings::load_in`].
pub fn effective(
    settings: &Settings,
    environment: &Environment,
    only: Option<&str>,
    secrets: bool,
) -> Result<SettingsEntry, SettingsError> {
    let text = load::read(&settings.file)?.unwrap_or_default();
    let reading = load::parse(&text, &settings.file, environment);
    let document = reading.document.map(|document| document.root);
    let raw = yaml::parse(&text).ok().map(|document| document.root);
    let root = Spot {
        node: document.as_ref(),
        raw: raw.as_ref(),
        note: "",
    };
    let shown = Shown {
        settings,
        root,
        only,
        secrets,
    };
    Ok(shown.all(environment))
}

/// A workspace as experimaestro's `workspaces list -v` prints it: all keys but `id` and `path`.
#[must_use]
pub fn workspace_keys(settings: &Settings, workspace: &Workspace) -> SettingsEntry {
    let shown = Shown {
        settings,
        root: Spot::NONE,
        only: None,
        secrets: true,
    };
    let mut pairs = shown.keys(workspace, Spot::NONE);
    let alternatives = Spot::NONE.strings(&workspace.alt_workspaces);
    let folders = folders(&workspace.folders, Spot::NONE.get("folders"));
    pairs.insert(1, ("alt_workspaces", alternatives));
    pairs.insert(2, ("folders", Spot::NONE.list(folders)));
    let tuning = settings.tuning_of(workspace);
    if tuning != Tuning::default() {
        pairs.push(("xpmfs", shown.tuning(&tuning, Spot::NONE, Spot::NONE)));
    }
    Spot::NONE.map(pairs)
}

struct Shown<'s, 'n> {
    settings: &'s Settings,
    root: Spot<'n>,
    /// The id of the only workspace that is shown, if not all are.
    only: Option<&'s str>,
    secrets: bool,
}

impl<'n> Shown<'_, 'n> {
    fn all(&self, environment: &Environment) -> SettingsEntry {
        let (settings, root) = (self.settings, self.root);
        let workspaces = settings.workspaces.iter().enumerate();
        let workspaces = workspaces.filter(|(_, it)| self.only.is_none_or(|id| it.id == id));
        let workspaces = workspaces.map(|(index, workspace)| {
            let place = root.get("workspaces").item(index);
            let folders = settings.folders_in(workspace, environment);
            self.workspace(workspace, &folders, place)
        });
        let server = root.get("server");
        let token = match &settings.server.token {
            Some(_) if !self.secrets => server.get("token").hidden(),
            token => server.get("token").optional(token.as_deref()),
        };
        let port = match settings.server.port {
            Some(port) => server.get("port").number(port),
            None => server.get("port").scalar(Content::Null),
        };
        let carbon = root.get("carbon");
        let interval = settings.carbon.report_interval_s;
        root.map(vec![
            (
                "server",
                server.map(vec![
                    ("port", port),
                    (
                        "host",
                        server.get("host").optional(settings.server.host.as_deref()),
                    ),
                    (
                        "autohost",
                        server
                            .get("autohost")
                            .optional(settings.server.autohost.as_deref()),
                    ),
                    ("token", token),
                ]),
            ),
            (
                "workspaces",
                root.get("workspaces").list(workspaces.collect()),
            ),
            ("env", self.env(&settings.env, root.get("env"))),
            (
                "history",
                history(settings.history.clone(), root.get("history")),
            ),
            (
                "carbon",
                carbon.map(vec![
                    (
                        "enabled",
                        carbon.get("enabled").bool(settings.carbon.enabled),
                    ),
                    (
                        "provider",
                        carbon.get("provider").text(&settings.carbon.provider),
                    ),
                    (
                        "country_iso_code",
                        carbon
                            .get("country_iso_code")
                            .optional(settings.carbon.country_iso_code.as_deref()),
                    ),
                    (
                        "region",
                        carbon
                            .get("region")
                            .optional(settings.carbon.region.as_deref()),
                    ),
                    (
                        "report_interval_s",
                        float(interval, carbon.get("report_interval_s")),
                    ),
                    (
                        "warn_if_unavailable",
                        carbon
                            .get("warn_if_unavailable")
                            .bool(settings.carbon.warn_if_unavailable),
                    ),
                ]),
            ),
            (
                "xpmfs",
                self.tuning(&settings.xpmfs, root.get("xpmfs"), Spot::NONE),
            ),
        ])
    }

    fn workspace(&self, workspace: &Workspace, all: &[Folder], place: Spot<'n>) -> SettingsEntry {
        // Those of `alt_workspaces` come first.
        let alternatives = all.len() - workspace.folders.len();
        let mut shown = Vec::new();
        for (index, folder) in all.iter().take(alternatives).enumerate() {
            let mut place = place.get("alt_workspaces").item(index);
            place.note = "alt_workspaces";
            let path = place.path(&folder.path);
            place.raw = None;
            let mode = place.text(folder.mode.name());
            shown.push(place.map(vec![("path", path), ("mode", mode)]));
        }
        shown.extend(folders(&workspace.folders, place.get("folders")));
        let mut pairs = vec![
            ("id", place.get("id").text(&workspace.id)),
            ("path", place.get("path").path(&workspace.path)),
            ("folders", place.get("folders").list(shown)),
        ];
        pairs.extend(self.keys(workspace, place));
        let mut top = self.root.get("xpmfs");
        top.note = "for all workspaces";
        let tuning = self.settings.tuning_of(workspace);
        pairs.push(("xpmfs", self.tuning(&tuning, place.get("xpmfs"), top)));
        place.map(pairs)
    }

    /// The keys of a workspace that are experimaestro's, in its order, without its place and folders.
    fn keys(&self, workspace: &Workspace, place: Spot<'_>) -> Vec<(&'static str, SettingsEntry)> {
        let ssh = place.get("ssh");
        let connection = workspace.ssh.as_ref().map(|it| {
            ssh.map(vec![
                ("host", ssh.get("host").text(&it.host)),
                (
                    "shell_init",
                    ssh.get("shell_init").optional(it.shell_init.as_deref()),
                ),
                ("uv_offline", ssh.get("uv_offline").bool(it.uv_offline)),
                ("python", ssh.get("python").optional(it.python.as_deref())),
                (
                    "xpm_path",
                    ssh.get("xpm_path").optional(it.xpm_path.as_deref()),
                ),
                ("options", ssh.get("options").strings(&it.options)),
            ])
        });
        vec![
            ("env", self.env(&workspace.env, place.get("env"))),
            (
                "max_retries",
                place.get("max_retries").number(workspace.max_retries),
            ),
            (
                "lock_mode",
                place.get("lock_mode").text(&workspace.lock_mode),
            ),
            (
                "triggers",
                place.get("triggers").strings(&workspace.triggers),
            ),
            (
                "history",
                history(workspace.history.clone(), place.get("history")),
            ),
            (
                "ssh",
                connection.unwrap_or_else(|| ssh.scalar(Content::Null)),
            ),
        ]
    }

    fn env(&self, variables: &BTreeMap<String, String>, place: Spot<'_>) -> SettingsEntry {
        let variables = variables.iter().map(|(name, value)| {
            let place = place.get(name);
            let entry = match self.secrets {
                true => place.text(value),
                false => place.hidden(),
            };
            (name.as_str(), entry)
        });
        place.map(variables.collect())
    }

    /// Keys of the workspace, or else those of the top.
    fn tuning(&self, tuning: &Tuning, own: Spot<'_>, top: Spot<'_>) -> SettingsEntry {
        let place = |key| match own.get(key).node {
            None if top.get(key).node.is_some() => top.get(key),
            _ => own.get(key),
        };
        let duration = |key, value: Duration| place(key).text(units::written_duration(value));
        let exclude = tuning.exclude.as_ref().map(Patterns::written);
        let release = |key| match own.get("release").get(key).node {
            Some(_) => own.get("release").get(key),
            None => top.get("release").get(key),
        };
        let mut rules = Vec::new();
        if let Some(keep_free) = tuning.release.keep_free {
            let place = release("keep_free");
            let entry = match keep_free {
                KeepFree::Bytes(bytes) => place.size(bytes),
                KeepFree::Percent(percent) => place.text(format!("{percent}%")),
            };
            rules.push(("keep_free", entry));
        }
        if let Some(older_than) = tuning.release.older_than {
            let text = units::written_duration(older_than);
            rules.push(("older_than", release("older_than").text(text)));
        }
        let recover_on = json!(tuning.recover_on());
        own.map(vec![
            ("settle", duration("settle", tuning.settle())),
            (
                "scan_interval",
                duration("scan_interval", tuning.scan_interval()),
            ),
            (
                "exclude",
                place("exclude").strings(exclude.unwrap_or_default()),
            ),
            ("release", place("release").map(rules)),
            // 0 means no limit.
            (
                "bandwidth",
                place("bandwidth").size(tuning.bandwidth.unwrap_or(0)),
            ),
            (
                "recover_on",
                place("recover_on").text(recover_on.as_str().unwrap_or_default()),
            ),
            (
                "folder_timeout",
                duration("folder_timeout", tuning.folder_timeout()),
            ),
            ("trash", duration("trash", tuning.trash())),
        ])
    }
}

fn folders(folders: &[Folder], place: Spot<'_>) -> Vec<SettingsEntry> {
    let folders = folders.iter().enumerate().map(|(index, folder)| {
        let place = place.item(index);
        let mut pairs = vec![
            ("path", place.get("path").path(&folder.path)),
            ("mode", place.get("mode").text(folder.mode.name())),
        ];
        if !folder.exclude.written().is_empty() {
            let exclude = place.get("exclude").strings(folder.exclude.written());
            pairs.push(("exclude", exclude));
        }
        place.map(pairs)
    });
    folders.collect()
}

fn history(history: History, place: Spot<'_>) -> SettingsEntry {
    place.map(vec![
        ("max_done", place.get("max_done").number(history.max_done)),
        (
            "max_failed",
            place.get("max_failed").number(history.max_failed),
        ),
    ])
}

/// A number; JSON has none for infinity.
fn float(value: f64, place: Spot<'_>) -> SettingsEntry {
    match Number::from_f64(value) {
        Some(number) => place.number(number),
        None => place.text(value.to_string()),
    }
}
